"""Cells whose search ends before its last trial, as it has stopped getting better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from degan_search.ledger.columns import State
from degan_search.search.run.jobs import Job
from degan_search.search.space.cell import Cell
from degan_search.selection.flat import flat_after


class FlatCells:
    """Watches the cells of a space that asks for it (`search.stop_when_flat`); of others none is ever flat.

    Trials count in the order in which they began, up to the first that still runs. So neither the clock nor which of
    two ends first matters, what ends later changes nothing, and a run that goes on finds what its last driver found.
    """

    def __init__(
        self, cells: Mapping[str, Cell], rows: pd.DataFrame | None = None, unfinished: Iterable[Job] = ()
    ) -> None:
        """Take up the search rows and the unfinished trials of an earlier driver."""
        watched = [label for label, cell in cells.items() if cell.space.search.stop_when_flat and cell.varies()]
        self.scores: dict[str, dict[int, float | None]] = {label: {} for label in watched}
        """Of the trials of each cell by their numbers, as `flat_after` takes them; None of one that runs."""
        if rows is not None:
            for row in rows[rows["cell"].isin(watched) & (rows["state"] != State.FAIL)].to_dict("records"):
                score = float(row["score"]) if row["state"] == State.COMPLETE else math.nan
                self.scores[row["cell"]][int(row["number"])] = score
        for job in unfinished:
            self.begin(job)
        self.after = {label: trials for label in watched if (trials := self._flat_after(label))}
        """Cells whose search was flat, and after how many trials."""

    def begin(self, job: Job) -> None:
        """Note that a trial began."""
        if job.cell in self.scores:
            self.scores[job.cell][job.number] = None

    def end(self, job: Job, state: State, score: float) -> bool:
        """Note how a trial ended; return whether that made its cell flat."""
        if job.cell not in self.scores:
            return False
        if state is State.FAIL:
            self.scores[job.cell].pop(job.number, None)
        else:
            self.scores[job.cell][job.number] = score if state is State.COMPLETE else math.nan
        if job.cell in self.after or not (trials := self._flat_after(job.cell)):
            return False
        self.after[job.cell] = trials
        return True

    def lines(self) -> list[str]:
        """Return a line for people about each flat cell."""
        return [f"{label}: ended, flat after {trials} trials" for label, trials in self.after.items()]

    def _flat_after(self, label: str) -> int | None:
        scores: list[float] = []
        for _, score in sorted(self.scores[label].items()):
            if score is None:
                break
            scores.append(score)
        return flat_after(scores)
