"""Whether the search of a cell still gets better."""

from __future__ import annotations

import math
from collections.abc import Iterable

PATIENCE = 8
"""Trials in a row that bring nothing better, after which a search is flat; what that saves and loses:
docs/results/2026-11-28-stop-when-flat.md."""


def flat_after(scores: Iterable[float], patience: int = PATIENCE) -> int | None:
    """Return after how many trials a search was flat: the last `patience` brought no better score; None: it is not yet.

    A search in which no trial has finished is not.

    Args:
        scores: of trials, in the order in which they began; NaN for one that early stopping ended, which counts as no
            better. Trials that failed are none of them.
        patience: trials in a row.
    """
    best, since = -math.inf, 0
    for number, score in enumerate(scores, 1):
        better = score > best
        best, since = (score, 0) if better else (best, since + 1)
        if since >= patience and best > -math.inf:
            return number
    return None
