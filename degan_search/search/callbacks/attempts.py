"""The running attempts of trials: since when, in which of Tune's trials, and what they hold meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ray.tune.experiment import Trial

from degan_search.search.run.faults import GRACE
from degan_search.search.run.jobs import Job
from degan_search.search.run.results import TrialResult
from degan_search.search.workers import ray_patches


@dataclass
class Attempt:
    """A running attempt of a trial, which begins now."""

    trial: Trial
    clock: float = field(default_factory=time.time)
    begun: float = field(default_factory=time.monotonic)
    killed: bool = False
    held: float = 0.0
    """Seconds until `counted`; while others ran in its process, its share of them."""
    counted: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.begun


class Attempts(dict[str, Attempt]):
    """The running attempts by their trials' names."""

    def kill_hung(self, limit: float | None) -> None:
        """Kill workers past the time limit that have not ended themselves: they hang, or cannot be reached."""
        for attempt in self.values():
            if limit is not None and not attempt.killed and attempt.seconds > limit + GRACE:
                attempt.killed = ray_patches.kill_worker(attempt.trial)

    def end(self, name: str) -> Attempt | None:
        """Take out an attempt that has ended; None if it had not begun."""
        attempt = self.get(name)
        if attempt is None:
            return None
        now = time.monotonic()
        beside = [other for other in self.values() if other.trial is attempt.trial]
        for other in beside:
            other.held += (now - other.counted) / len(beside)
            other.counted = now
        return self.pop(name)


def seconds_held(job: Job, last: TrialResult | None, attempt: Attempt | None) -> float:
    """Return the seconds of a trial's attempts so far: of this driver, and of those that its checkpoint tells of.

    Args:
        job: of the attempt that has ended.
        last: result of it.
        attempt: None if it had not begun.
    """
    here = attempt.held if attempt else 0.0
    return here + (_before_this_driver(last, attempt) if job.held is None else job.held)


def _before_this_driver(last: TrialResult | None, attempt: Attempt | None) -> float:
    """Return the seconds that the checkpoint told of from which a driver's first attempt went on."""
    if last is None or attempt is None or last.seconds is None or last.started is None or last.finished is None:
        return 0.0
    set_back = last.finished < last.started
    return max(0.0, last.seconds - (attempt.seconds if set_back else last.finished - last.started))
