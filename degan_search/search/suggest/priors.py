"""What the user believes to be good, as one of several sources of trials: it may be wrong.

After PriorBand (Mallik et al. 2023, "PriorBand: practical hyperparameter optimization in the age of deep learning"): a
trial is drawn from the prior, from around the best trial so far, or by the search's own sampler, and what produced the
better trials earns its share. There the best configurations' densities alone decide; here they are set against those
of all trials, as a prior that drew most of them also drew most of the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from degan_search.search.suggest.box import Axis, Box

if TYPE_CHECKING:
    from scipy.stats import truncnorm

Confidence = Literal["low", "medium", "high"]
WIDTHS: dict[Confidence, float] = {"low": 0.25, "medium": 0.15, "high": 0.1}
"""Standard deviation of the prior on an axis from 0 to 1; on an axis of places the share of other values."""
SHARES: dict[Confidence, float] = {"low": 0.3, "medium": 0.5, "high": 0.7}
"""The prior's share of trials at first."""
BESIDE = 0.25
"""The share of those around the best trial, of what the prior leaves."""
NARROW = 0.1
"""As `WIDTHS`, around the best trial."""
FEWEST = 3
"""Ended trials before shares change."""
EASE = 0.1
"""Keeps a source from losing all of its share for a few poor trials."""


@dataclass(frozen=True)
class Source:
    """Where trials are drawn: around a middle, on each of its axes apart."""

    middle: Box
    axes: Mapping[str, Axis]
    width: float

    def is_middle(self, box: Box) -> bool:
        """Return whether a point lies in the middle."""
        return all(name in box and abs(box[name] - at) < 1e-9 for name, at in self.middle.items())

    def draw(self, rng: np.random.Generator) -> Box:
        """Return a point of its axes."""
        return {name: self._draw(self.axes[name], at, rng) for name, at in self.middle.items()}

    def density(self, box: Box) -> float:
        """Return the density at a point, against that of drawing evenly: above 1 it is the likelier source."""
        return float(np.prod([self._density(self.axes[name], at, box.get(name)) for name, at in self.middle.items()]))

    def _draw(self, axis: Axis, middle: float, rng: np.random.Generator) -> float:
        if axis.places:
            other = rng.random() < self.width
            return float(rng.integers(axis.places)) if other else middle
        return float(_normal(middle, self.width).rvs(random_state=rng))

    def _density(self, axis: Axis, middle: float, at: float | None) -> float:
        if at is None:
            return 1.0
        if axis.places:
            return self.width + (1 - self.width) * axis.places * (at == middle)
        return float(_normal(middle, self.width).pdf(at))


def around(middle: Box, axes: Mapping[str, Axis], confidence: Confidence) -> Prior:
    """Return the prior with this middle."""
    return Prior(middle, axes, WIDTHS[confidence], SHARES[confidence])


@dataclass(frozen=True)
class Prior(Source):
    """What the user believes, with its share of trials at first."""

    share: float


class Sources:
    """The sources of a cell's next trial, with their shares."""

    def __init__(self, prior: Prior, axes: Mapping[str, Axis], ended: Sequence[tuple[Box, float]]) -> None:
        """Take the points of ended trials with what they are worth."""
        rest = 1 - prior.share
        self.sources: list[Source | None] = [prior, None]
        """None: the search's own sampler, which is taken to draw evenly."""
        shares = [prior.share, rest]
        if len(ended) >= FEWEST:
            order = sorted(ended, key=lambda one: -one[1])
            self.sources.insert(1, Source(order[0][0], axes, NARROW))
            shares = [prior.share, rest * BESIDE, rest * (1 - BESIDE)]
            densities = np.array(
                [[source.density(box) if source else 1.0 for source in self.sources] for box, _ in order]
            )
            credit = densities / densities.sum(1, keepdims=True)
            best = credit[: -(-len(order) // 3)].mean(0)
            shares = list(np.array(shares) * (best + EASE) / (credit.mean(0) + EASE))
        self.shares = np.array(shares) / sum(shares)

    def draw(self, rng: np.random.Generator) -> Source | None:
        """Return the source of the next trial; None: the search's own sampler."""
        return self.sources[int(rng.choice(len(self.sources), p=self.shares))]


def _normal(middle: float, width: float) -> truncnorm:
    from scipy.stats import truncnorm  # half a second, and only a search with a prior needs it

    return truncnorm(-middle / width, (1 - middle) / width, middle, width)
