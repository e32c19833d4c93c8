"""A time budget: how many trials fit into it, corrected while they run."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from degan_search.ledger.columns import Phase
from degan_search.search.planning.cost_model import CostModel, duration
from degan_search.search.planning.timed_steps import repeats_of
from degan_search.search.run.jobs import Kind
from degan_search.system.errors import UserError

if TYPE_CHECKING:
    from degan_search.search.suggest.cell_searcher import CellSearcher

RESERVE = 0.05
"""Share of a time budget that is left for accuracies, table and report."""
FEWEST, MOST = 4, 1000
"""Search trials of a cell, at least and at most, that a time budget is planned with."""
STEP = 0.1
"""Share by which the number of trials must grow before the plan is changed."""


@dataclass
class TimeBudget:
    """Chooses how many search trials there are so that they and the finals end in time; corrects it as they run."""

    cost: CostModel
    search: CellSearcher
    seconds: float
    """Of the whole sweep."""
    begun: float
    """When it began, by the clock that the cost model uses."""
    fewest: int = FEWEST
    """Trials in each cell that must fit, or the sweep is refused."""

    @property
    def until(self) -> float:
        """When the last trial should have ended."""
        return self.begun + self.seconds * (1 - RESERVE)

    @property
    def late(self) -> float:
        """When the last trial must have ended; if it would not, there will be fewer."""
        return self.begun + self.seconds * (1 - RESERVE / 2)

    def check(self, now: float) -> None:
        """Refuse a time budget too short for the fewest trials and the finals, if the search has not begun.

        Raises:
            UserError: says how long these take.
        """
        if not self._begun() and self._most(now, self.until) < self.fewest:
            least = (now - self.begun + self._seconds(self.fewest, now)) / (1 - RESERVE)
            trials = max(self.search.points.at_most(self.fewest).values())
            raise UserError(
                f"--budget {duration(self.seconds)} is too short: {self._trials(trials)}{self._finals()} take "
                f"about {duration(least)}, {self.cost.slots} at a time"
            )

    def plan(self, now: float) -> str:
        """Choose the number of trials in each cell, and return a line that says the plan."""
        least = self._least() if self._begun() else self.fewest
        self._set_trials(max(least, self._most(now, self.until)))
        spent, takes = now - self.begun, self._seconds(self.search.trials, now)
        return (
            f"Budget {duration(self.seconds)}{f', of which {duration(spent)} are over' if spent >= 1 else ''}: "
            f"{_number(self.cost.slots, 'trial')} at a time, {self._trials(self.search.trials)}{self._finals()}; "
            f"about {duration(takes)}{', which is longer' if now + takes > self.begun + self.seconds else ''}"
        )

    def correct(self, now: float) -> str | None:
        """Lengthen or shorten the search by the times measured so far; return a line about the change, if any.

        Nothing changes before a trial has ended in each cell or a quarter of the time is over, or for little.
        """
        before, early = self.search.trials, now - self.begun < self.seconds / 4
        if early and not all(self.cost.ended[Phase.SEARCH, cell] for cell in self.search.varied):
            return None
        most = self._most(now, self.until)
        if before <= most < before + max(1, round(STEP * before)) or most < before <= self._most(now, self.late):
            return None
        self._set_trials(max(self._least(), most))
        if self.search.trials == before:
            return None
        new = self._trials(self.search.trials) if self.search.next_cells else "no further search trials"
        return f"Budget, by the times measured so far: {new}, not {before}"

    def _set_trials(self, trials: int) -> None:
        self.search.set_trials(trials)
        self.cost.after = self._after(trials)

    def _after(self, trials: int) -> list[Kind]:
        """Return what runs after a search of so many trials in each cell."""
        repeats = [
            (str(Phase.REPEAT), label)
            for label, number in self.search.points.at_most(trials).items()
            for _ in range(repeats_of(self.search.cells[label], number))
        ]
        return [*repeats, *(kind for kind in self.cost.after if kind[0] != Phase.REPEAT)]

    def _trials(self, trials: int) -> str:
        cells = len(self.search.varied)
        return f"{_number(trials, 'trial')} in {f'each of {cells} cells' if cells > 1 else 'one cell'}"

    def _finals(self) -> str:
        counts = ((phase, sum(kind[0] == phase for kind in self.cost.after)) for phase in (Phase.REPEAT, Phase.FINAL))
        return "".join(f", {_number(count, phase)}" for phase, count in counts if count)

    def _begun(self) -> bool:
        return any(self.search.started[cell] for cell in self.search.varied)

    def _least(self) -> int:
        return min(self.search.started[cell] for cell in self.search.varied)

    def _seconds(self, trials: int, now: float) -> float:
        return self.cost.left(self.search.waiting(trials), now) + self.cost.left_after(self._after(trials))

    def _most(self, now: float, until: float) -> int:
        """Return how many trials in each cell, at most `MOST`, can end by then, and the finals too; -1: not even 0."""
        limit = until - now
        ends = list(takewhile(lambda end: end <= limit, self.cost.ends(self.search.waiting(MOST), now)))

        def too_long(trials: int) -> bool:
            begun = len(self.search.waiting(trials))
            return begun >= len(ends) or ends[begun] + self.cost.left_after(self._after(trials)) > limit

        return bisect_left(range(MOST + 1), True, key=too_long) - 1


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
