"""Suggests trials: one Optuna study for each cell, the cells taking turns; unfinished trials of earlier come first."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import optuna
import pandas as pd
from optuna.trial import TrialState
from ray.tune.search import Searcher

from degan_search.config import TrialConfig, stable_hash
from degan_search.records import Phase, State
from degan_search.search import jobs, tune_dicts
from degan_search.search import study as studies
from degan_search.search.jobs import Job, Kind
from degan_search.search.outbox import Outbox
from degan_search.search.results import TrialResult
from degan_search.search.space import Cell, points
from degan_search.search.study import OPTUNA_STATES

T = TypeVar("T")
REPEATS = 20
"""Suggestions of what was tried already that are turned down before one is run again."""


@dataclass(frozen=True)
class Past:
    """What a run holds already: its rows and curves, and its unfinished jobs, each with the rung scores it had."""

    frame: pd.DataFrame
    curves: pd.DataFrame
    unfinished: list[Job] = field(default_factory=list)
    rungs: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Of unfinished trials, as their checkpoints know them: scores by GAN step, by trial id."""
    first_number: int = 0
    """For the next new trial."""


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


@dataclass
class _Asked:
    """A trial of a study that is not told yet, and the steps at which it reported."""

    study: optuna.Study
    trial: optuna.Trial
    steps: set[int]

    def report(self, score: float, step: int) -> None:
        if step not in self.steps:  # a trial that was cut short passes a rung twice
            self.steps.add(step)
            self.trial.report(score, step)


class CellSearcher(Jobs):
    """Ray's face of the studies.

    A study is told of each rung's score, and of a trial's end as what it was: a trial that ASHA stopped is
    PRUNED and one that diverged is FAIL, so that neither passes for a finished trial's score. Given a `Past`, it goes
    on where that ended: the studies know its trials, unfinished ones come first, and counts include both.
    """

    def __init__(
        self,
        cells: list[Cell],
        outbox: Outbox | None = None,
        past: Past | None = None,
        together: Together = alone,
    ) -> None:
        super().__init__(outbox, together)
        self.cells = {cell.label: cell for cell in cells}
        self.number = past.first_number if past else 0
        self.first = deque(past.unfinished if past else ())
        self.asked: dict[str, _Asked] = {}
        self.tried: set[tuple[str, str]] = set()
        self.had = dict.fromkeys(self.cells, 0)
        """Trials that each cell has had, the running and the unfinished ones among them."""
        if past:
            waiting = {one.id for one in past.unfinished}
            rows = past.frame[(past.frame["phase"] == Phase.SEARCH) & ~past.frame["trial_id"].isin(waiting)]
            self.tried |= set(zip(rows["cell"], rows["config_hash"], strict=True))
            for cell in [*rows["cell"], *(one.cell for one in past.unfinished)]:
                self.had[cell] = self.had.get(cell, 0) + 1
            self.studies = {
                label: studies.from_ledger(cell, rows, past.curves, lenient=True) for label, cell in self.cells.items()
            }
            self._adopt(past)
        else:
            self.studies = {label: studies.create(cell) for label, cell in self.cells.items()}
        for cell in cells:
            self._enqueue_points(cell)
        self.counts = {label: cell.trials() for label, cell in self.cells.items()}
        """Trials that each cell shall have in all."""
        self.varied = [label for label, cell in self.cells.items() if cell.varies()]
        self.turns = deque(self._turns(self.counts))
        """The cell of each new trial."""
        self.total = len(self.first) + len(self.turns)

    @property
    def trials(self) -> int:
        """Trials of each cell that varies, in all."""
        return max(self.counts[label] for label in self.varied)

    def set_trials(self, trials: int) -> None:
        """Give each cell that varies so many trials in all, or as many as it has had where those are more."""
        self.total -= len(self.turns)
        self.counts |= dict.fromkeys(self.varied, trials)
        self.turns = deque(self._turns(self.counts))
        self.total += len(self.turns)

    def waiting(self, trials: int | None = None) -> list[Kind]:
        """Return the kinds of the jobs that are still to begin, in order; `trials`: as after `set_trials`."""
        turns = self.turns if trials is None else self._turns(self.counts | dict.fromkeys(self.varied, trials))
        return [*super().waiting(), *(one.kind for one in self.first), *((Phase.SEARCH, label) for label in turns)]

    def examples(self) -> list[TrialConfig]:
        """Return a configuration of each cell."""
        return [cell.example() for cell in self.cells.values()]

    def next_job(self, cell: str | None = None) -> Job | None:
        """Return an unfinished job of earlier, else a new one of the cell whose turn it is, or of this one."""
        if (one := _take(self.first, lambda one: cell in (None, one.cell))) is not None:
            return one
        label = _take(self.turns, lambda turn: cell in (None, turn))
        return None if label is None else self._draw(label)

    def _draw(self, label: str) -> Job:
        self.had[label] += 1
        cell, study = self.cells[label], self.studies[label]
        trial = study.ask()
        config = cell.configure(trial)
        for _ in range(REPEATS):
            if (label, stable_hash(config)) not in self.tried:
                break
            study.tell(trial, state=TrialState.FAIL)  # it would give the same result again: ask for another
            trial = study.ask()
            config = cell.configure(trial)
        one = jobs.job(Phase.SEARCH, self.number, label, config)
        self.number += 1
        self.tried.add((label, stable_hash(config)))
        self.asked[one.id] = _Asked(study, trial, set())
        return one

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the study a rung's score."""
        for told in tune_dicts.from_result(result) if trial_id in self.out else ():
            asked = self.asked.get(told.id)
            if asked and told.state is None:
                asked.report(told.score, told.budget)

    def ended(self, one: Job, state: State, result: TrialResult | None) -> None:
        """Tell the study how the trial ended."""
        asked = self.asked.pop(one.id, None)
        if asked is None:
            return
        value = None
        if result and state is State.PRUNED:  # Tune tells of the rung that stops a trial here alone
            asked.report(result.score, result.budget)
        elif result and state is State.COMPLETE:
            value = result.score
            if not math.isfinite(value):  # an objective that could not be measured; Optuna takes no such value
                state, value = State.FAIL, None
        asked.study.tell(asked.trial, value, state=OPTUNA_STATES[state])

    def _turns(self, counts: Mapping[str, int]) -> Iterator[str]:
        """Yield the cell of each trial that is still to begin, the cells taking turns."""
        for turn in range(max(counts.values(), default=0)):
            yield from (label for label, count in counts.items() if self.had[label] <= turn < count)

    def _adopt(self, past: Past) -> None:
        """Make the unfinished trials running ones of their studies, so that these neither repeat nor forget them."""
        for one in past.unfinished:
            self.tried.add((one.cell, stable_hash(one.config)))
            cell = self.cells.get(one.cell)
            trial = cell and studies.ask_again(self.studies[cell.label], cell, one.config)
            if cell and trial:
                asked = _Asked(self.studies[cell.label], trial, set())
                self.asked[one.id] = asked
                for step, score in past.rungs.get(one.id, {}).items():
                    asked.report(score, step)

    def _enqueue_points(self, cell: Cell) -> None:
        """Enqueue the points known before the search that have no trial yet."""
        study = self.studies[cell.label]
        known = {frozenset(trial.params.items()) for trial in study.get_trials(deepcopy=False)}
        whole = cell.space.search.sampler == "grid"  # first points may name some of the parameters only
        for point in points(cell):
            asked = frozenset(point.items())
            if asked not in known and (whole or not any(asked <= params for params in known)):
                study.enqueue_trial(point)


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
