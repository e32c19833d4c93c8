"""Layers that torch has only in a slower form, or only with random numbers of its own."""

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Maps = Float[Tensor, "n c h w"]

_ALPHA = 1e-4
_BETA = 0.75


class LocalResponseNorm2(nn.Module):
    """`nn.LocalResponseNorm(2, alpha=1e-4, beta=0.75, k=1)`, several times as fast; first derivatives only.

    The stock layer pads its input for a three-dimensional pooling and takes a general power. Here nothing is
    padded, and channels_last stays channels_last.
    """

    def forward(self, x: Maps) -> Maps:
        """Divide each value by (1 + alpha * mean(own square, square one channel before)) ** beta.

        The channel before the first counts as zero. Takes any values; keeps type and memory format.
        """
        off = torch.autocast(x.device.type, enabled=False)  # on a GPU autocast would compute the roots in float32
        with off if torch.is_autocast_enabled(x.device.type) else nullcontext():
            output: Tensor = _Response2.apply(x)
        return output


class _Response2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        before = x[:, :-1]
        base = torch.addcmul(x.new_ones(()), x, x, value=_ALPHA / 2)
        base[:, 1:].addcmul_(before, before, value=_ALPHA / 2)
        factor = base.rsqrt()
        factor = factor.sqrt().mul_(factor)  # base ** -0.75: both roots are far faster than pow
        ctx.save_for_backward(x, base, factor)
        return x * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, base, factor = ctx.saved_tensors
        result: Tensor = gradients[0] * factor
        through_base = (result * x).div_(base)  # each square reaches its own channel's base and the next one's
        result.addcmul_(x, through_base, value=-_ALPHA * _BETA)
        result[:, :-1].addcmul_(x[:, :-1], through_base[:, 1:], value=-_ALPHA * _BETA)
        return result


class Dropout(nn.Module):
    """`nn.Dropout` on a fixed number of features, whose noise may be drawn outside the layer.

    A student then has the same noise whether it trains alone or beside others, and a step that is recorded as a CUDA
    graph draws no random numbers.
    """

    noise: Tensor | None = None
    """What the next inputs are multiplied by; None: the layer draws it."""
    rng: torch.Generator | None = None
    """What draws it (`draw_from`); None: torch's global generator."""

    def __init__(self, p: float, features: int) -> None:
        super().__init__()
        self.p, self.features = p, features

    def draw(self, count: int, device: torch.device | str, rng: torch.Generator | None = None) -> Tensor:
        """Return noise for `count` inputs: 0 with probability p, else 1 / (1 - p); float32 [count, features]."""
        keep = 1 - self.p
        return torch.empty(count, self.features, device=device).bernoulli_(keep, generator=rng).div_(keep)

    def forward(self, x: Float[Tensor, "n features"]) -> Float[Tensor, "n features"]:
        """Multiply by the noise in train mode; keeps the type."""
        if not self.training:
            return x
        noise = self.draw(len(x), x.device, self.rng) if self.noise is None else self.noise
        return x * noise.to(x.dtype)


def channels_last(model: nn.Module) -> nn.Module:
    """Bring a network's weights to channels_last, in place, and return it; tensors of other than 4 dimensions stay."""
    result: nn.Module = model._apply(  # type: ignore[no-untyped-call]
        lambda tensor: tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
    )
    return result


def dropouts(model: nn.Module) -> list[Dropout]:
    """Return the network's dropout layers."""
    return [layer for layer in model.modules() if isinstance(layer, Dropout)]


def draw_from(model: nn.Module, rng: torch.Generator | None) -> None:
    """Let the network's dropout draw from this generator; None: from torch's global one, which all share."""
    for layer in dropouts(model):
        layer.rng = rng
