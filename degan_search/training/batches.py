"""Batches of indices in random order."""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Int64
from torch import Tensor


class IndexBatches:
    """Endless batches of indices: shuffled passes over `count`, the last batch of a pass smaller.

    A last batch of one image is left out, unless one is asked for: BatchNorm cannot train on it.
    """

    def __init__(self, count: int, batch: int, rng: torch.Generator) -> None:
        self.count, self.batch, self.rng = count, batch, rng
        self.fewest = min(count, batch, 2)
        self.left = torch.empty(0, dtype=torch.int64, device=rng.device)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Int64[Tensor, " n"]:
        if len(self.left) < self.fewest:
            self.left = torch.randperm(self.count, generator=self.rng, device=self.rng.device)
        indices, self.left = self.left[: self.batch], self.left[self.batch :]
        return indices

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is left of the pass."""
        return {"left": self.left}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on in the pass that was saved."""
        self.left = state["left"].to(self.rng.device)
