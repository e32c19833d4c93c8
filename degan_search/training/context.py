"""What every stage of a trial needs to know: where random numbers come from, the device, and how steps are run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from degan_search.system import seeds
from degan_search.system.device import Precision, arithmetic
from degan_search.training.cuda_graph import Accelerate


@dataclass(frozen=True)
class Context:
    """A seed with its named streams of random numbers, the device, and how training steps are run on it."""

    seed: int
    device: str = "cpu"
    precision: Precision = "float32"
    """Of convolutions and matrix products in training steps."""
    accelerate: Accelerate = "none"
    """Whether training steps are recorded as CUDA graphs."""

    def generator(self, *names: str | int) -> torch.Generator:
        """Return the random generator of the named stream, on the device."""
        return seeds.generator(self.seed, *names, device=self.device)

    def seeded(self, *names: str | int) -> AbstractContextManager[torch.Generator]:
        """Return a block in which torch's global generator, which draws initial weights, follows the named stream."""
        return seeds.seeded(self.seed, *names)

    def arithmetic(self) -> AbstractContextManager[None]:
        """Return a block that computes in `precision`."""
        return arithmetic(self.precision, self.device)
