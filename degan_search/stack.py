"""K networks of one kind side by side as one network, and their Adam (as in HFTA, Wang et al. 2021)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adam import adam

from degan_search.networks.layers import Dropout, LocalResponseNorm2

MEMORY_FORMAT = torch.channels_last


def _split(x: Tensor, dim: int, count: int) -> Tensor:
    """Return a dimension as two: the networks' and each one's own."""
    parts: Tensor = x.unflatten(dim, (count, -1))  # type: ignore[no-untyped-call]
    return parts


class _Linear(nn.Module):
    """`count` linear layers, each on its own part of the features."""

    def __init__(self, layer: nn.Linear, count: int) -> None:
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(layer.weight.new_empty(count * layer.out_features, layer.in_features))
        self.bias = nn.Parameter(layer.weight.new_empty(count * layer.out_features))

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        weight, bias = _split(self.weight, 0, self.count), _split(self.bias, 0, self.count)
        x = _split(x, 1, self.count).transpose(0, 1)
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2)).transpose(0, 1).flatten(1)


class _ResponseNorm(LocalResponseNorm2):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return super().forward(_split(x, 1, self.count)).flatten(1, 2)


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d, count: int) -> nn.Module:
    return type(layer)(
        count * layer.in_channels,
        count * layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        groups=count * layer.groups,
        bias=layer.bias is not None,
    )


def _norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, count: int) -> nn.Module:
    norm = type(layer)(count * layer.num_features, layer.eps, layer.momentum)
    norm.num_batches_tracked = torch.zeros(count, dtype=torch.int64)
    return norm


def _same(layer: nn.Module, count: int) -> nn.Module:
    return layer


LAYERS: dict[type[nn.Module], Callable[[Any, int], nn.Module]] = {
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _convolution,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.Linear: _Linear,
    Dropout: lambda layer, count: Dropout(layer.p, count * layer.features),
    LocalResponseNorm2: lambda layer, count: _ResponseNorm(count),
    nn.Flatten: lambda layer, count: nn.Flatten(1),  # the discriminator's, from 0, has one value an image
    nn.Unflatten: lambda layer, count: nn.Unflatten(
        1, (count * layer.unflattened_size[0], *layer.unflattened_size[1:])
    ),
    **dict.fromkeys((nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Identity), _same),
}
"""How `count` layers of a kind become one, whose channels are theirs one after the other."""
CHAINS = {"Sequential", "BasicBlock"}
"""Networks made of layers that leave the channels to the layers."""


def unstackable(model: nn.Module) -> str | None:
    """Return the kind of a layer for which there is no stacked one, or None if the network can be stacked."""
    for module in model.modules():
        if type(module) not in LAYERS and type(module).__name__ not in CHAINS:
            return type(module).__name__
    return None


def _stacked(model: nn.Module, count: int) -> nn.Module:
    if build := LAYERS.get(type(model)):
        return build(model, count).train(model.training)
    for name, child in model.named_children():
        setattr(model, name, _stacked(child, count))
    return model


class Stack(nn.Module):
    """K networks of one kind as one: grouped convolutions, batched products, and every norm's statistics apart.

    Each tensor of its state is the networks' own, joined along their first dimension; the networks' number in the
    stack is called their row. What one row computes does not depend on the others. The networks are copied.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.count = len(models)
        self._single = (copy.deepcopy(models[0]).to("meta"),)  # in a tuple, so that it is no part of the stack
        with torch.device("meta"):  # no weights are drawn
            self.network = _stacked(copy.deepcopy(self._single[0]), self.count)
        states = [model.state_dict() for model in models]
        joined = {
            name: torch.cat([state[name].reshape(-1, *state[name].shape[1:]) for state in states]) for name in states[0]
        }
        self.network.load_state_dict(joined, assign=True)
        for weight, own in zip(self.network.parameters(), models[0].parameters(), strict=True):
            weight.requires_grad_(own.requires_grad)
        self.to(memory_format=MEMORY_FORMAT)
        self.train(models[0].training)

    def forward(self, x: Float[Tensor, "k n ..."]) -> Float[Tensor, "k n ..."]:
        """Give each network its own part of the inputs; returns each one's outputs."""
        x = x.transpose(0, 1).flatten(1, 2)
        x = self.network(x.contiguous(memory_format=MEMORY_FORMAT) if x.ndim == 4 else x)
        return _split(x, 1, self.count).transpose(0, 1)

    def rows(self, tensors: Iterable[Tensor]) -> list[list[Tensor]]:
        """Return each network's part of some of the stack's own tensors, as views."""
        return [list(row) for row in zip(*(tensor.chunk(self.count) for tensor in tensors), strict=True)]

    def model(self, row: int) -> nn.Module:
        """Return a copy of one network."""
        model, own = copy.deepcopy(self._single[0]), self._state(row)
        shaped = {name: own[name].clone().reshape(value.shape) for name, value in model.state_dict().items()}
        model.load_state_dict(shaped, assign=True)
        return model.to(memory_format=MEMORY_FORMAT).train(self.training)

    def put(self, row: int, model: nn.Module) -> None:
        """Overwrite one network's weights and statistics by those of another."""
        own = self._state(row)
        for name, value in model.state_dict().items():
            own[name].copy_(value)

    def _state(self, row: int) -> dict[str, Tensor]:
        return {name: value.chunk(self.count)[row] for name, value in self.network.state_dict().items()}

    def take(self, rows: Sequence[int]) -> Stack:
        """Return a stack of copies of some of the networks."""
        return Stack([self.model(row) for row in rows])

    def dropouts(self) -> Iterator[Dropout]:
        """Yield the layers that need noise, in the order in which they run."""
        return (layer for layer in self.modules() if isinstance(layer, Dropout))

    def draw_noise(self, count: int, rngs: Sequence[torch.Generator]) -> list[Tensor]:
        """Return each dropout layer's noise for `count` images, each network's part from its own generator."""
        noise = []
        for layer in self.dropouts():
            own = Dropout(layer.p, layer.features // self.count)
            noise.append(torch.cat([own.draw(count, rng.device, rng) for rng in rngs], dim=1))
        return noise


@dataclass
class _State:
    """One network's learning rate, and Adam's moments and step count for each of its weights."""

    lr: float
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]


class StackedAdam:
    """torch's Adam on a stack: each network with its own learning rate and step count."""

    def __init__(self, stack: Stack, lr: float, betas: tuple[float, float], weight_decay: float = 0.0) -> None:
        self.stack, self.betas, self.weight_decay = stack, betas, weight_decay
        self.states = [self._fresh(weights, lr) for weights in stack.rows(stack.parameters())]

    @staticmethod
    def _fresh(weights: list[Tensor], lr: float) -> _State:
        means, squares = ([torch.zeros_like(weight, requires_grad=False) for weight in weights] for _ in range(2))
        return _State(lr, means, squares, [weight.new_zeros((), dtype=torch.float32) for weight in weights])

    def restart(self, row: int, lr: float) -> None:
        """Begin anew for one network."""
        self.states[row] = self._fresh(self.stack.rows(self.stack.parameters())[row], lr)

    def take(self, stack: Stack, rows: Sequence[int]) -> None:
        """Go on with some of the networks, which now are those of another stack."""
        self.stack, self.states = stack, [self.states[row] for row in rows]

    def tensors(self) -> Iterator[Tensor]:
        """Yield what a step changes beside the weights."""
        return (tensor for state in self.states for tensor in (*state.means, *state.squares, *state.steps))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in self.stack.parameters():
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update all weights by their gradients."""
        weights = list(self.stack.parameters())
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        rows = zip(self.states, self.stack.rows(weights), self.stack.rows(gradients), strict=True)
        for lr, same in groupby(sorted(rows, key=lambda row: row[0].lr), key=lambda row: row[0].lr):
            states, weights_, gradients_ = zip(*same, strict=True)
            adam(
                _joined(weights_),
                _joined(gradients_),
                _joined(state.means for state in states),
                _joined(state.squares for state in states),
                [],
                _joined(state.steps for state in states),
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=lr,
                weight_decay=self.weight_decay,
                eps=1e-8,
                maximize=False,
            )


def _joined(rows: Iterable[list[Tensor]]) -> list[Tensor]:
    return [tensor for row in rows for tensor in row]
