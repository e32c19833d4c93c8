"""What a sweep still takes, from timed steps and soon from its own trials, and how many trials fit a budget. No Ray."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from degan_search.ledger.columns import Phase, State
from degan_search.search.run.jobs import Kind

LATE = 0.05
"""Share of a stretch that a trial is taken to need still, however late it is."""


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
