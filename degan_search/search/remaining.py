"""The trials of a run that are still to run, by its ledger and its job files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from degan_search import ledger
from degan_search.ledger.columns import Phase, config_of
from degan_search.search.open_run import Run
from degan_search.search.run import jobs
from degan_search.search.run.jobs import Job
from degan_search.search.run.outbox import Outbox
from degan_search.search.run.results import Curve
from degan_search.search.space.cell import Cell
from degan_search.search.space.combined import combined_label, combines
from degan_search.search.space.schema import FinalsConfig, Space
from degan_search.search.suggest.asha import Rungs
from degan_search.search.suggest.cell_searcher import CellSearcher, Past
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.search.workers import checkpoints
from degan_search.search.workers.slots import trials_per_process
from degan_search.selection import choose
from degan_search.selection.members import combined_config, repeat, repeated
from degan_search.settings.resolve import stable_hash, trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError


def remaining_search(
    space: Space, cells: list[Cell], run: Run, retry_failed: bool = False
) -> tuple[CellSearcher, Rungs | None]:
    """Return the searcher of the search trials that are still to run, and the rungs as they stand."""
    frame, curves = ledger.load(run.folder), ledger.curves(run.folder)
    known = read_jobs(run)
    unfinished = jobs.unfinished(known, frame, Phase.SEARCH, retry_failed)
    place = run.options.place()
    goals = space.search.objectives
    values = {job.id: _rung_values(checkpoints.load(place.at(job.id)), goals) for job in unfinished}
    rungs = Rungs(space.asha.reduction_factor, goals) if space.asha else None
    if rungs:
        waiting = {job.id for job in unfinished}
        rungs.fill(curves[~curves["trial_id"].isin(waiting)], frame)
        for job in unfinished:
            for gan_steps, reached in values[job.id].items():
                rungs.record_promoted(job.cell, gan_steps, reached, job.id)
    number = jobs.next_number(run.folder, known, frame, Phase.SEARCH)
    scores = {name: {step: score for step, (score, *_) in reached.items()} for name, reached in values.items()}
    past = Past(frame, curves, unfinished, scores, number)
    return CellSearcher(cells, Outbox(), past, partial(trials_per_process, run.options)), rungs


def _rung_values(checkpoint: dict[str, Any] | None, goals: Sequence[str]) -> dict[int, list[float]]:
    """Return the goals at the rungs that an unfinished trial reached, by GAN step; none without a checkpoint."""
    if checkpoint is None:
        return {}
    measured = checkpoint["trial"].get("metrics", {})
    with suppress(UserError):  # of another version: the worker begins the trial anew
        return Curve.of(checkpoint["reports"]).at_rungs(goals, measured)
    return {}


def remaining_finals(cells: list[Cell], finals: FinalsConfig, run: Run, retry_failed: bool = False) -> GivenJobs:
    """Return the final runs that have no row yet; those that began keep their names, and so their checkpoints."""
    frame = ledger.load(run.folder)
    wanted_jobs = final_jobs(cells, frame, finals, run.folder)
    for cell in filter(combines, cells) if finals.combine else ():
        if (label := combined_label(cell)) not in {wanted.cell for wanted in wanted_jobs}:
            said = (
                f"{label}: fewer than two generators of the search are there, so no student learns from them together"
            )
            run.console.print(said, highlight=False, markup=False, soft_wrap=True)
    return _left(Phase.FINAL, wanted_jobs, frame, run, retry_failed)


def remaining_repeats(space: Space, cells: list[Cell], run: Run, retry_failed: bool = False) -> GivenJobs:
    """Return the further students of search trials that have no row yet, as `remaining_finals` does final runs."""
    frame = ledger.load(run.folder)
    by = space.finals.by if space.finals else None
    wanted_jobs = repeat_jobs(cells, frame, space.search.repeats, by, run.folder)
    return _left(Phase.REPEAT, wanted_jobs, frame, run, retry_failed)


def _left(phase: Phase, wanted_jobs: list[Job], frame: pd.DataFrame, run: Run, retry_failed: bool) -> GivenJobs:
    known = read_jobs(run)
    begun = {stable_hash(job.config): job for job in jobs.unfinished(known, frame, phase, failed_too=retry_failed)}
    again = {job.id for job in begun.values()}
    done = set(frame.loc[(frame["phase"] == phase) & ~frame["trial_id"].isin(again), "config_hash"])
    number = itertools.count(jobs.next_number(run.folder, known, frame, phase))
    left = []
    for wanted in wanted_jobs:
        name = stable_hash(wanted.config)
        if name in begun:
            left.append(begun[name])
        elif name not in done:
            left.append(wanted.changed(number=(own := next(number)), id=jobs.trial_name(phase, own)))
    return GivenJobs(left, Outbox(), partial(trials_per_process, run.options))


def read_jobs(run: Run) -> dict[str, Job]:
    """Return the run's jobs; broken files are named on the console, and their trials begin anew as other ones."""
    known, broken = jobs.read(run.folder)
    for file in broken:
        run.console.print(f"{file} is broken and is passed over", highlight=False, soft_wrap=True)
    return known


def final_jobs(cells: list[Cell], frame: pd.DataFrame, finals: FinalsConfig, folder: Path) -> list[Job]:
    """Return the final runs with each seed: each cell's chosen configuration, and `finals.combine`'s students.

    A cell whose trials all failed has none. The generators that are combined lie in the run's `folder`.
    """
    picked = [(cell.label, *found) for cell in cells if (found := chosen(cell, frame, finals.by))]
    for cell in filter(combines, cells) if finals.combine else ():
        if found := combined_of(cell, frame, finals, folder):
            picked.append((combined_label(cell), *found))
    made: list[Job] = []
    for seed, (label, config, by) in itertools.product(finals.seeds, picked):
        final = trial_config(config.model_dump(mode="json"), finals.settings(), {"seed": seed, "probe.at": []})
        made.append(jobs.new_job(Phase.FINAL, len(made), label, final, by, finals.referee))
    return made


def repeat_jobs(cells: list[Cell], frame: pd.DataFrame, repeats: int, by: str | None, folder: Path) -> list[Job]:
    """Return a job for each further student: first the first one of every trial that is repeated, then the second ones.

    Repeated are the best of each cell whose generators lie in the run's `folder`.
    """
    picked: list[tuple[Cell, str, str, TrialConfig]] = []
    for cell in filter(Cell.varies, cells):
        trials = choose.finished(frame[frame["cell"] == cell.label])
        measure = choose.chosen_by(trials, by)
        picked += [(cell, measure, *found) for found in repeated(trials, measure, folder)]
    made: list[Job] = []
    for number, (cell, measure, name, config) in itertools.product(range(1, repeats + 1), picked):
        made.append(jobs.new_job(Phase.REPEAT, len(made), cell.label, repeat(config, name, number), measure))
    return made


def combined_of(
    cell: Cell, frame: pd.DataFrame, finals: FinalsConfig, folder: Path
) -> tuple[TrialConfig, str | None] | None:
    """Return the configuration of a cell's combined student and the measure that chose its generators.

    None: fewer than two generators are there.
    """
    assert finals.combine, "it is asked for"
    trials = frame[frame["cell"] == cell.label]
    measure = choose.chosen_by(trials, finals.by)
    config = combined_config(trials, measure, finals.combine, folder)
    return (config, measure) if config else None


def chosen(cell: Cell, frame: pd.DataFrame, by: str | None) -> tuple[TrialConfig, str | None] | None:
    """Return a cell's chosen configuration and the measure that chose; the only one, and None, if nothing varies."""
    if not cell.varies():
        return cell.example(), None
    trials = frame[frame["cell"] == cell.label]
    measure = choose.chosen_by(trials, by)
    try:
        best = choose.best(trials, measure, per=())
    except UserError:  # none finished
        return None
    return config_of(best.iloc[0]), measure
