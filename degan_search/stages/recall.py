"""Images on which a network that learns new classes is distilled, so that it keeps the old ones."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degan_search.networks.front import resized
from degan_search.stages.image_sources import GeneratedBatches, GeneratorSource

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


class RecallFromGenerator:
    """Images made by a generator, with a share of new classes' images in each batch (`mix_proxy`).

    No more are made than are needed.
    """

    def __init__(self, source: GeneratorSource, rng: torch.Generator, share: float) -> None:
        """Take the generator's source, and the generator of random numbers that it draws with."""
        self.size, self.share, self.rng, self.teacher = source.batch_size, share, rng, source.teacher
        self.made = GeneratedBatches(source, rng, max(1, self.size - round(share * self.size)), with_logits=True)

    def __call__(self, new: Images) -> tuple[Images, Float[Tensor, "m old"]]:
        """Return the next batch."""
        mixed = round(self.share * len(new))
        if mixed == self.size:
            return new, self.teacher(new)
        made, logits = (part.float() for part in self.made.take(self.size - mixed))  # more where a pass ends
        made = resized(made, (new.shape[2], new.shape[3]))
        if not mixed:
            return made, logits
        return torch.cat([new[:mixed], made]), torch.cat([self.teacher(new[:mixed]), logits])

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generated images and of the random generator."""
        return {"batches": self.made.state_dict(), "rng": self.rng.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.made.load_state_dict(state["batches"])
        self.rng.set_state(state["rng"])
