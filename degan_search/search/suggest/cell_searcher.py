"""Suggests trials: unfinished ones first, then new ones from each cell's Optuna study, cell after cell."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState

from degan_search.ledger.columns import Phase, State
from degan_search.search.run import jobs, tune_dicts
from degan_search.search.run.jobs import Job, Kind
from degan_search.search.run.outbox import Outbox
from degan_search.search.run.results import TrialResult
from degan_search.search.space.cell import Cell, points
from degan_search.search.suggest import few_points, studies
from degan_search.search.suggest.box_sampler import REPEATED
from degan_search.search.suggest.few_points import PointCounts
from degan_search.search.suggest.flat_cells import FlatCells
from degan_search.search.suggest.job_queue import Jobs, PerProcess, one_a_process, take_first
from degan_search.search.suggest.studies import OPTUNA_STATES
from degan_search.settings.goals import SCORE
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig

REPEATS = 20
"""Suggestions that were tried before and are turned down, before one of them is run again."""


@dataclass(frozen=True)
class Past:
    """What a run holds already: its rows, its curves, and its unfinished jobs."""

    frame: pd.DataFrame
    curves: pd.DataFrame
    unfinished: list[Job] = field(default_factory=list)
    rungs: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Scores of unfinished trials by GAN step, from their checkpoints, by trial id."""
    first_number: int = 0
    """For the next new trial."""


@dataclass
class _Asked:
    """A running trial of a study, and the steps at which it reported."""

    study: optuna.Study
    trial: optuna.Trial
    steps: set[int]

    def report(self, score: float, step: int) -> None:
        if len(self.study.directions) > 1:  # Optuna knows no rungs of several values
            return
        if step not in self.steps:  # a trial that was cut short reaches a rung twice
            self.steps.add(step)
            self.trial.report(score, step)


class CellSearcher(Jobs):
    """Ray's searcher over the studies of all cells.

    A study gets the score at each rung, and how a trial ended: one that ASHA stopped as PRUNED and one that diverged as
    FAIL, so that neither counts as a finished trial's score. Given a `Past`, the search goes on where that ended: the
    studies know its trials, unfinished ones come first, and the numbers of trials include both.
    """

    def __init__(
        self,
        cells: list[Cell],
        outbox: Outbox | None = None,
        past: Past | None = None,
        per_process: PerProcess = one_a_process,
    ) -> None:
        super().__init__(outbox, per_process)
        self.cells = {cell.label: cell for cell in cells}
        self.objectives = cells[0].space.search.objectives if cells else [SCORE]
        self.number = past.first_number if past else 0
        self.unfinished = deque(past.unfinished if past else ())
        """Jobs of an earlier driver that are still to begin again."""
        self.asked: dict[str, _Asked] = {}
        self.tried: set[tuple[str, str]] = set()
        """Cells and hashes of configurations."""
        self.started = dict.fromkeys(self.cells, 0)
        """Trials of each cell that began, also those that have not ended."""
        if past:
            waiting = {job.id for job in past.unfinished}
            rows = past.frame[(past.frame["phase"] == Phase.SEARCH) & ~past.frame["trial_id"].isin(waiting)]
            self.tried |= set(zip(rows["cell"], rows["config_hash"], strict=True))
            for cell in [*rows["cell"], *(job.cell for job in past.unfinished)]:
                self.started[cell] = self.started.get(cell, 0) + 1
            self.studies = {
                label: studies.from_ledger(cell, rows, past.curves, lenient=True) for label, cell in self.cells.items()
            }
            self._adopt(past)
            self.flat = FlatCells(self.cells, rows, past.unfinished)
        else:
            self.studies = {label: studies.create(cell) for label, cell in self.cells.items()}
            self.flat = FlatCells(self.cells)
        for cell in cells:
            _enqueue_points(self.studies[cell.label], cell)
        self.counts = {label: cell.trials() for label, cell in self.cells.items()} | self._of_flat()
        """Trials of each cell in all."""
        self.varied = [label for label, cell in self.cells.items() if cell.varies()]
        self.points = PointCounts({label: self.cells[label] for label in self.varied})
        self.next_cells = deque(_round_robin(self.started, self.counts))
        """The cell of each new trial, in order."""
        self.total = len(self.unfinished) + len(self.next_cells)

    @property
    def trials(self) -> int:
        """Trials of each cell that varies, in all."""
        return max(self.counts[label] for label in self.varied)

    def set_trials(self, trials: int) -> None:
        """Give each cell that varies so many trials in all, but not fewer than began, nor more than have points."""
        self.total -= len(self.next_cells)
        self.counts |= self.points.at_most(trials) | self._of_flat()
        self.next_cells = deque(_round_robin(self.started, self.counts))
        self.total += len(self.next_cells)

    def waiting(self, trials: int | None = None) -> list[Kind]:
        """Return the kinds of the jobs that are still to begin, in order; `trials`: as after `set_trials`."""
        if trials is None:
            labels: Iterable[str] = self.next_cells
        else:
            labels = _round_robin(self.started, self.counts | self.points.at_most(trials) | self._of_flat())
        new = ((str(Phase.SEARCH), label) for label in labels)
        return [*super().waiting(), *(job.kind for job in self.unfinished), *new]

    def examples(self) -> list[TrialConfig]:
        """Return a configuration of each cell."""
        return [cell.example() for cell in self.cells.values()]

    def next_job(self, cell: str | None = None) -> Job | None:
        """Return an unfinished job, else a new one of the next cell; only of this cell if one is given."""
        if (job := take_first(self.unfinished, lambda job: cell in (None, job.cell))) is not None:
            return job
        label = take_first(self.next_cells, lambda label: cell in (None, label))
        return None if label is None else self._draw(label)

    def _draw(self, label: str) -> Job:
        self.started[label] += 1
        cell, study = self.cells[label], self.studies[label]
        trial = study.ask()
        config = cell.configure(trial)
        for _ in range(REPEATS):
            if (label, stable_hash(config)) not in self.tried:
                break
            _turn_down(study, trial)
            trial = study.ask()
            config = cell.configure(trial)
        tried = {name for of, name in self.tried if of == label}
        if stable_hash(config) in tried and (point := few_points.untried(cell, tried)):
            _turn_down(study, trial)
            study.enqueue_trial(cell.enqueue(point))
            trial = study.ask()
            config = cell.configure(trial)
        job = jobs.new_job(Phase.SEARCH, self.number, label, config)
        self.number += 1
        self.tried.add((label, stable_hash(config)))
        self.asked[job.id] = _Asked(study, trial, set())
        self.flat.begin(job)
        return job

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report a rung's score to the study."""
        for sent in tune_dicts.from_result(result) if trial_id in self.running else ():
            asked = self.asked.get(sent.id)
            if asked and not sent.ended:
                asked.report(sent.score, sent.gan_steps)

    def ended(self, job: Job, state: State, result: TrialResult | None) -> None:
        """Tell the study how the trial ended; a cell that this makes flat has no further ones."""
        if self.flat.end(job, state, result.score if result else math.nan):
            before = len(self.next_cells)
            self.next_cells = deque(label for label in self.next_cells if label != job.cell)
            self.total -= before - len(self.next_cells)
            self.counts |= self._of_flat()
            self.news.append(self.flat.lines()[-1])
        asked = self.asked.pop(job.id, None)
        if asked is None:
            return
        values = None
        if result and state is State.PRUNED:  # Tune makes no other call for the rung that stops a trial
            asked.report(result.score, result.gan_steps)
        elif result and state is State.COMPLETE:
            state, values = studies.told(state, result.goals(self.objectives))
        asked.study.tell(asked.trial, values, state=OPTUNA_STATES[state])

    def _of_flat(self) -> dict[str, int]:
        """Return the trials of each flat cell: those that began."""
        return {label: self.started[label] for label in self.flat.after}

    def _adopt(self, past: Past) -> None:
        """Make the unfinished trials running ones of their studies, which then neither repeat nor forget them."""
        for job in past.unfinished:
            self.tried.add((job.cell, stable_hash(job.config)))
            cell = self.cells.get(job.cell)
            trial = cell and studies.ask_again(self.studies[cell.label], cell, job.config)
            if cell and trial:
                asked = _Asked(self.studies[cell.label], trial, set())
                self.asked[job.id] = asked
                for step, score in past.rungs.get(job.id, {}).items():
                    asked.report(score, step)


def _round_robin(started: Mapping[str, int], counts: Mapping[str, int]) -> Iterator[str]:
    """Yield the cell of each trial that is still to begin: one of each cell, then the next of each."""
    for place in range(max(counts.values(), default=0)):
        yield from (label for label, count in counts.items() if started[label] <= place < count)


def _enqueue_points(study: optuna.Study, cell: Cell) -> None:
    """Enqueue the points known before the search that have no trial yet."""
    known = {frozenset(trial.params.items()) for trial in study.get_trials(deepcopy=False)}
    whole = cell.space.search.sampler == "grid"  # first points may name some of the parameters only
    for point in points(cell):
        asked = frozenset(point.items())
        if asked not in known and (whole or not any(asked <= params for params in known)):
            study.enqueue_trial(point)


def _turn_down(study: optuna.Study, trial: optuna.Trial) -> None:
    """End a trial that would give the same result as an earlier one."""
    trial.set_user_attr(REPEATED, True)
    study.tell(trial, state=TrialState.FAIL)
