"""One phase of a sweep, search or finals, under Ray Tune."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from degan_search.evaluation import accuracy, referee
from degan_search.ledger.columns import Cause, Phase
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.open_run import Run
from degan_search.search.planning import timed_steps
from degan_search.search.planning.budget import TimeBudget
from degan_search.search.planning.cost_model import CostModel
from degan_search.search.run.jobs import Job
from degan_search.search.run.options import Options
from degan_search.search.suggest.asha import CellAsha
from degan_search.search.suggest.job_queue import GivenJobs, Jobs
from degan_search.search.workers import checkpoints, ray_patches
from degan_search.search.workers.slots import fill, slots, trials_per_process
from degan_search.search.workers.worker import DeganTrainable
from degan_search.storage.layout import CACHE
from degan_search.system.device import choose_device
from degan_search.system.errors import IncompleteError, UserError

RAY = "ray"
"""Folder of Tune's own files in a run, with tracebacks of lost workers; nothing is read from it later."""
NO_LIMIT = 2**62
"""Number of samples for Tune: the searcher says when there are no more, as some trials are tried again."""


@dataclass(frozen=True)
class Prepared:
    """What is made before the first trial and used in both phases."""

    references: Mapping[str, ray.ObjectRef]
    """References to inputs in Ray's store, by `inputs_key`."""
    cost: CostModel = field(default_factory=CostModel)
    """For the trials of all phases."""


def concurrent_trials(options: Options, work: Jobs, resources: Mapping[str, float]) -> int:
    """Return how many trials run at a time; of several in one process each counts."""
    fused = max((trials_per_process(options, config) for config in work.examples()), default=1)
    return slots(options, resources) * fused


def add_priors(jobs: Iterable[Job], options: Options, cost: CostModel) -> None:
    """Give the cost model a prior for each kind of job that it has none for, as those of `finals`."""
    device = choose_device(options.gpus_per_trial)
    for job in jobs:
        if job.kind not in cost.stretches.priors:
            cost.expect(job.kind, timed_steps.prior(job.config, options.data_dir, device, options.cpus_per_trial))


def test_images(jobs: Iterable[Job], options: Options) -> dict[str, ray.ObjectRef]:
    """Return references to the test images of the jobs that ask for a referee, by `referee_key`."""
    configs = [job.config for job in jobs if job.referee]
    found = referee.judged_images(configs, options.data_dir, options.storage / CACHE)
    return {key: ray.put(images) for key, images in found.items()}


def measure_accuracies(run: Run) -> None:
    """Measure the accuracies of finished trials, whose networks may be in the store only."""
    try:
        run.copy.pull_trials()
    except OSError as error:
        raise IncompleteError(f"{error}; go on with: {run.options.resume()}") from None
    accuracy.evaluate(run.folder, run.options.data_dir, run.options.storage / CACHE, run.console)


def run_phase(
    phase: Phase,
    run: Run,
    prepared: Prepared,
    scheduler: CellAsha,
    work: Jobs,
    time_budget: TimeBudget | None = None,
    name: str | None = None,
) -> None:
    """Run one phase under Ray Tune, writing each trial's row as it ends.

    Args:
        phase: search or finals.
        run: that the trials belong to.
        prepared: what they need.
        scheduler: stops some of them early.
        work: the jobs.
        time_budget: changes how many there are while they run; None: as many as `work` has.
        name: of the folder for Tune's files under `ray/`; None: the phase's.

    Raises:
        IncompleteError: rows that could not be written, or trial after trial failed.
        InterruptedRun: Ctrl-C or SIGTERM.
    """
    options, cost = run.options, prepared.cost
    cost.set_slots(concurrent_trials(options, work, ray.cluster_resources()))
    referees = {}
    if isinstance(work, GivenJobs):
        add_priors(work.given, options, cost)
        referees = test_images(work.given, options)
    with ThreadPoolExecutor(1) as janitor:

        def clear_checkpoints(trial_id: str, cause: str | None) -> None:
            if cause in (None, Cause.DIVERGED):  # after a fault the user may try the trial again
                janitor.submit(checkpoints.clear, options.place().at(trial_id))

        rules = _rules(run, time_budget, clear_checkpoints)
        title = str(phase).capitalize()
        recorder = Recorder(run.folder, scheduler.reasons, work, rules, work.total, title, run.console, cost)
        work.call_when_idle(recorder.check_sweep)
        cost.begin_phase(phase, time.monotonic())
        tuner = _tuner(run, prepared, referees, scheduler, work, [recorder, *run.trackers], name or str(phase))
        with recorder.bar, run.interruption.defer():
            try:
                tuner.fit()
            except UserError:
                raise
            except Exception as error:
                first = (str(error) or repr(error)).splitlines()[0]
                raise IncompleteError(f"Ray stopped ({first}); go on with: {options.resume()}") from error
            finally:
                unwritten = work.outbox.flush()
                run.faulty.update(recorder.patience.faulty)
        run.interruption.raise_if_caught()
    missing = recorder.bar.missing
    if unwritten or missing:
        raise IncompleteError(
            "; ".join([*unwritten, *([f"{missing} trials left no row"] if missing else [])])
            + f"; go on with: {options.resume()}"
        )


def _rules(run: Run, time_budget: TimeBudget | None, when_ended: Callable[[str, str | None], None]) -> Rules:
    options = run.options
    return Rules(
        options.retries,
        options.time_limit,
        run.interruption,
        run.copy.push,
        when_ended,
        time_budget,
        ray_patches.ask_workers_to_end,
        options.cpus_per_trial,
        options.gpus_per_trial,
    )


def _tuner(
    run: Run,
    prepared: Prepared,
    referees: Mapping[str, ray.ObjectRef],
    scheduler: CellAsha,
    work: Jobs,
    callbacks: list[tune.Callback],
    name: str,
) -> tune.Tuner:
    options, resources = run.options, ray.cluster_resources()
    trainable = tune.with_resources(
        tune.with_parameters(
            DeganTrainable,
            inputs=prepared.references,
            referees=referees,
            place=options.place(),
            threads=options.cpus_per_trial,
            pin=fill(options, resources),
            checkpoint_every=options.checkpoint_every,
            time_limit=options.time_limit,
        ),
        {"cpu": options.cpus_per_trial, "gpu": options.gpus_per_trial},
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=work,
            scheduler=scheduler,
            num_samples=NO_LIMIT,
            max_concurrent_trials=slots(options, resources),
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=_fresh_name(run.folder / RAY, name),
            storage_path=str((run.folder / RAY).absolute()),
            callbacks=callbacks,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
            progress_reporter=tune.CLIReporter(),  # Tune's own for notebooks clears the cell's output, even so
        ),
    )


def _fresh_name(folder: Path, name: str) -> str:
    """Return the name, with a number if an earlier driver has used it: Tune would mix their files."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(fresh for fresh in names if not (folder / fresh).exists())


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)
