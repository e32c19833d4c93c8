"""Images on which a network that learns new classes is distilled, so that it keeps the old ones."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degan_search.networks.front import resized
from degan_search.stages.image_sources import Batches

Images = Float[Tensor, "n c h w"]


class Recall(Protocol):
    """Images on which the old classes' outputs are distilled. Its state is what it needs to go on later."""

    def __call__(self, new: Images) -> tuple[Images, Float[Tensor, "m old"]]:
        """Return images, and the teacher's logits for them, beside a batch of the new classes' images."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state; the tensors are not copied."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


class RecallFromNewImages:
    """The new classes' own images (learning without forgetting)."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher

    def __call__(self, new: Images) -> tuple[Images, Float[Tensor, "m old"]]:
        """Return the batch itself."""
        return new, self.teacher(new)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""


class RecallFromBatches:
    """Images made by a generator, a share of each batch replaced by new classes' images (`mix_proxy`)."""

    def __init__(self, batches: Batches, rng: torch.Generator, teacher: nn.Module, share: float) -> None:
        """Take the batches, and the generator of random numbers that they draw with."""
        self.batches, self.rng, self.teacher, self.share = batches, rng, teacher, share

    def __call__(self, new: Images) -> tuple[Images, Float[Tensor, "m old"]]:
        """Return the next batch."""
        images, logits = (part.float() for part in next(self.batches))
        images = resized(images, (new.shape[2], new.shape[3]))
        mixed = round(self.share * len(new))
        if not mixed:
            return images, logits
        return torch.cat([new[:mixed], images[mixed:]]), torch.cat([self.teacher(new[:mixed]), logits[mixed:]])

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the batches and of the random generator."""
        return {"batches": self.batches.state_dict(), "rng": self.rng.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.batches.load_state_dict(state["batches"])
        self.rng.set_state(state["rng"])
