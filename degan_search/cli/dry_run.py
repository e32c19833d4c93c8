"""What a sweep would do: its settings, cells, trials and time, without running any."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from degan_search.search.run.options import Options
    from degan_search.search.space.schema import Space


def describe(space: Space, options: Options, console: Console) -> None:
    """Print a space's settings, its cells, and how long a sweep of it would take here.

    Raises:
        UserError: missing data, or a budget that the sweep would refuse.
    """
    from degan_search.search.planning import timed_steps
    from degan_search.search.planning.cost_model import UNTIMED, span
    from degan_search.search.planning.step_time import BUSY, share_of_cpu
    from degan_search.search.planning.timed_steps import repeats_of
    from degan_search.search.space import check
    from degan_search.search.space import file as space_file
    from degan_search.search.space.cell import cells, fewer_points
    from degan_search.search.space.combined import combined_cells, combined_label
    from degan_search.system import cpus

    data_dir, threads = options.data_dir, options.cpus_per_trial
    check.check_numbers(space, data_dir)
    all_cells = cells(space)
    finals = len(space.finals.seeds) if space.finals else 0
    sys.stdout.write(space_file.dump(space))
    sys.stdout.write("\n# every cell, with the settings that differ from the paper's defaults\n")
    for cell in all_cells:
        example = cell.example()
        networks = f"{example.teacher.network} -> {example.student.network}"
        varies = ", ".join(cell.varies()) or "nothing"
        sys.stdout.write(
            f"{cell.label}: true {example.teacher.dataset or 'none'}, proxy {', '.join(cell.proxies)}, "
            f"method {example.method}, {networks}; varies {varies}; "
            f"{cell.trials()} search trials, {_repeats(repeats_of(cell, cell.trials()))}{finals} final runs\n"
        )
    combined = combined_cells(space)
    for cell in combined:
        sys.stdout.write(f"{combined_label(cell)}: best generators of {cell.label} together; {finals} final runs\n")
    sys.stdout.writelines(f"{line}\n" for line in fewer_points(all_cells))
    slots = options.max_concurrent or max(1, cpus.usable() // threads)
    repeats = sum(repeats_of(cell, cell.trials()) for cell in all_cells)
    search, final = sum(cell.trials() for cell in all_cells), finals * (len(all_cells) + len(combined))
    fewest, most = timed_steps.sweep_seconds(space, slots, data_dir, "cpu", threads)
    share = share_of_cpu(threads)
    why = ", as patience decides," if fewest < most else ""
    counted = f", {repeats} repeats and" if repeats else " and"
    sys.stdout.write(
        f"\n{search} search trials{counted} {final} final runs in {len(all_cells)} cells: about "
        f"{span(fewest * share * (1 - UNTIMED), most * (1 + UNTIMED))}{why} "
        f"on {slots} slots of this machine's CPU if no trial stopped early (a few steps timed and scaled; the teacher "
        f"and reading images apart).\n"
    )
    if share < BUSY:
        sys.stdout.write(
            f"Other programs are running: the timed steps had {share:.0%} of a CPU. The shorter time is without them.\n"
        )
    if options.spend:
        from degan_search.search.planning.money import with_time

        options = with_time(options, console)
    if options.budget:
        sys.stdout.write(f"{_plan(space, slots, threads, data_dir, options.budget)}\n")


def _repeats(count: int) -> str:
    """Return how many repeats there are, as a part of a list; "" for none."""
    return f"{count} repeats, " if count else ""


def _plan(space: Space, slots: int, cpus_per_trial: int, data_dir: Path | None, time_budget: float) -> str:
    """Return how many trials a sweep with this time budget would run, as text.

    Raises:
        UserError: the sweep would refuse the time budget.
    """
    from degan_search.search.planning import timed_steps
    from degan_search.search.planning.budget import FEWEST, TimeBudget
    from degan_search.search.space import check
    from degan_search.search.space.cell import cells
    from degan_search.search.suggest.cell_searcher import CellSearcher

    check.check_budget(space)
    model = timed_steps.cost_model(space, data_dir, threads=cpus_per_trial)
    model.set_slots(slots)
    search = CellSearcher(cells(space))
    plan = TimeBudget(model, search, time_budget, 0.0, max(FEWEST, len(space.first)))
    plan.check(0.0)
    return plan.plan(0.0)
