"""Batches in random order: of indices, and of labelled images."""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from degan_search.data.images import augment, normalise


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


class LabelledBatches:
    """Endless shuffled passes over labelled images: images in [-1, 1], augmented if asked, with their labels."""

    def __init__(
        self,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        batch_size: int,
        order_rng: torch.Generator,
        augment_rng: torch.Generator | None,
    ) -> None:
        """Take the images on the device; `augment_rng` crops and mirrors them, None leaves them as they are."""
        self.images, self.labels = images, labels
        self.order = IndexBatches(len(images), batch_size, order_rng)
        self.augment_rng = augment_rng

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        indices = next(self.order)
        batch = normalise(self.images[indices])
        return augment(batch, self.augment_rng) if self.augment_rng else batch, self.labels[indices]

    def state_dict(self) -> dict[str, Any]:
        """Return what is left of the pass."""
        return {"order": self.order.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the pass that was saved."""
        self.order.load_state_dict(state["order"])
