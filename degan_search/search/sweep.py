"""The sweep: teacher, inputs, search, oracle accuracy, finals. From the start, or from where a run stands."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch
from ray import tune
from rich.console import Console

from degan_search import evaluate, ledger, runtime
from degan_search.config import TrialConfig, stable_hash, trial_config
from degan_search.errors import IncompleteError, UserError
from degan_search.foreground import CACHE
from degan_search.records import Cause, Phase, config_of
from degan_search.search import checkpoints, estimate, jobs, keep, run_folder
from degan_search.search import space as spaces
from degan_search.search.asha import CellAsha, Rungs
from degan_search.search.cluster import fill, ray_cluster, slots, together
from degan_search.search.cost import FEWEST, Budget, CostModel
from degan_search.search.interrupt import Interruption
from degan_search.search.jobs import Job
from degan_search.search.options import Options
from degan_search.search.outbox import Outbox
from degan_search.search.prepare import prepare
from degan_search.search.recorder import Recorder, Rules
from degan_search.search.remote import Copy
from degan_search.search.results import Curve
from degan_search.search.searcher import CellSearcher, GivenJobs, Jobs, Past
from degan_search.search.track import tracking
from degan_search.search.trainable import DeganTrainable
from degan_search.selection import choose

RAY = "ray"
"""Folder of Tune's own files in a run: tracebacks of lost workers; nothing is read back from it."""
EVERYTHING = 2**62
"""Samples, for Tune: the searcher says when there are no more, as broken trials are tried again."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Prepared:
    """What is made before the trials of a phase can run."""

    references: Mapping[str, ray.ObjectRef]
    """Of inputs in Ray's store, by `inputs_key`."""
    cost: CostModel = field(default_factory=CostModel)
    """Of all phases."""
    budget: Budget | None = None
    """Of search trials."""


Conclude = Callable[[Run, float], None]
"""What is made of a run once its trials have ended, before it is closed and sent to its store: tables and a page. Takes
the run, and when this process began with it in seconds of `time.monotonic`."""


def sweep(space: spaces.Space, options: Options, console: Console, conclude: Conclude | None = None) -> Path:
    """Run a sweep to its end, conclude it, and return its folder.

    Raises:
        UserError: anything wrong with the space, the data or the folder, before a trial starts.
        IncompleteError: at the end, trials that failed by a fault, or rows that could not be written.
        InterruptedRun: Ctrl-C or SIGTERM.
    """
    run_folder.check_name(options)
    check_slots(options)
    if options.budget is not None:
        spaces.check_budget(space)
        options = replace(options, budget_begun=time.time())
    trackers = [tracking(options.track, options.folder, console)] if options.track else []
    run_folder.check_writable(options.storage, f"--storage {str(options.storage)!r}")
    with opened(options, console, trackers=trackers) as run:
        run_folder.check_new(options.folder)
        run.copy.check_new()
        run_folder.start(space, options)
        try:
            carry_out(space, run, conclude)
        except UserError:
            run_folder.remove_if_empty(options.folder)
            raise
    return options.folder


def check_slots(options: Options) -> None:
    """Refuse trials that need more than this machine has; on a cluster, `ray_cluster` says so."""
    if not options.address:
        slots(options, here())


def here() -> dict[str, float]:
    """Return this machine's resources as Ray names them."""
    return {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}


@contextmanager
def opened(
    options: Options,
    console: Console,
    command: str = "degan-search resume",
    trackers: Sequence[tune.Callback] = (),
) -> Iterator[Run]:
    """Be the one process that writes the run; Ctrl-C and SIGTERM end it cleanly, and name the command to go on."""
    interruption = Interruption(f"nothing that ended is lost; go on with: {command} {options.where()}")
    with interruption.handled(), run_folder.writer(options.folder), Copy(options) as copy:
        yield Run(options, console, interruption, copy, trackers)


def carry_out(space: spaces.Space, run: Run, conclude: Conclude | None = None, retry_failed: bool = False) -> None:
    """Do what of a sweep is not done yet: search, accuracies, finals, and what `conclude` makes of them.

    Raises: as `sweep`.
    """
    options, console, begun = run.options, run.console, time.monotonic()
    runtime.set_up_torch(options.cpus_per_trial)  # as in a trial, so that the teacher is the same
    cells = spaces.cells(space)
    with ExitStack() as stack:
        run.copy.push_all()
        search, rungs = remaining_search(space, cells, run, retry_failed)
        if options.budget is not None:
            search.set_trials(0)  # the unfinished alone, until it is planned

        def start() -> Prepared:
            """Start Ray and load images, as there is something to run."""
            cost, budget = foresee(space, search, run, begun)
            stack.enter_context(ray_cluster(options, console, run.interruption.listen))
            cost.run_at_a_time(at_a_time(options, search, ray.cluster_resources()))
            if budget:
                budget.check(time.monotonic())
            inputs = prepare([config for cell in cells for config in cell.shared()], options, console)
            references = {key: ray.put(value) for key, value in inputs.items()}
            if budget:
                console.print(budget.plan(time.monotonic()), highlight=False, soft_wrap=True)
            return Prepared(references, cost, budget)

        prepared = start() if search.total or options.budget else None
        if prepared and search.total:
            run_phase(Phase.SEARCH, run, prepared, CellAsha(rungs), search)
        if any(cell.trials() for cell in cells):
            score(run)
        if space.finals:
            given = remaining_finals(cells, space.finals, run, retry_failed)
            if given.total:
                prepared = prepared or start()
                prepared.cost.begin_last_phase()
                run_phase(Phase.FINAL, run, replace(prepared, budget=None), CellAsha(None), given)
            score(run)
    by = space.finals.by if space.finals else None
    run.copy.delete(keep.needless(run.folder, ledger.load(run.folder), options.keep, by))
    if conclude:
        conclude(run, begun)
    if run.faulty:
        name, reason = next(iter(run.faulty.items()))
        raise IncompleteError(
            f"{len(run.faulty)} trials failed by a fault, such as {name} ({reason}); "
            f"`degan-search resume {run.options.where()} --retry-failed` tries them again"
        )


def foresee(space: spaces.Space, search: CellSearcher, run: Run, begun: float) -> tuple[CostModel, Budget | None]:
    """Return the cost model of what is to come, from timed steps and the ledger, and the budget if there is one.

    Raises:
        UserError: a budget that is too short, where it is this machine that runs the trials.
    """
    options, frame = run.options, ledger.load(run.folder)
    device = runtime.choose_device(options.gpus_per_trial)
    cost = estimate.cost_model(space, options.data_dir, device, options.cpus_per_trial)
    cost.remember(frame, ledger.curves(run.folder))
    if not options.budget:
        return cost, None
    budget = Budget(cost, search, options.budget, begun, max(FEWEST, len(space.first)))
    if not options.address:
        cost.run_at_a_time(at_a_time(options, search, here()))
        budget.check(time.monotonic())
    return cost, budget


def at_a_time(options: Options, work: Jobs, resources: Mapping[str, float]) -> int:
    """Return how many trials run at a time, those of one process counted each."""
    fused = max((together(options, config) for config in work.examples()), default=1)
    return slots(options, resources) * fused


def expect(given: Iterable[Job], options: Options, cost: CostModel) -> None:
    """Tell the cost model of jobs that are no cell's example: those of `finals`."""
    device = runtime.choose_device(options.gpus_per_trial)
    for one in given:
        if one.kind not in cost.priors:
            cost.expect(one.kind, estimate.prior(one.config, options.data_dir, device, options.cpus_per_trial))


def score(run: Run) -> None:
    """Fill in the accuracies of finished trials, whose networks may lie in the store alone."""
    try:
        run.copy.pull_trials()
    except OSError as error:
        raise IncompleteError(f"{error}; go on with: degan-search resume {run.options.where()}") from None
    evaluate.evaluate(run.folder, run.options.data_dir, run.options.storage / CACHE)


def remaining_search(
    space: spaces.Space, cells: list[spaces.Cell], run: Run, retry_failed: bool = False
) -> tuple[CellSearcher, Rungs | None]:
    """Return the searcher of the search trials that are still to run, and the rungs as they stand."""
    frame, curves = ledger.load(run.folder), ledger.curves(run.folder)
    known = read_jobs(run)
    unfinished = jobs.unfinished(known, frame, Phase.SEARCH, retry_failed)
    place = run.options.place()
    scores = {one.id: _rung_scores(checkpoints.load(place.at(one.id))) for one in unfinished}
    rungs = Rungs(space.asha.reduction_factor) if space.asha else None
    if rungs:
        waiting = {one.id for one in unfinished}
        rungs.fill(curves[~curves["trial_id"].isin(waiting)])
        for one in unfinished:
            for budget, value in scores[one.id].items():
                rungs.let_on(one.cell, budget, value, one.id)
    number = jobs.next_number(run.folder, known, frame, Phase.SEARCH)
    past = Past(frame, curves, unfinished, scores, number)
    return CellSearcher(cells, Outbox(), past, partial(together, run.options)), rungs


def _rung_scores(checkpoint: dict[str, Any] | None) -> dict[int, float]:
    with suppress(UserError):  # of another version: the trial begins anew
        return Curve.of(checkpoint["reports"] if checkpoint else ()).scores()
    return {}


def remaining_finals(
    cells: list[spaces.Cell], finals: spaces.FinalsConfig, run: Run, retry_failed: bool = False
) -> GivenJobs:
    """Return the final runs that have no row yet; those that began keep their names, and so their checkpoints."""
    frame = ledger.load(run.folder)
    known = read_jobs(run)
    begun = {
        stable_hash(one.config): one for one in jobs.unfinished(known, frame, Phase.FINAL, failed_too=retry_failed)
    }
    again = {one.id for one in begun.values()}
    done = set(frame.loc[(frame["phase"] == Phase.FINAL) & ~frame["trial_id"].isin(again), "config_hash"])
    number = itertools.count(jobs.next_number(run.folder, known, frame, Phase.FINAL))
    left = []
    for wanted in final_jobs(cells, frame, finals):
        name = stable_hash(wanted.config)
        if name in begun:
            left.append(begun[name])
        elif name not in done:
            left.append(jobs.job(Phase.FINAL, next(number), wanted.cell, wanted.config, wanted.chosen_by))
    return GivenJobs(left, Outbox(), partial(together, run.options))


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
        made.append(jobs.job(Phase.FINAL, len(made), cell.label, final, by))
    return made


def chosen(cell: spaces.Cell, frame: pd.DataFrame, by: str | None) -> tuple[TrialConfig, str | None] | None:
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


def run_phase(
    phase: Phase, run: Run, prepared: Prepared, scheduler: CellAsha, work: Jobs, name: str | None = None
) -> None:
    """Run one phase under Ray Tune, writing each trial's row as it ends; `name`: of its folder under `ray/`.

    Raises:
        IncompleteError: rows that could not be written, or trial after trial failed.
        InterruptedRun: Ctrl-C or SIGTERM.
    """
    options, cost = run.options, prepared.cost
    cost.run_at_a_time(at_a_time(options, work, ray.cluster_resources()))
    if isinstance(work, GivenJobs):
        expect(work.given, options, cost)
    with ThreadPoolExecutor(1) as janitor:

        def ended(trial_id: str, cause: str | None) -> None:
            if cause in (None, Cause.DIVERGED):  # others may be tried again, from where they were
                janitor.submit(checkpoints.clear, options.place().at(trial_id))

        rules = Rules(options.retries, options.time_limit, run.interruption, run.copy.push, ended, prepared.budget)
        title = str(phase).capitalize()
        recorder = Recorder(run.folder, scheduler.reasons, work, rules, work.total, title, run.console, cost)
        work.when_idle(recorder.look)
        tuner = _tuner(run, prepared, scheduler, work, [recorder, *run.trackers], name or str(phase))
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
                run.faulty.update(recorder.patience.faulty)
        run.interruption.raise_if_caught()
    missing = recorder.bar.missing
    if unwritten or missing:
        raise IncompleteError(
            "; ".join([*unwritten, *([f"{missing} trials left no row"] if missing else [])])
            + f"; go on with: degan-search resume {options.where()}"
        )


def _tuner(
    run: Run, prepared: Prepared, scheduler: CellAsha, work: Jobs, callbacks: list[tune.Callback], name: str
) -> tune.Tuner:
    options, resources = run.options, ray.cluster_resources()
    trainable = tune.with_resources(
        tune.with_parameters(
            DeganTrainable,
            inputs=prepared.references,
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
            num_samples=EVERYTHING,
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
        ),
    )


def _fresh_name(folder: Path, name: str) -> str:
    """Return the name, with a number where an earlier driver has used it: Tune would mix the two."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(one for one in names if not (folder / one).exists())


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)
