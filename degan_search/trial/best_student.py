"""Several students in turn, each from images of its own, of which the best by the objective is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from degan_search.stages.distillation import Distillation
from degan_search.training.loop import Progress


class BestStudent:
    """Distils one student after the other and keeps the best; see `loop.Stage`.

    Each has the bits that it would have alone.
    """

    def __init__(self, begin: Sequence[Callable[[], Distillation]], score: Callable[[nn.Module], float]) -> None:
        """Begin with the first student.

        Args:
            begin: return the training of an untrained student each, one or more.
            score: of a trained student, higher is better.
        """
        self.begin, self.score = tuple(begin), score
        self.scores: list[float] = []
        """Of the students that are trained."""
        self.best: nn.Module | None = None
        """Of these."""
        self.steps = 0
        """That it learned."""
        self._watch: Callable[[], dict[str, float]] = dict
        self.stage = self.begin[0]()

    @property
    def done(self) -> bool:
        """Whether all students are trained."""
        return len(self.scores) == len(self.begin)

    @property
    def student(self) -> nn.Module:
        """The best student; once one is trained."""
        assert self.best is not None, "none is trained"
        return self.best

    @property
    def number(self) -> int:
        """The best student's, from 0; once one is trained."""
        return self.scores.index(max(self.scores))

    @property
    def learned(self) -> nn.Module:
        """The student in training."""
        return self.stage.learned

    @property
    def watch(self) -> Callable[[], dict[str, float]]:
        """Called after each epoch of every student; what it returns is reported."""
        return self._watch

    @watch.setter
    def watch(self, watch: Callable[[], dict[str, float]]) -> None:
        self._watch = self.stage.watch = watch

    def step(self) -> Progress | None:
        """Train on a batch, or score a trained student; returns the progress after an epoch.

        Raises:
            DivergedError: the loss is not finite.
        """
        if not self.stage.done:
            progress = self.stage.step()
            return None if progress is None else self._of_all(progress)
        score = self.score(self.stage.student)
        if not self.scores or score > max(self.scores):
            self.best, self.steps = self.stage.student, self.stage.steps
        self.scores.append(score)
        if not self.done:
            self._begin(len(self.scores))
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the scores, the best student, and the training that is going on."""
        return {
            "scores": self.scores,
            "steps": self.steps,
            "best": None if self.best is None else self.best.state_dict(),
            "stage": self.stage.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.scores, self.steps = list(state["scores"]), state["steps"]
        self.best = None
        if state["best"] is not None:
            self.best = copy.deepcopy(self.stage.student).eval()
            self.best.load_state_dict(state["best"])
        self._begin(min(len(self.scores), len(self.begin) - 1))
        self.stage.load_state_dict(state["stage"])

    def _begin(self, number: int) -> None:
        self.stage = self.begin[number]()
        self.stage.watch = self._watch

    def _of_all(self, progress: Progress) -> Progress:
        """Return the progress with the steps of all students counted, where their number is known."""
        if progress.of is None:
            return progress
        before, of = len(self.scores) * progress.of, len(self.begin) * progress.of
        return replace(progress, step=before + progress.step, of=of)
