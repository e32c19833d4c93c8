"""Distillation of a student from a source of images (Hinton et al. 2015; section 5.1 of the paper)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from degan_search.networks.layers import draw_from
from degan_search.settings.trial import DistillConfig
from degan_search.stages.image_sources import Source
from degan_search.training.context import Context
from degan_search.training.loop import Fitting, Progress
from degan_search.training.losses import distillation_loss


class Distillation:
    """The training of a student to give the teacher's outputs.

    The loss is T^2 KL(teacher || student) at temperature T, the student's outputs computed in the context's precision.
    The student ends in eval mode, with the weights that agreed best with the teacher on images not trained on.
    """

    def __init__(
        self, student: nn.Module, source: Source, config: DistillConfig, context: Context, name: str = "distill"
    ) -> None:
        """Begin with an untrained student on the device; `name` is the stage's, and of its random streams."""
        self.student = student
        self.images_rng = context.generator(name, "images")
        self.score_rng = score_rng = context.generator(name, "score")
        self.dropout_rng = context.generator(name, "dropout")
        self.batches = source.batches(self.images_rng)
        draw_from(student, self.dropout_rng)

        def loss(images: Tensor, teacher_logits: Tensor) -> Tensor:
            with context.arithmetic():
                return distillation_loss(student(images), teacher_logits, config.temperature)

        self.fitting = Fitting(
            student,
            loss,
            lambda: source.score(student, score_rng),
            config,
            source.steps_per_epoch,
            name,
            self.batches.__next__,
            context.accelerate,
        )

    @property
    def done(self) -> bool:
        """Whether the student has its best weights."""
        return self.fitting.done

    def step(self) -> Progress | None:
        """Train on a batch; returns the progress after an epoch.

        Raises:
            DivergedError: the loss is not finite.
        """
        progress = self.fitting.step()
        if self.done:
            draw_from(self.student, None)
        return progress

    def state_dict(self) -> dict[str, Any]:
        """Return the training's state, that of the batches, and the random streams'."""
        return {
            "fitting": self.fitting.state_dict(),
            "batches": self.batches.state_dict(),
            "images_rng": self.images_rng.get_state(),
            "score_rng": self.score_rng.get_state(),
            "dropout_rng": self.dropout_rng.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.fitting.load_state_dict(state["fitting"])
        self.batches.load_state_dict(state["batches"])
        self.images_rng.set_state(state["images_rng"])
        self.score_rng.set_state(state["score_rng"])
        self.dropout_rng.set_state(state["dropout_rng"])
        draw_from(self.student, None if self.done else self.dropout_rng)
