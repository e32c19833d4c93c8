"""Cells whose search ends before its last trial, as it has stopped getting better."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from degan_search.ledger.columns import State
from degan_search.search.space.cell import Cell
from degan_search.selection.flat import flat_after, said, scores_in_order


class FlatCells:
    """Watches the cells of a space that asks for it (`search.stop_when_flat`); of others none is ever flat."""

    def __init__(self, cells: Mapping[str, Cell], rows: pd.DataFrame | None = None) -> None:
        """Take up the search rows of an earlier driver."""
        watched = [label for label, cell in cells.items() if cell.space.search.stop_when_flat and cell.varies()]
        self.scores = {label: [] if rows is None else scores_in_order(rows, label) for label in watched}
        """Of the trials that ended, in this order, as `flat_after` takes them."""
        self.after = {label: trials for label in watched if (trials := flat_after(self.scores[label]))}
        """Cells whose search was flat, and after how many trials."""

    def add(self, label: str, state: State, score: float) -> bool:
        """Note how a trial of a cell ended; return whether that made the cell flat."""
        if label not in self.scores or state is State.FAIL:
            return False
        self.scores[label].append(score if state is State.COMPLETE else math.nan)
        if label in self.after or not (trials := flat_after(self.scores[label])):
            return False
        self.after[label] = trials
        return True

    def lines(self) -> list[str]:
        """Return a line for people about each flat cell."""
        return [said(label, trials) for label, trials in self.after.items()]
