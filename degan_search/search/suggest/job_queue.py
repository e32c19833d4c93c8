"""Queues of jobs, as Ray Tune asks for them."""

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


Together = Callable[[TrialConfig], int]
"""Of a trial: how many like it run in one process."""


def _nothing() -> None:
    """Look after nothing."""


def alone(config: TrialConfig) -> int:
    """Let every trial run by itself."""
    return 1


def likeness(config: TrialConfig) -> str:
    """Return what trials have in common that differ in `lambda_e`, `lambda_d` and the seed alone."""
    gan = config.gan.model_copy(update={"lambda_e": 0.0, "lambda_d": 0.0})
    return stable_hash(config.model_copy(update={"gan": gan, "seed": 0}))


class Jobs(Searcher):  # type: ignore[misc]
    """Hands out jobs, and those again that a fault cut short; it starts nothing while rows cannot be written.

    The callback that writes rows judges how a trial ended, and says so by `ended` or `take_back`: Tune's own word,
    `on_trial_complete`, does not tell a lost worker from a failed trial.
    """

    def __init__(self, outbox: Outbox | None = None, together: Together = alone) -> None:
        super().__init__(metric="score", mode="max")
        self.outbox, self.together = outbox or Outbox(), together
        self.out: dict[str, tuple[Job, ...]] = {}
        """What workers have been given, by Tune's trial id."""
        self.aside: deque[Job] = deque()
        """Jobs that did not fit to those for which they were drawn."""
        self.back: list[tuple[float, Job]] = []
        """Jobs to run again, each from a moment of the monotonic clock on."""
        self._look: Callable[[], None] = _nothing

    def when_idle(self, look: Callable[[], None]) -> None:
        """Call this whenever there is nothing to start: Tune then asks again and again, and does nothing else."""
        self._look = look

    def next_job(self, cell: str | None = None) -> Job | None:
        """Return a job that was not handed out yet, if asked for one of this cell; None: there is none left."""
        raise NotImplementedError

    def ended(self, one: Job, state: State, result: TrialResult | None) -> None:
        """Take notice of how a job ended, with its last result."""

    def waiting(self) -> list[Kind]:
        """Return the kinds of the jobs that are still to begin, in order."""
        return [*(one.kind for _, one in self.back), *(one.kind for one in self.aside)]

    def examples(self) -> list[TrialConfig]:
        """Return a configuration of each kind of job."""
        return []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return `tune_dicts.to_config` of what starts next, None while there is nothing just now, or FINISHED."""
        if self.outbox.unwritten:
            self._look()
            return None
        one = self._next()
        if one is None:
            if not self.out and not self.back:
                return str(Searcher.FINISHED)
            self._look()  # FINISHED is final, and what runs may still come back
            return None
        self.out[trial_id] = one, *self._companions(one)
        return tune_dicts.to_config(self.out[trial_id])

    def _next(self) -> Job | None:
        due = [item for item in self.back if item[0] <= time.monotonic()]
        if due:
            self.back.remove(due[0])
            return due[0][1]
        return self.aside.popleft() if self.aside else self.next_job()

    def _companions(self, one: Job) -> Iterator[Job]:
        """Yield the jobs that run in one process with this one: as many of its cell as fit, and only its like.

        Trials of another length would leave the others waiting, and of another size they may not fit.
        """
        count = 1 if one.faults else self.together(one.config)  # after a fault, such as a full memory, alone
        for _ in range(count - 1):
            other = self.next_job(one.cell)
            if other is None:
                return
            if likeness(other.config) != likeness(one.config):
                self.aside.append(other)
                return
            yield other

    def take_back(self, one: Job, seconds: float) -> None:
        """Hand the job out again after so many seconds."""
        again = one.changed(attempt=one.attempt + 1, faults=one.faults + 1)
        self.back.append((time.monotonic() + seconds, again))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note that a worker is done with a job."""
        self.out.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger, not Ray's snapshot, is what a search is rebuilt from."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""


class GivenJobs(Jobs):
    """Hands out a list of jobs."""

    def __init__(self, given: Iterable[Job], outbox: Outbox | None = None, together: Together = alone) -> None:
        super().__init__(outbox, together)
        self.given = deque(given)
        self.total = len(self.given)

    def next_job(self, cell: str | None = None) -> Job | None:
        """Return the next of the list."""
        return _take(self.given, lambda one: cell in (None, one.cell))

    def waiting(self) -> list[Kind]:
        """Return the kinds of the jobs that are still to begin, in order."""
        return [*super().waiting(), *(one.kind for one in self.given)]

    def examples(self) -> list[TrialConfig]:
        """Return the configurations that are left."""
        return [one.config for one in self.given]


def _take(queue: deque[T], fits: Callable[[T], bool]) -> T | None:
    """Take the first of a queue that fits; None: there is none."""
    found = next((index for index, one in enumerate(queue) if fits(one)), None)
    if found is None:
        return None
    one = queue[found]
    del queue[found]
    return one
