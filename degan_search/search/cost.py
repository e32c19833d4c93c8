"""What a sweep still takes, from timed steps and soon from its own trials, and how many trials fit a budget. No Ray."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from degan_search.errors import UserError
from degan_search.records import Phase, State
from degan_search.search.jobs import Kind

if TYPE_CHECKING:
    from degan_search.search.searcher import CellSearcher

LATE = 0.05
"""Share of a stretch that a trial is taken to need still, however late it is."""
RESERVE = 0.05
"""Share of a budget that is left to accuracies, table and report."""
FEWEST, MOST = 4, 1000
"""Search trials of a cell that a budget is planned with."""
STEP = 0.1
"""Share by which the number of trials must grow for it to be said and done."""


@dataclass(frozen=True)
class Prior:
    """What is expected of one kind of trial before any was measured."""

    seconds: tuple[float, ...]
    """To the first rung, from each rung to the next, and from the last to the end."""
    rungs: tuple[int, ...] = ()
    """GAN steps, ascending; one fewer than `seconds`."""


@dataclass
class _Running:
    kind: Kind
    since: float
    """When its stretch began."""
    passed: int = 0
    """Rungs."""
    whole: bool = True
    """Whether its stretch was seen from the beginning."""


class CostModel:
    """Predicts the seconds of trials to come, and with them those of a sweep.

    A trial consists of stretches, from rung to rung. Each stretch's prior is corrected by the ratio of measured to
    expected seconds: of the same stretch of trials of this kind, else of all of their cell, else of all. ASHA is taken
    to stop as many trials as if their scores came in no order. Times are seconds of any clock that does not go back,
    such as `time.monotonic`.
    """

    def __init__(
        self,
        slots: int = 1,
        reduction_factor: float | None = None,
        priors: Mapping[Kind, Prior] | None = None,
        after: Iterable[Kind] = (),
    ) -> None:
        self.slots, self.reduction_factor = slots, reduction_factor
        self.priors = dict(priors or {})
        self.after = list(after)
        """What runs once the phase has ended: the finals."""
        self.running: dict[str, _Running] = {}
        self.ended: Counter[Kind] = Counter()
        """Trials that ended as they should."""
        self.measured: dict[tuple[str | int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        """Seconds that stretches took, and that were expected, by what they have in common."""
        self.reached: Counter[tuple[Kind, int]] = Counter()
        """Trials that reported a score at each rung."""

    def begin(self, trial: str, kind: Kind, now: float, whole: bool = True) -> None:
        """Note that a trial began; `whole`: from its beginning, not from a checkpoint."""
        self.running[trial] = _Running(kind, now, whole=whole)

    def reach(self, trial: str, budget: int, now: float) -> None:
        """Note that a trial reported a score after so many GAN steps."""
        run = self.running.get(trial)
        if run is None:
            return
        passed = bisect_right(self._prior(run.kind).rungs, budget)
        if passed <= run.passed:
            return
        if run.whole and passed == run.passed + 1:
            self._learn(run.kind, run.passed, now - run.since)
        self.reached[run.kind, passed - 1] += 1
        run.since, run.passed, run.whole = now, passed, True

    def end(self, trial: str, state: State | None, now: float) -> None:
        """Note that a trial ended; None: it is tried again."""
        run = self.running.pop(trial, None)
        if run is None:
            return
        if state is State.COMPLETE and run.whole and run.passed == len(self._prior(run.kind).rungs):
            self._learn(run.kind, run.passed, now - run.since)
        if state in (State.PRUNED, State.COMPLETE):
            self.ended[run.kind] += 1

    def remember(self, frame: pd.DataFrame, curves: pd.DataFrame) -> None:
        """Learn from a run's ledger and curves what `begin`, `reach` and `end` would have told."""
        scored = curves[curves["score"].notna() & (curves["stage"] != "done")]
        rungs = {
            name: list(zip(own["budget"], own["seconds"], strict=True)) for name, own in scored.groupby("trial_id")
        }
        for row in frame[frame["seconds"].notna()].to_dict("records"):
            name = str(row["trial_id"])
            self.begin(name, (str(row["phase"]), str(row["cell"])), 0.0)
            for budget, seconds in rungs.get(name, []):
                self.reach(name, int(budget), float(seconds))
            self.end(name, State(row["state"]), float(row["seconds"]))
        for kind in frame.loc[frame["phase"] == Phase.FINAL, "cell"].map(lambda cell: (str(Phase.FINAL), str(cell))):
            if kind in self.after:  # the others are of another space
                self.after.remove(kind)

    def seconds(self, kind: Kind, passed: int = 0, elapsed: float = 0.0) -> float:
        """Return the seconds that a trial is expected to need still, `elapsed` after the last of the rungs passed."""
        return self._expected(kind, self._stretches(kind), passed, elapsed)

    def goes_on(self, kind: Kind, rung: int, ahead: float = 0.0) -> float:
        """Return the probability that a trial goes on from a rung, `ahead` other trials from now.

        That is the chance of a score in no order at `asha.Rungs`. The cutoff is the quantile q = 1 - 1/reduction_factor
        of n scores, interpolated: with probability 1 - (q (n - 1) + 1) / (n + 1) the next one is above.
        """
        before = self.reached[kind, rung] + ahead
        if self.reduction_factor is None or before < 1:
            return 1.0
        quantile = 1 - 1 / self.reduction_factor
        return 1 - (quantile * (before - 1) + 1) / (before + 1)

    def left(self, waiting: Iterable[Kind], now: float) -> float:
        """Return the seconds until what runs and what waits, in this order, has ended."""
        return max(self.ends(waiting, now))

    def ends(self, waiting: Iterable[Kind], now: float) -> Iterator[float]:
        """Yield the seconds until what runs has ended, then until each that waits and all before it have."""
        running = [self.seconds(run.kind, run.passed, now - run.since) for run in self.running.values()]
        return makespans(running, self._each(waiting), self.slots)

    def left_after(self) -> float:
        """Return the seconds that what comes `after` will take, once the phase has ended."""
        return max(makespans([], self._each(self.after), self.slots))

    def run_at_a_time(self, slots: int) -> None:
        """Take so many trials to run at a time from now on."""
        self.slots = slots

    def expect(self, kind: Kind, prior: Prior) -> None:
        """Take what is expected of a kind of trial that nothing was known of."""
        self.priors.setdefault(kind, prior)

    def begin_last_phase(self) -> None:
        """Note that what came `after` begins now."""
        self.after = []

    def text(self, waiting: Sequence[Kind], now: float) -> str:
        """Return such as `about 12 min left, 20 min with the finals`; `roughly` until a trial has ended."""
        if not (self.priors or self.ended) or not (waiting or self.running):
            return ""
        left = self.left(waiting, now)
        finals = f", {duration(left + self.left_after())} with the finals" if self.after else ""
        return f"{'about' if self.ended else 'roughly'} {duration(left)} left{finals}"

    def _each(self, waiting: Iterable[Kind]) -> Iterator[float]:
        """Yield the seconds of trials that begin one after the other."""
        before: Counter[Kind] = Counter()
        known: dict[Kind, list[float]] = {}
        for kind in waiting:
            if kind not in known:
                known[kind] = self._stretches(kind)
            yield self._expected(kind, known[kind], ahead=before[kind])
            before[kind] += 1

    def _expected(
        self, kind: Kind, stretches: Sequence[float], passed: int = 0, elapsed: float = 0.0, ahead: int = 0
    ) -> float:
        """Return the seconds of the stretches to come, each counted by the probability that the trial gets there."""
        first, share = stretches[passed], 1.0
        total = max(first - elapsed, LATE * first)
        for rung, seconds in enumerate(stretches[passed + 1 :], passed):
            share *= self.goes_on(kind, rung, ahead * share)
            total += share * seconds
        return total

    def _prior(self, kind: Kind) -> Prior:
        """Return a kind's prior; one that nobody knows is as long as the others."""
        if kind in self.priors:
            return self.priors[kind]
        known = [sum(prior.seconds) for prior in self.priors.values()] or [1.0]
        return Prior((sum(known) / len(known),))

    def _stretches(self, kind: Kind) -> list[float]:
        """Return the seconds of a trial's stretches, each prior corrected by what is known best of its like."""
        seconds = []
        for index, expected in enumerate(self._prior(kind).seconds):
            sums = (self.measured[level] for level in self._levels(kind, index) if level in self.measured)
            took, thought = next(sums, (1.0, 1.0))
            seconds.append(expected * took / thought)
        return seconds

    def _levels(self, kind: Kind, index: int) -> list[tuple[str | int, ...]]:
        phase, cell = kind
        return [(phase, cell, index), (cell,), ()]

    def _learn(self, kind: Kind, index: int, seconds: float) -> None:
        for level in self._levels(kind, index):
            self.measured[level][0] += seconds
            self.measured[level][1] += self._prior(kind).seconds[index]


@dataclass
class Budget:
    """Chooses the number of search trials so that they and the finals end in time, and again as trials are measured."""

    cost: CostModel
    search: CellSearcher
    seconds: float
    """Of the whole sweep."""
    begun: float
    """By the clock that the cost model is told."""
    fewest: int = FEWEST
    """Trials in each cell without which a sweep is not begun."""

    @property
    def until(self) -> float:
        """When the last trial should have ended."""
        return self.begun + self.seconds * (1 - RESERVE)

    @property
    def late(self) -> float:
        """When it is so late that there must be fewer."""
        return self.begun + self.seconds * (1 - RESERVE / 2)

    def check(self, now: float) -> None:
        """Refuse a budget into which not even the fewest trials and the finals fit, of a search that has not begun.

        Raises:
            UserError: says how long those take.
        """
        if not self._begun() and self._most(now, self.until) < self.fewest:
            least = (now - self.begun + self._seconds(self.fewest, now)) / (1 - RESERVE)
            raise UserError(
                f"--budget {duration(self.seconds)} is too short: {self._trials(self.fewest)}{self._finals()} take "
                f"about {duration(least)}, {self.cost.slots} at a time"
            )

    def plan(self, now: float) -> str:
        """Choose the number of trials in each cell, and return what will be tried."""
        least = self._least() if self._begun() else self.fewest
        self.search.set_trials(max(least, self._most(now, self.until)))
        spent, takes = now - self.begun, self._seconds(self.search.trials, now)
        return (
            f"Budget {duration(self.seconds)}{f', of which {duration(spent)} are over' if spent >= 1 else ''}: "
            f"{_number(self.cost.slots, 'trial')} at a time, {self._trials(self.search.trials)}{self._finals()}; "
            f"about {duration(takes)}{', which is longer' if now + takes > self.begun + self.seconds else ''}"
        )

    def correct(self, now: float) -> str | None:
        """Lengthen or shorten the search by the times measured so far; return what was changed, if anything.

        Nothing changes before a trial has ended in each cell, or a quarter of the time is over; nor for little.
        """
        before, early = self.search.trials, now - self.begun < self.seconds / 4
        if early and not all(self.cost.ended[Phase.SEARCH, cell] for cell in self.search.varied):
            return None
        most = self._most(now, self.until)
        if before <= most < before + max(1, round(STEP * before)) or most < before <= self._most(now, self.late):
            return None
        self.search.set_trials(max(self._least(), most))
        if self.search.trials == before:
            return None
        new = self._trials(self.search.trials) if self.search.turns else "no further search trials"
        return f"Budget, by the times measured so far: {new}, not {before}"

    def _trials(self, trials: int) -> str:
        cells = len(self.search.varied)
        return f"{_number(trials, 'trial')} in {f'each of {cells} cells' if cells > 1 else 'one cell'}"

    def _finals(self) -> str:
        return f", {_number(len(self.cost.after), 'final')}" if self.cost.after else ""

    def _begun(self) -> bool:
        return any(self.search.had[cell] for cell in self.search.varied)

    def _least(self) -> int:
        return min(self.search.had[cell] for cell in self.search.varied)

    def _seconds(self, trials: int, now: float) -> float:
        return self.cost.left(self.search.waiting(trials), now) + self.cost.left_after()

    def _most(self, now: float, until: float) -> int:
        """Return how many trials in each cell, `MOST` at most, have ended by a moment, and the finals too; -1: none."""
        limit = until - now - self.cost.left_after()
        ends = self.cost.ends(self.search.waiting(MOST), now)
        fitting = sum(1 for _ in itertools.takewhile(lambda end: end <= limit, ends)) - 1
        return bisect_right(range(MOST + 1), fitting, key=lambda trials: len(self.search.waiting(trials))) - 1


def makespans(running: Iterable[float], waiting: Iterable[float], slots: int) -> Iterator[float]:
    """Yield the seconds until all that runs has ended, then until each that waits and all before it have.

    What waits takes, in its order, the slot that is free first.

    Args:
        running: seconds that those which run need still.
        waiting: seconds of the others.
        slots: how many run at a time.
    """
    free = list(running)
    free += [0.0] * (slots - len(free))
    heapq.heapify(free)
    yield (last := max(free))
    for seconds in waiting:
        end = free[0] + seconds
        heapq.heapreplace(free, end)
        yield (last := max(last, end))


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a length of time for people, such as `45 s`, `12 min`, `1 h 50 min` or `1,300 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes >= 24 * 60 or minutes % 60 == 0:
        return f"{minutes / 60:,.0f} h"
    return f"{minutes // 60} h {minutes % 60} min"
