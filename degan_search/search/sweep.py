"""The sweep: teacher, inputs, search, oracle accuracy, finals, table. From the start, or from where a run stands."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch
from ray import tune
from rich.console import Console

from analysis import choice, report, tables
from degan_search import evaluate, ledger, runtime
from degan_search.config import TrialConfig, stable_hash, trial_config
from degan_search.errors import IncompleteError, UserError
from degan_search.foreground import CACHE
from degan_search.records import Cause, Phase, config_of
from degan_search.search import checkpoints, jobs, keep, run_folder, study
from degan_search.search import space as spaces
from degan_search.search.asha import CellAsha, Rungs
from degan_search.search.cluster import fill, ray_cluster, slots, together
from degan_search.search.interrupt import Interruption
from degan_search.search.jobs import Job
from degan_search.search.options import Options
from degan_search.search.outbox import Outbox
from degan_search.search.prepare import prepare
from degan_search.search.recorder import Recorder, Rules
from degan_search.search.remote import Copy
from degan_search.search.searcher import CellSearcher, GivenJobs, Jobs, Past
from degan_search.search.track import tracking
from degan_search.search.trainable import DeganTrainable

RAY = "ray"
"""Folder of Tune's own files in a run: tracebacks of lost workers; nothing is read back from it."""
EVERYTHING = 2**62
"""Samples, for Tune: the searcher says when there are no more, as broken trials are tried again."""


@dataclass
class Run:
    """What the phases of a sweep share."""

    options: Options
    console: Console
    interruption: Interruption
    copy: Copy
    trackers: Sequence[tune.Callback] = ()
    faulty: dict[str, str] = field(default_factory=dict)
    """Trials that failed by a fault, and their reasons."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.options.folder


def sweep(space: spaces.Space, options: Options, console: Console) -> Path:
    """Run a sweep to its end and return its folder.

    Raises:
        UserError: anything wrong with the space, the data or the folder, before a trial starts.
        IncompleteError: at the end, trials that failed by a fault, or rows that could not be written.
        InterruptedRun: Ctrl-C or SIGTERM.
    """
    run_folder.check_name(options)
    check_slots(options)
    trackers = [tracking(options.track, options.folder, console)] if options.track else []
    run_folder.check_writable(options.storage, f"--storage {str(options.storage)!r}")
    with opened(options, console) as run:
        run.trackers = trackers
        run_folder.check_new(options.folder)
        run.copy.check_new()
        run_folder.start(space, options)
        try:
            carry_out(space, run)
        except UserError:
            run_folder.remove_if_empty(options.folder)
            raise
    return options.folder


def check_slots(options: Options) -> None:
    """Refuse trials that need more than this machine has; on a cluster, `ray_cluster` says so."""
    if not options.address:
        slots(options, {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()})


@contextmanager
def opened(options: Options, console: Console, command: str = "degan-search resume") -> Iterator[Run]:
    """Be the one process that writes the run; Ctrl-C and SIGTERM end it cleanly, and name the command to go on."""
    interruption = Interruption(f"nothing that ended is lost; go on with: {command} {options.where()}")
    with interruption.handled(), run_folder.writer(options.folder), Copy(options) as copy:
        yield Run(options, console, interruption, copy)


def carry_out(space: spaces.Space, run: Run, retry_failed: bool = False) -> None:
    """Do what of a sweep is not done yet: search, accuracies, finals, table.

    Raises: as `sweep`.
    """
    options, console, begun = run.options, run.console, time.monotonic()
    runtime.set_up_torch(options.cpus_per_trial)  # as in a trial, so that the teacher is the same
    cells = spaces.cells(space)
    with ExitStack() as stack:
        references: dict[str, Any] = {}
        run.copy.push_all()

        def phase(title: Phase, work: Jobs, total: int, rungs: Rungs | None) -> None:
            if not references:  # Ray is started, and images are loaded, where there is something to run
                stack.enter_context(ray_cluster(options, console, run.interruption.listen))
                inputs = prepare([config for cell in cells for config in cell.shared()], options, console)
                references.update({key: ray.put(value) for key, value in inputs.items()})
            run_phase(title, total, run, references, CellAsha(rungs), work)

        search, rungs = remaining_search(space, cells, run, retry_failed)
        if search.total:
            phase(Phase.SEARCH, search, search.total, rungs)
        if any(cell.trials() for cell in cells):
            score(run)
        if space.finals:
            given = remaining_finals(cells, space.finals, run, retry_failed)
            if given.total:
                phase(Phase.FINAL, given, given.total, None)
            score(run)
    by = space.finals.by if space.finals else None
    run.copy.delete(keep.needless(run.folder, ledger.load(run.folder), options.keep, by))
    conclude(run, begun)


def score(run: Run) -> None:
    """Fill in the accuracies of finished trials, whose networks may lie in the store alone."""
    try:
        run.copy.pull_trials()
    except OSError as error:
        raise IncompleteError(f"{error}; go on with: degan-search resume {run.options.where()}") from None
    evaluate.evaluate(run.folder, run.options.data_dir, run.options.storage / CACHE)


def conclude(run: Run, begun: float) -> None:
    """Print and write the table and the report, and say what is missing.

    Raises:
        IncompleteError: trials failed by a fault.
    """
    folder, console = run.folder, run.console
    tidy = tables.table(ledger.load(folder))
    console.print(tables.render(tidy, "text"), highlight=False, markup=False, soft_wrap=True)
    tables.save(tidy, folder)
    console.print(
        f"\nResults: {folder} ({(time.monotonic() - begun) / 60:.1f} min). Table again: degan-search table {folder}",
        highlight=False,
        soft_wrap=True,
    )
    page = report.write(folder, importances=study.importances(folder))
    console.print(f"Everything to look at: {page}", highlight=False, soft_wrap=True)
    if run.faulty:
        name, reason = next(iter(run.faulty.items()))
        raise IncompleteError(
            f"{len(run.faulty)} trials failed by a fault, such as {name} ({reason}); "
            f"`degan-search resume {run.options.where()} --retry-failed` tries them again"
        )


def remaining_search(
    space: spaces.Space, cells: list[spaces.Cell], run: Run, retry_failed: bool = False
) -> tuple[CellSearcher, Rungs | None]:
    """Return the searcher of the search trials that are still to run, and the rungs as they stand."""
    frame, curves = ledger.load(run.folder), ledger.curves(run.folder)
    known = read_jobs(run)
    unfinished = jobs.unfinished(known, frame, Phase.SEARCH, retry_failed)
    place = run.options.place()
    scores = {one["id"]: _rung_scores(checkpoints.load(place.at(one["id"]))) for one in unfinished}
    rungs = Rungs(space.asha.reduction_factor) if space.asha else None
    if rungs:
        waiting = {one["id"] for one in unfinished}
        rungs.fill(curves[~curves["trial_id"].isin(waiting)])
        for one in unfinished:
            for budget, value in scores[one["id"]].items():
                rungs.let_on(one["cell"], budget, value, one["id"])
    number = jobs.next_number(run.folder, known, frame, Phase.SEARCH)
    past = Past(frame, curves, unfinished, scores, number)
    return CellSearcher(cells, Outbox(), past), rungs


def _rung_scores(checkpoint: dict[str, Any] | None) -> dict[int, float]:
    reports = checkpoint["reports"] if checkpoint else ()
    return {one["budget"]: one["score"] for one in reports if "score" in one and one["score"] == one["score"]}


def remaining_finals(
    cells: list[spaces.Cell], finals: spaces.FinalsConfig, run: Run, retry_failed: bool = False
) -> GivenJobs:
    """Return the final runs that have no row yet; those that began keep their names, and so their checkpoints."""
    frame = ledger.load(run.folder)
    known = read_jobs(run)
    begun = {
        stable_hash(one["config"]): one for one in jobs.unfinished(known, frame, Phase.FINAL, failed_too=retry_failed)
    }
    again = {one["id"] for one in begun.values()}
    done = set(frame.loc[(frame["phase"] == Phase.FINAL) & ~frame["trial_id"].isin(again), "config_hash"])
    number = itertools.count(jobs.next_number(run.folder, known, frame, Phase.FINAL))
    left = []
    for wanted in final_jobs(cells, frame, finals):
        name = stable_hash(wanted["config"])
        if name in begun:
            left.append(begun[name])
        elif name not in done:
            fresh = next(number)
            left.append({**wanted, "number": fresh, "id": f"{Phase.FINAL}-{fresh:04d}"})
    return GivenJobs(left, Outbox())


def read_jobs(run: Run) -> dict[str, Job]:
    """Return the run's jobs; files that are broken are told of, and cost no more than their trial's checkpoints."""
    known, broken = jobs.read(run.folder)
    for file in broken:
        run.console.print(f"{file} is broken and is passed over", highlight=False, soft_wrap=True)
    return known


def final_jobs(cells: list[spaces.Cell], frame: pd.DataFrame, finals: spaces.FinalsConfig) -> list[Job]:
    """Return the final runs: each cell's chosen configuration with each seed.

    A cell whose trials all failed has none.
    """
    picked = [(cell, found) for cell in cells if (found := chosen(cell, frame, finals.by))]
    made: list[Job] = []
    for seed, (cell, (config, by)) in itertools.product(finals.seeds, picked):
        final = trial_config(config.model_dump(mode="json"), {"seed": seed, "probe.at": []})
        made.append(jobs.job(Phase.FINAL, len(made), cell.label, final.model_dump(mode="json"), by))
    return made


def chosen(cell: spaces.Cell, frame: pd.DataFrame, by: str | None) -> tuple[TrialConfig, str | None] | None:
    """Return a cell's chosen configuration and the measure that chose; the only one, and None, if nothing varies."""
    if not cell.varies():
        return cell.example(), None
    trials = frame[frame["cell"] == cell.label]
    measure = choice.chosen_by(trials, by)
    try:
        best = choice.best(trials, measure, per=())
    except UserError:  # none finished
        return None
    return config_of(best.iloc[0]), measure


def run_phase(
    phase: Phase,
    count: int,
    run: Run,
    references: dict[str, Any],
    scheduler: CellAsha,
    work: Jobs,
    name: str | None = None,
) -> None:
    """Run one phase under Ray Tune, writing each trial's row as it ends; `name`: of its folder under `ray/`.

    Raises:
        IncompleteError: rows that could not be written, or trial after trial failed.
        InterruptedRun: Ctrl-C or SIGTERM.
    """
    options = run.options
    with ThreadPoolExecutor(1) as janitor:

        def ended(trial_id: str, cause: str | None) -> None:
            if cause in (None, Cause.DIVERGED):  # others may be tried again, from where they were
                janitor.submit(checkpoints.clear, options.place().at(trial_id))

        rules = Rules(options.retries, options.time_limit, run.interruption, run.copy.push, ended)
        resources = ray.cluster_resources()
        work.together = partial(together, options)
        recorder = Recorder(run.folder, scheduler.reasons, work, rules, count, str(phase).capitalize(), run.console)
        trainable = tune.with_resources(
            tune.with_parameters(
                DeganTrainable,
                inputs=references,
                place=options.place(),
                threads=options.cpus_per_trial,
                pin=fill(options, resources),
                checkpoint_every=options.checkpoint_every,
                time_limit=options.time_limit,
            ),
            {"cpu": options.cpus_per_trial, "gpu": options.gpus_per_trial},
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=work,
                scheduler=scheduler,
                num_samples=EVERYTHING,
                max_concurrent_trials=slots(options, resources),
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=_fresh_name(run.folder / RAY, name or str(phase)),
                storage_path=str((run.folder / RAY).absolute()),
                callbacks=[recorder, *run.trackers],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        with recorder.bar, run.interruption.defer():
            try:
                tuner.fit()
            except UserError:
                raise
            except Exception as error:
                first = (str(error) or repr(error)).splitlines()[0]
                raise IncompleteError(
                    f"Ray stopped ({first}); go on with: degan-search resume {options.where()}"
                ) from error
            finally:
                unwritten = work.outbox.flush()
                run.faulty |= recorder.faulty
        run.interruption.raise_if_caught()
    missing = count - sum(recorder.ended.values())
    if unwritten or missing:
        raise IncompleteError(
            "; ".join([*unwritten, *([f"{missing} trials left no row"] if missing else [])])
            + f"; go on with: degan-search resume {options.where()}"
        )


def _fresh_name(folder: Path, name: str) -> str:
    """Return the name, with a number where an earlier driver has used it: Tune would mix the two."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(one for one in names if not (folder / one).exists())


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)
