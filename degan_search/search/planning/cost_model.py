"""How many seconds a sweep still takes: predicted from timed steps at first, then from its own trials. No Ray."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from degan_search.ledger.columns import Phase, State
from degan_search.search.planning.stretches import Prior, StretchTimes
from degan_search.search.run.jobs import Kind

if TYPE_CHECKING:
    import pandas as pd

LATE = 0.05
"""Share of a stretch's seconds that a trial is expected to need still, however long it has taken already."""

UNTIMED = 0.35
"""Share by which timed steps may be wrong about trials that run alone on the machine."""
SPREAD, WIDEST = 0.1, 0.5
"""Share by which the seconds left may be wrong once all trials have ended, and grows with the root of all to those that
have: twice as much after a quarter of them (docs/results/2026-11-28-estimates.md). At most `WIDEST`."""
GRAIN = 0.25
"""Share of a trial's seconds by which the seconds left may be wrong besides, as near the end, when few trials run. Half
of what its early stop would save is added."""


@dataclass
class _Running:
    kind: Kind
    since: float
    """When its present stretch began."""
    passed: int = 0
    """Rungs that it has passed."""
    whole: bool = True
    """Whether its present stretch was measured from the beginning."""


class CostModel:
    """Predicts the seconds of trials to come, and with them those of a sweep.

    A trial consists of stretches, from rung to rung, whose seconds `StretchTimes` predicts. ASHA is expected to stop as
    many trials as it does when scores come in random order. Each phase begins with the `start` of its processes. Times
    are seconds of any clock that does not go back, such as `time.monotonic`.
    """

    def __init__(
        self,
        slots: int = 1,
        reduction_factor: float | None = None,
        priors: Mapping[Kind, Prior] | None = None,
        after: Iterable[Kind] = (),
        share: float = 1.0,
        start: float = 0.0,
    ) -> None:
        self.slots, self.reduction_factor, self.share, self.start = slots, reduction_factor, share, start
        self.stretches = StretchTimes(priors)
        self.after = list(after)
        """Trials that run once this phase has ended: repeats and finals."""
        self.running: dict[str, _Running] = {}
        self.ended: Counter[Kind] = Counter()
        """Trials that ended, finished or stopped early, but not failed."""
        self.reached: Counter[tuple[Kind, int]] = Counter()
        """Trials that reported a score at each rung."""
        self.starting: float | None = None
        """Since when this phase's processes start; None: it has not begun."""
        self.started = False
        """Whether one of them has begun a trial."""

    def begin(self, trial: str, kind: Kind, now: float, whole: bool = True) -> None:
        """Note that a trial began; `whole`: from its beginning, rather than from a checkpoint."""
        if self.starting is not None and not self.started:
            self.start, self.started = now - self.starting, True
        self.running[trial] = _Running(kind, now, whole=whole)

    def reach(self, trial: str, gan_steps: int, now: float) -> None:
        """Note that a trial reported a score after so many GAN steps."""
        run = self.running.get(trial)
        if run is None:
            return
        passed = bisect_right(self.stretches.prior(run.kind).rungs, gan_steps)
        if passed <= run.passed:
            return
        if run.whole and passed == run.passed + 1:
            self.stretches.learn(run.kind, run.passed, now - run.since)
        self.reached[run.kind, passed - 1] += 1
        run.since, run.passed, run.whole = now, passed, True

    def cut_short(self, trial: str) -> None:
        """Note that a trial runs no more, and will be tried again."""
        self.running.pop(trial, None)

    def end(self, trial: str, state: State, now: float) -> None:
        """Note that a trial ended."""
        run = self.running.pop(trial, None)
        if run is None:
            return
        if state is State.COMPLETE and run.whole and run.passed == len(self.stretches.prior(run.kind).rungs):
            self.stretches.learn(run.kind, run.passed, now - run.since)
        if state in (State.PRUNED, State.COMPLETE):
            self.ended[run.kind] += 1

    def seconds(self, kind: Kind, passed: int = 0, elapsed: float = 0.0) -> float:
        """Return the seconds that a trial is expected to need still, `elapsed` seconds after the last rung passed."""
        return self._expected(kind, self.stretches.predict(kind), passed, elapsed)

    def goes_on(self, kind: Kind, rung: int, ahead: float = 0.0) -> float:
        """Return the probability that `asha.Rungs` lets a trial go on from a rung if scores come in random order.

        The cutoff is the interpolated quantile q = 1 - 1/reduction_factor of the n scores before. The next score is
        above it with probability 1 - (q (n - 1) + 1) / (n + 1). `ahead`: how many more trials than now are expected to
        have reached the rung by then.
        """
        before = self.reached[kind, rung] + ahead
        if self.reduction_factor is None or before < 1:
            return 1.0
        quantile = 1 - 1 / self.reduction_factor
        return 1 - (quantile * (before - 1) + 1) / (before + 1)

    def left(self, waiting: Iterable[Kind], now: float) -> float:
        """Return the seconds until all running trials have ended, and all waiting ones, which begin in this order."""
        return max(self.ends(waiting, now))

    def ends(self, waiting: Iterable[Kind], now: float) -> Iterator[float]:
        """Yield the seconds until the running trials have ended, then until each waiting one and those before have."""
        running = [self.seconds(run.kind, run.passed, now - run.since) for run in self.running.values()]
        passed = 0.0 if self.starting is None else now - self.starting
        free_in = 0.0 if self.started else max(0.0, self.start - passed)
        return makespans(running, self._each(waiting), self.slots, free_in)

    def left_after(self, kinds: Iterable[Kind] | None = None) -> float:
        """Return the seconds that the trials in `after`, or these, will take once this phase has ended."""
        phases: dict[str, list[Kind]] = {}
        for kind in self.after if kinds is None else kinds:
            phases.setdefault(kind[0], []).append(kind)
        return sum(max(makespans([], self._each(own), self.slots, self.start)) for own in phases.values())

    def set_slots(self, slots: int) -> None:
        """Set how many trials run at a time."""
        self.slots = slots

    def expect(self, kind: Kind, prior: Prior) -> None:
        """Set the prior of a kind of trial, unless it has one."""
        self.stretches.priors.setdefault(kind, prior)

    def begin_phase(self, phase: Phase, now: float) -> None:
        """Note that this phase's processes start now: its trials, and those of phases before, are not in `after`."""
        order = list(Phase)
        self.after = [kind for kind in self.after if order.index(Phase(kind[0])) > order.index(phase)]
        self.starting, self.started = now, False

    def text(self, waiting: Sequence[Kind], now: float) -> str:
        """Return such as `about 10 to 14 min left, 16 to 24 min with the finals`."""
        if not (self.stretches.priors or self.ended) or not (waiting or self.running):
            return ""
        left, after = self.left(waiting, now), ""
        if self.after:
            together = bounds(self, left + self.left_after(), len(waiting), now)
            rest = "the finals" if (Phase.FINAL in {phase for phase, _ in self.after}) else "the repeats"
            after = f", {span(*together)} with {rest}"
        return f"about {span(*bounds(self, left, len(waiting), now))} left{after}"

    def _each(self, waiting: Iterable[Kind]) -> Iterator[float]:
        """Yield the expected seconds of trials that begin one after the other."""
        before: Counter[Kind] = Counter()
        known: dict[Kind, list[float]] = {}
        for kind in waiting:
            if kind not in known:
                known[kind] = self.stretches.predict(kind)
            yield self._expected(kind, known[kind], ahead=before[kind])
            before[kind] += 1

    def _expected(
        self, kind: Kind, stretches: Sequence[float], passed: int = 0, elapsed: float = 0.0, ahead: int = 0
    ) -> float:
        """Return the seconds of the stretches to come, each times the probability that the trial reaches it."""
        first, share = stretches[passed], 1.0
        total = max(first - elapsed, LATE * first)
        for rung, seconds in enumerate(stretches[passed + 1 :], passed):
            share *= self.goes_on(kind, rung, ahead * share)
            total += share * seconds
        return total


def remember(cost: CostModel, frame: pd.DataFrame, curves: pd.DataFrame) -> None:
    """Teach a cost model by a run's ledger and curves what `begin`, `reach` and `end` would have taught it."""
    scored = curves[curves["score"].notna() & (curves["stage"] != "done")]
    rungs = {name: list(zip(own["budget"], own["seconds"], strict=True)) for name, own in scored.groupby("trial_id")}
    for row in frame[frame["seconds"].notna()].to_dict("records"):
        name = str(row["trial_id"])
        cost.begin(name, (str(row["phase"]), str(row["cell"])), 0.0)
        for gan_steps, seconds in rungs.get(name, []):
            cost.reach(name, int(gan_steps), float(seconds))
        cost.end(name, State(row["state"]), float(row["seconds"]))
    for kind in map(tuple, frame.loc[frame["phase"] != Phase.SEARCH, ["phase", "cell"]].astype(str).to_numpy()):
        if kind in cost.after:  # after a change of the space it may not be
            cost.after.remove(kind)


def bounds(cost: CostModel, left: float, waiting: int, now: float) -> tuple[float, float]:
    """Return the fewest and the most seconds that may be left where `left` are expected, with so many trials to begin.

    Until a trial has ended: from what the timed steps would take without other programs to what they took, or to as
    many times more as a running trial is late.
    """
    ended, running = cost.ended.total(), cost.running.values()
    if not ended:
        expected = [(run, cost.stretches.predict(run.kind)[run.passed]) for run in running]
        late = [(now - run.since) / seconds for run, seconds in expected if seconds]
        return cost.share * (1 - UNTIMED) * left, (1 + UNTIMED) * max([1.0, *late]) * left
    around = min(WIDEST, SPREAD * math.sqrt((ended + len(running) + waiting) / ended)) * left
    around += max((_doubt(cost, run) for run in running), default=0.0)
    return max(0.0, left - around), left + around


def _doubt(cost: CostModel, run: _Running) -> float:
    """Return the seconds by which one trial more or less, or the early stop of this one, may change what is left."""
    stretches = cost.stretches.predict(run.kind)
    return GRAIN * sum(stretches) + (sum(stretches[run.passed :]) - cost.seconds(run.kind, run.passed)) / 2


def makespans(running: Iterable[float], waiting: Iterable[float], slots: int, free_in: float = 0.0) -> Iterator[float]:
    """Yield the seconds until all running trials have ended, then until each waiting one and those before have.

    Waiting trials begin in their order, each in the slot that is free first.

    Args:
        running: seconds that each running trial needs still.
        waiting: seconds of each waiting trial.
        slots: how many run at a time.
        free_in: seconds until a slot is free in which no trial runs.
    """
    free = list(running)
    yield (last := max(free, default=0.0))
    free += [free_in] * (slots - len(free))
    heapq.heapify(free)
    for seconds in waiting:
        end = free[0] + seconds
        heapq.heapreplace(free, end)
        yield (last := max(last, end))


def span(least: float, most: float) -> str:
    """Return two lengths of time for people, such as `12 to 18 min` or `50 s to 2 min`; one where they read alike."""
    first, last = duration(least), duration(most)
    if first == last:
        return first
    number, unit = first.split(" ", 1)
    return f"{number if last.split(' ', 1)[1] == unit else first} to {last}"


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
