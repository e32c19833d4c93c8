"""Queues of jobs from which Ray Tune takes what runs next."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ray.tune.search import Searcher

from degan_search.ledger.columns import State
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import Job, Kind
from degan_search.search.run.outbox import Outbox
from degan_search.search.run.results import TrialResult
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig

T = TypeVar("T")
PerProcess = Callable[[TrialConfig], int]
"""Returns how many trials like this one run in one process."""


def _nothing() -> None:
    """Do nothing."""


def one_a_process(config: TrialConfig) -> int:
    """Return 1: each trial runs in a process of its own."""
    return 1


def likeness(config: TrialConfig) -> str:
    """Return a hash that is equal for trials that differ only in `lambda_e`, `lambda_d` and the seed."""
    gan = config.gan.model_copy(update={"lambda_e": 0.0, "lambda_d": 0.0})
    return stable_hash(config.model_copy(update={"gan": gan, "seed": 0}))


class Jobs(Searcher):  # type: ignore[misc]
    """Hands out jobs, also again after a fault; none while rows cannot be written.

    The recorder decides how a trial ended and calls `ended` or `retry`: in Tune's own call, `on_trial_complete`, a lost
    worker and a failed trial look the same.
    """

    def __init__(self, outbox: Outbox | None = None, per_process: PerProcess = one_a_process) -> None:
        super().__init__(metric="score", mode="max")
        self.outbox, self.per_process = outbox or Outbox(), per_process
        self.running: dict[str, tuple[Job, ...]] = {}
        """What workers have been given, by Tune's trial id."""
        self.set_aside: deque[Job] = deque()
        """Jobs that were drawn to run beside others but cannot, as they are not alike."""
        self.retries: list[tuple[float, Job]] = []
        """Jobs to run again, each with the moment of the monotonic clock from which on it may."""
        self.news: list[str] = []
        """Lines for people about jobs that will not come; the recorder takes them away."""
        self.closed = False
        """Whether nothing begins any more, as the sweep stops."""
        self._while_idle: Callable[[], None] = _nothing

    def call_when_idle(self, act: Callable[[], None]) -> None:
        """Call `act` whenever there is nothing to start: Tune then only asks again and again."""
        self._while_idle = act

    def next_job(self, cell: str | None = None) -> Job | None:
        """Return a job that was not handed out yet, of this cell if one is given; None: there is none left."""
        raise NotImplementedError

    def ended(self, job: Job, state: State, result: TrialResult | None) -> None:
        """Note how a job ended, and with which last result."""

    def waiting(self) -> list[Kind]:
        """Return the kinds of the jobs that are still to begin, in order."""
        return [*(job.kind for _, job in self.retries), *(job.kind for job in self.set_aside)]

    def examples(self) -> list[TrialConfig]:
        """Return a configuration of each kind of job."""
        return []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the jobs that start next by `tune_dicts.to_config`; None: none just now; FINISHED: none any more."""
        if self.outbox.unwritten or self.closed:
            self._while_idle()
            return None
        job = self._next()
        if job is None:
            if not self.running and not self.retries:
                return str(Searcher.FINISHED)
            self._while_idle()  # not FINISHED, which is final: a running job may have to be tried again
            return None
        self.running[trial_id] = job, *self._companions(job)
        return tune_dicts.to_config(self.running[trial_id])

    def _next(self) -> Job | None:
        due = [item for item in self.retries if item[0] <= time.monotonic()]
        if due:
            self.retries.remove(due[0])
            return due[0][1]
        return self.set_aside.popleft() if self.set_aside else self.next_job()

    def _companions(self, job: Job) -> Iterator[Job]:
        """Yield the jobs that run in one process with this one: of its cell and alike, as many as fit.

        The others would wait for a longer trial, and for a larger one the memory may not suffice.
        """
        count = 1 if job.faults else self.per_process(job.config)  # alone after a fault, which may be a full memory
        for _ in range(count - 1):
            other = self.next_job(job.cell)
            if other is None:
                return
            if likeness(other.config) != likeness(job.config):
                self.set_aside.append(other)
                return
            yield other

    def retry(self, job: Job, seconds: float, fault: bool = True) -> None:
        """Hand the job out again after so many seconds; `fault`: whether one cut it short."""
        again = job.changed(attempt=job.attempt + 1, faults=job.faults + fault)
        self.retries.append((time.monotonic() + seconds, again))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note that a worker no longer runs its jobs."""
        self.running.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a search is rebuilt from its ledger, not from Ray's snapshots."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""


class GivenJobs(Jobs):
    """Hands out the jobs of a list."""

    def __init__(
        self, given: Iterable[Job], outbox: Outbox | None = None, per_process: PerProcess = one_a_process
    ) -> None:
        super().__init__(outbox, per_process)
        self.given = deque(given)
        """Those that were not handed out yet."""
        self.total = len(self.given)

    def next_job(self, cell: str | None = None) -> Job | None:
        """Return the next of the list."""
        return take_first(self.given, lambda job: cell in (None, job.cell))

    def waiting(self) -> list[Kind]:
        """Return the kinds of the jobs that are still to begin, in order."""
        return [*super().waiting(), *(job.kind for job in self.given)]

    def examples(self) -> list[TrialConfig]:
        """Return the configurations that are left."""
        return [job.config for job in self.given]


def take_first(queue: deque[T], fits: Callable[[T], bool]) -> T | None:
    """Remove the first item of a queue that fits, and return it; None: there is none."""
    found = next((index for index, item in enumerate(queue) if fits(item)), None)
    if found is None:
        return None
    item = queue[found]
    del queue[found]
    return item
