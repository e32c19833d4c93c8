"""What a trial's first stage makes, or is given, for its student to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from degan_search.trial.context import TrialContext
from degan_search.trial.members import loaded_generator


@dataclass
class Made:
    """A generator, or images made from the teacher; neither before they are made."""

    generator: nn.Module | None = None
    """Trained."""
    images: Tensor | None = None
    early: dict[str, Tensor] | None = None
    """The generator's state after half of its steps, of methods whose generators are combined."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is there; tensors are those in use."""
        generator = None if self.generator is None else self.generator.state_dict()
        return {"generator": generator, "images": self.images, "early": self.early}

    @classmethod
    def of_state(cls, trial: TrialContext, state: Mapping[str, Any]) -> Made:
        """Return what a state of the trial holds."""
        generator, images = state["generator"], state["images"]
        return cls(
            None if generator is None else loaded_generator(trial, generator),
            None if images is None else images.to(trial.context.device),
            state["early"],
        )
