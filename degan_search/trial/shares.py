"""Students of one mixture, each with another share of proxy images, of which the best by the objective is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from degan_search.stages.distillation import Distillation
from degan_search.training.loop import Progress


class BestShare:
    """Distils a student with each share, one after the other, and keeps the best; see `loop.Stage`.

    Each has the bits that it would have if its share were the only one.
    """

    def __init__(
        self,
        shares: Sequence[float],
        begin: Callable[[float], Distillation],
        score: Callable[[nn.Module], float],
    ) -> None:
        """Begin with the first share.

        Args:
            shares: of proxy images in each batch, in [0, 1), one or more.
            begin: returns the training of an untrained student with a share.
            score: of a trained student, higher is better.
        """
        self.shares, self.begin, self.score = tuple(shares), begin, score
        self.scores: list[float] = []
        """Of the shares that are done."""
        self.kept: nn.Module | None = None
        """The best student of these."""
        self.steps = 0
        """That it learned."""
        self._watch: Callable[[], dict[str, float]] = dict
        self.stage = begin(self.shares[0])

    @property
    def done(self) -> bool:
        """Whether every share had its student."""
        return len(self.scores) == len(self.shares)

    @property
    def student(self) -> nn.Module:
        """The best student; once one is trained."""
        assert self.kept is not None, "no share is done"
        return self.kept

    @property
    def share(self) -> float:
        """The best student's; once one is trained."""
        return self.shares[self.scores.index(max(self.scores))]

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
            self.kept, self.steps = self.stage.student, self.stage.steps
        self.scores.append(score)
        if not self.done:
            self._begin(len(self.scores))
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the scores, the best student, and the training that is going on."""
        return {
            "scores": self.scores,
            "steps": self.steps,
            "kept": None if self.kept is None else self.kept.state_dict(),
            "stage": self.stage.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.scores, self.steps = list(state["scores"]), state["steps"]
        self.kept = None
        if state["kept"] is not None:
            self.kept = copy.deepcopy(self.stage.student).eval()
            self.kept.load_state_dict(state["kept"])
        self._begin(min(len(self.scores), len(self.shares) - 1))
        self.stage.load_state_dict(state["stage"])

    def _begin(self, number: int) -> None:
        self.stage = self.begin(self.shares[number])
        self.stage.watch = self._watch

    def _of_all(self, progress: Progress) -> Progress:
        """Return the progress with the steps of all shares counted, where their number is known."""
        if progress.of is None:
            return progress
        return replace(progress, step=progress.step + len(self.scores) * progress.of, of=len(self.shares) * progress.of)
