"""Cells whose search can draw only a few points, each of which is tried once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from degan_search.search.space.cell import Cell
from degan_search.search.space.schema import MAX_TRIALS, Scalar

MOST = 1000
"""Points of a cell that are counted, at most: no plan has more trials."""


class PointCounts:
    """How many points each of some cells has, counted when it is first asked for."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self.cells = cells

    def at_most(self, trials: int) -> dict[str, int]:
        """Return so many trials for each cell, or as many as it has points."""
        return {label: min(trials, points) for label, points in self._counts.items()}

    @cached_property
    def _counts(self) -> dict[str, int]:
        """Of `MOST` points or more more are not counted."""
        found = {label: cell.distinct(MOST) for label, cell in self.cells.items()}
        return {label: len(one) if one and len(one) < MOST else MAX_TRIALS for label, one in found.items()}


def untried(cell: Cell, tried: set[str]) -> dict[str, Scalar] | None:
    """Return a point of the cell whose configuration has none of these hashes; None: there is none, or too many."""
    possible = cell.distinct(min(len(tried) + 1, MOST)) or {}
    return next((point for name, point in possible.items() if name not in tried), None)
