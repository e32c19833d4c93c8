"""Suggests trials: one Optuna study for each cell, the cells taking turns; unfinished trials of earlier come first."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
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
from degan_search.search.suggest import studies
from degan_search.search.suggest.job_queue import Jobs, Together, _take, alone
from degan_search.search.suggest.studies import OPTUNA_STATES
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig

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
