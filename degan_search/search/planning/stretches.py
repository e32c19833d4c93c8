"""The stretches of a trial, from rung to rung: the seconds expected of each, corrected by those measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from degan_search.search.run.jobs import Kind


@dataclass(frozen=True)
class Prior:
    """What is expected of one kind of trial before any was measured."""

    seconds: tuple[float, ...]
    """To the first rung, from each rung to the next, and from the last to the end."""
    rungs: tuple[int, ...] = ()
    """GAN steps, ascending; one fewer than `seconds`."""


class StretchTimes:
    """Predicts the seconds of each stretch of a trial.

    The prior of a stretch is multiplied by the ratio of measured to expected seconds: of the same stretch of trials of
    this kind if there are any, else of all stretches of their cell, else of all.
    """

    def __init__(self, priors: Mapping[Kind, Prior] | None = None) -> None:
        self.priors = dict(priors or {})
        self.measured: dict[tuple[str | int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        """Sums of measured and of expected seconds, by what the stretches have in common."""

    def prior(self, kind: Kind) -> Prior:
        """Return a kind's prior; a kind without one is taken to be as long as the mean of the others."""
        if kind in self.priors:
            return self.priors[kind]
        known = [sum(prior.seconds) for prior in self.priors.values()] or [1.0]
        return Prior((sum(known) / len(known),))

    def predict(self, kind: Kind) -> list[float]:
        """Return the seconds of each stretch of a trial of this kind."""
        seconds = []
        for index, expected in enumerate(self.prior(kind).seconds):
            sums = (self.measured[level] for level in _levels(kind, index) if level in self.measured)
            measured, expected_then = next(sums, (1.0, 1.0))
            seconds.append(expected * measured / expected_then)
        return seconds

    def learn(self, kind: Kind, index: int, seconds: float) -> None:
        """Take into account that the stretch with this index of a trial of this kind took so many seconds."""
        for level in _levels(kind, index):
            self.measured[level][0] += seconds
            self.measured[level][1] += self.prior(kind).seconds[index]


def _levels(kind: Kind, index: int) -> list[tuple[str | int, ...]]:
    """Return the keys of `StretchTimes.measured` for a stretch, the most specific first."""
    phase, cell = kind
    return [(phase, cell, index), (cell,), ()]
