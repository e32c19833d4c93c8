"""Whether the search of a cell still gets better."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from degan_search.ledger.columns import Phase, State

PATIENCE = 8
"""Trials in a row that bring nothing better, after which a search is flat; what that saves and loses:
docs/results/2026-11-28-stop-when-flat.md."""


def flat_after(scores: Iterable[float], patience: int = PATIENCE) -> int | None:
    """Return after how many trials a search was flat: the last `patience` brought no better score; None: it is not yet.

    A search in which no trial has finished is not.

    Args:
        scores: of the trials that ended, in this order; NaN for one that early stopping ended, which counts as no
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


def scores_in_order(frame: pd.DataFrame, cell: str) -> list[float]:
    """Return the scores of a cell's search trials in the order in which they ended, as `flat_after` takes them.

    Args:
        frame: from `ledger.load`.
        cell: its label.
    """
    counted = frame["state"].isin((State.COMPLETE, State.PRUNED))
    ended = frame[(frame["phase"] == Phase.SEARCH) & (frame["cell"] == cell) & counted]
    ended = ended.sort_values(["finished", "number"], kind="stable")
    return [float(score) for score in ended["score"].where(ended["state"] == State.COMPLETE)]


def said(cell: str, trials: int) -> str:
    """Return a line for people about a cell whose search was flat after so many trials."""
    return f"{cell}: ended, flat after {trials} trials"
