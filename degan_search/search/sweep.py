"""The sweep: teacher, inputs, search, accuracies, repeats, finals. From the start, or from where a run stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import ray
from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import Phase
from degan_search.networks.named import networks_named
from degan_search.search.callbacks.trackers import tracking
from degan_search.search.open_run import Run, check_slots, here, open_run
from degan_search.search.phase import Prepared, concurrent_trials, measure_accuracies, run_phase
from degan_search.search.planning import timed_steps
from degan_search.search.planning.budget import FEWEST, TimeBudget
from degan_search.search.planning.cost_model import CostModel, remember
from degan_search.search.planning.money import with_time
from degan_search.search.prepare import prepare
from degan_search.search.remaining import remaining_finals, remaining_repeats, remaining_search
from degan_search.search.run import folder as run_folder
from degan_search.search.run import keep
from degan_search.search.run.options import Options
from degan_search.search.space.cell import cells, fewer_points, shared_configs
from degan_search.search.space.check import check_budget, check_numbers
from degan_search.search.space.schema import Space
from degan_search.search.suggest.asha import CellAsha
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.search.workers.cluster import ray_cluster
from degan_search.system.device import choose_device, set_up_torch
from degan_search.system.errors import IncompleteError
from degan_search.trial import named_files

Conclude = Callable[[Run, float], None]
"""Writes tables and a page once the trials have ended, before the run is closed and sent to its store. Takes the run,
and when this process began with it in seconds of `time.monotonic`."""


def sweep(space: Space, options: Options, console: Console, conclude: Conclude | None = None) -> Path:
    """Run a sweep to its end, conclude it, and return its folder.

    Raises:
        UserError: anything wrong with the space, the data or the folder, before a trial starts.
        IncompleteError: at the end, trials that failed by a fault, or rows that could not be written.
        InterruptedRun: Ctrl-C or SIGTERM.
    """
    run_folder.check_name(options)
    check_slots(options)
    options = with_time(options, console)
    if options.budget is not None:
        check_budget(space)
        options = replace(options, budget_begun=time.time())
    trackers = [tracking(options.track, options.folder, console)] if options.track else []
    space = run_folder.with_whole_paths(space)
    check_numbers(space, options.data_dir)
    run_folder.check_writable(options.storage, f"--storage {str(options.storage)!r}")
    files = named_files.fingerprints(shared_configs(space), options.data_dir)
    with open_run(options, console, trackers=trackers) as run:
        run_folder.check_new(options.folder)
        run.copy.check_new()
        run_folder.start(space, options, files)
        try:
            carry_out(space, run, conclude)
        except Exception:
            run_folder.remove_if_empty(options.folder)
            raise
    return options.folder


def carry_out(space: Space, run: Run, conclude: Conclude | None = None, retry_failed: bool = False) -> None:
    """Do the parts of a sweep that are not done yet: search, accuracies, repeats, finals, and then `conclude`.

    Raises: as `sweep`.
    """
    options, console, begun = run.options, run.console, time.monotonic()
    set_up_torch(options.cpus_per_trial)  # as in a trial, so that the teacher is the same
    all_cells = cells(space)
    with ExitStack() as stack:
        run.copy.push_all()
        search, rungs = remaining_search(space, all_cells, run, retry_failed)
        for line in [*(fewer_points(all_cells) if options.budget is None else ()), *search.flat.lines()]:
            console.print(line, highlight=False, soft_wrap=True)
        if options.budget is not None:
            search.set_trials(0)  # only unfinished trials, until the budget is planned

        def start() -> tuple[Prepared, TimeBudget | None]:
            """Start Ray and load images; called once there is something to run."""
            cost, budget = predict_costs(space, search, run, begun)
            stack.enter_context(
                ray_cluster(options, console, run.interruption.listen, networks_named(space.model_dump(by_alias=True)))
            )
            cost.set_slots(concurrent_trials(options, search, ray.cluster_resources()))
            if budget:
                budget.check(time.monotonic())
            inputs = prepare(shared_configs(space), options, console)
            teachers = [one.teacher for one in inputs.values()]
            run_folder.add_class_names(run.folder, {teacher.hash: teacher.class_names for teacher in teachers})
            references = {key: ray.put(value) for key, value in inputs.items()}
            if budget:
                console.print(budget.plan(time.monotonic()), highlight=False, soft_wrap=True)
            return Prepared(references, cost), budget

        prepared: Prepared | None = None
        if search.total or options.budget:
            prepared, budget = start()
            if search.total:
                run_phase(Phase.SEARCH, run, prepared, CellAsha(rungs), search, budget)
        if any(cell.trials() for cell in all_cells):
            measure_accuracies(run)

        def run_after(phase: Phase, work: GivenJobs) -> None:
            nonlocal prepared
            if work.total:
                prepared = prepared or start()[0]
                run_phase(phase, run, prepared, CellAsha(None), work)
            measure_accuracies(run)

        if space.search.repeats:
            run_after(Phase.REPEAT, remaining_repeats(space, all_cells, run, retry_failed))
        if space.finals:
            run_after(Phase.FINAL, remaining_finals(all_cells, space.finals, run, retry_failed))
    by = space.finals.by if space.finals else None
    run.copy.delete(keep.needless(run.folder, ledger.load(run.folder), options.keep, by))
    if conclude:
        conclude(run, begun)
    _raise_if_faulty(run)


def _raise_if_faulty(run: Run) -> None:
    if run.faulty:
        name, reason = next(iter(run.faulty.items()))
        raise IncompleteError(
            f"{len(run.faulty)} trials failed by a fault, such as {name} ({reason}); "
            f"`{run.options.resume('--retry-failed')}` tries them again"
        )


def predict_costs(space: Space, search: CellSearcher, run: Run, begun: float) -> tuple[CostModel, TimeBudget | None]:
    """Return the cost model of the trials to come, from timed steps and the ledger, and the time budget if any.

    Raises:
        UserError: the time budget is too short; on a cluster, whose size is not known yet, `carry_out` checks it.
    """
    options, frame = run.options, ledger.load(run.folder)
    device = choose_device(options.gpus_per_trial)
    cost = timed_steps.cost_model(space, options.data_dir, device, options.cpus_per_trial)
    remember(cost, frame, ledger.curves(run.folder))
    if not options.budget:
        return cost, None
    budget = TimeBudget(cost, search, options.budget, begun, max(FEWEST, len(space.first)))
    if not options.address:
        cost.set_slots(concurrent_trials(options, search, here()))
        budget.check(time.monotonic())
    return cost, budget
