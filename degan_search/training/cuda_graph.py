"""Training steps recorded as CUDA graphs: a GPU then does not wait for a thousand kernel launches a step.

Random numbers are drawn before such a step and given to it. On a CPU a step runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Accelerate = Literal["none", "graphs"]
Step = Callable[..., Tensor]
WARM_UP = 3
"""Steps before one is recorded, in which libraries choose kernels and optimisers make their state."""

Part = nn.Module | Optimizer


def acceleration_of(setting: Accelerate, device: str) -> Accelerate:
    """Return what a trial's `accelerate` means on a device."""
    return setting if torch.device(device).type == "cuda" else "none"


def accelerated(step: Step, parts: Sequence[Part], accelerate: Accelerate) -> Step:
    """Return the step as it is, or for `graphs` recorded at its first call and then replayed.

    Args:
        step: takes tensors, changes the parts in place, reads nothing back to the host and draws no random numbers. Its
            shapes are the same at nearly every call, and it clears old gradients itself.
        parts: the networks that it trains, and their optimisers.
        accelerate: see `TrialConfig.accelerate`. A step on a CPU is never recorded, nor are networks with torch's own
            dropout.
    """
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    draws = any(isinstance(module, nn.modules.dropout._DropoutNd) for module in modules)
    if accelerate != "graphs" or draws or not any(tensor.is_cuda for part in parts for tensor in _tensors(part)):
        return step
    return Recorded(step, parts)


def _tensors(part: Part) -> Iterator[Tensor]:
    """Yield all that training changes in a part."""
    if isinstance(part, nn.Module):
        yield from part.parameters()
        yield from part.buffers()
    else:
        yield from (value for state in part.state.values() for value in state.values() if isinstance(value, Tensor))


class Recorded:
    """A step recorded as a CUDA graph at its first call; inputs of another shape take the plain step.

    The learning rate is part of the recording: record anew when it changes, or when a part has other tensors.
    """

    def __init__(self, step: Step, parts: Sequence[Part]) -> None:
        self.step, self.parts = step, parts
        self.inputs: list[Tensor] = []
        self.graph: Any = None
        for part in parts:
            if isinstance(part, Optimizer):
                for group in part.param_groups:
                    group["capturable"] = True  # torch records no optimiser that does not say so

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the step on these inputs."""
        if self.graph is None:
            self._record(inputs)
        if [given.shape for given in inputs] != [own.shape for own in self.inputs]:
            return self.step(*inputs)
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output.clone()

    def _record(self, inputs: Sequence[Tensor]) -> None:
        """Record the step, and undo what the warm-up steps before the recording changed."""
        self.inputs = [given.clone() for given in inputs]
        before = {id(tensor): (tensor, tensor.detach().clone()) for tensor in self._all()}
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.step(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.no_grad():
            for tensor in self._all():
                if id(tensor) in before:
                    tensor.copy_(before[id(tensor)][1])
                else:
                    tensor.zero_()  # Adam's state, which begins as zeros
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.output = self.step(*self.inputs)

    def _all(self) -> Iterator[Tensor]:
        return (tensor for part in self.parts for tensor in _tensors(part))
