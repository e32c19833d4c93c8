"""Suggests trials: one Optuna study for each cell, the cells taking turns."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from degan_search.config import stable_hash
from degan_search.records import Phase, State
from degan_search.search import study as studies
from degan_search.search.space import Cell, points
from degan_search.search.study import OPTUNA_STATES

REPEATS = 20
"""Suggestions of what was tried already that are turned down before one is run again."""


class CellSearcher(Searcher):  # type: ignore[misc]
    """Ray's face of the studies.

    A study is told of each rung's score, and of a trial's end as what it was: a trial that ASHA stopped is
    PRUNED and one that diverged is FAIL, so that neither passes for a finished trial's score.
    """

    def __init__(self, cells: list[Cell]) -> None:
        super().__init__(metric="score", mode="max")
        self.cells = cells
        self.studies = {cell.label: _study(cell) for cell in cells}
        counts = [cell.trials() for cell in cells]
        turns = range(max(counts, default=0))
        self.turns = [cell for turn in turns for cell, count in zip(cells, counts, strict=True) if turn < count]
        self.given = 0
        self.tried: set[tuple[str, str]] = set()
        self.asked: dict[str, tuple[optuna.Study, optuna.Trial]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next job, or FINISHED when every cell has had its trials."""
        if self.given == len(self.turns):
            return str(Searcher.FINISHED)
        cell = self.turns[self.given]
        study = self.studies[cell.label]
        trial = study.ask()
        config = cell.configure(trial)
        for _ in range(REPEATS):
            if (cell.label, stable_hash(config)) not in self.tried:
                break
            study.tell(trial, state=TrialState.FAIL)  # it would give the same result again: ask for another
            trial = study.ask()
            config = cell.configure(trial)
        self.tried.add((cell.label, stable_hash(config)))
        self.asked[trial_id] = study, trial
        self.given += 1
        return job(Phase.SEARCH, self.given - 1, cell.label, config.model_dump(mode="json"))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the study a rung's score."""
        if trial_id in self.asked and result["state"] is None:
            self.asked[trial_id][1].report(result["score"], result["budget"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the trial ended."""
        if trial_id not in self.asked:
            return
        study, trial = self.asked.pop(trial_id)
        ended = State.FAIL if error or not result else State(result.get("state") or State.PRUNED)
        value = None
        if result and ended is State.PRUNED:  # Tune tells of the rung that stops a trial here alone
            trial.report(result["score"], result["budget"])
        elif result and ended is State.COMPLETE:
            value = result["score"]
            if not math.isfinite(value):  # an objective that could not be measured; Optuna takes no such value
                ended, value = State.FAIL, None
        study.tell(trial, value, state=OPTUNA_STATES[ended])

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger, not Ray's snapshot, is what a search is rebuilt from."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""


class GivenJobs(Searcher):  # type: ignore[misc]
    """Hands out a list of jobs."""

    def __init__(self, jobs: list[dict[str, Any]]) -> None:
        super().__init__(metric="score", mode="max")
        self.jobs = list(jobs)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next job, or FINISHED after the last."""
        return self.jobs.pop(0) if self.jobs else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: given jobs do not depend on results."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: see `CellSearcher.save`."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `CellSearcher.save`."""


def job(phase: Phase, number: int, cell: str, config: dict[str, Any], chosen_by: str | None = None) -> dict[str, Any]:
    """Return what a worker is given: the trial's name in the run, its cell, and its configuration.

    `chosen_by` goes into the row: the measure that picked a final run's configuration from a search.
    """
    about = {"phase": str(phase), "number": number, "cell": cell, "chosen_by": chosen_by}
    return {"id": f"{phase}-{number:04d}", **about, "config": config}


def _study(cell: Cell) -> optuna.Study:
    study = studies.create(cell)
    for point in points(cell):
        study.enqueue_trial(point)
    return study
