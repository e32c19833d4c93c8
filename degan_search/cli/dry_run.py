"""What a sweep would do: its settings, cells, trials and time, without running any."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from degan_search.search.space.schema import Space


def describe(
    space: Space, max_concurrent: int | None, cpus_per_trial: int, data_dir: Path | None, time_budget: float | None
) -> None:
    """Print a space's settings, its cells, and how long a sweep of it would take here.

    Args:
        space: what to sweep.
        max_concurrent: trials at a time; None for as many as this machine's CPUs allow.
        cpus_per_trial: threads of a trial.
        data_dir: folder of image sets.
        time_budget: seconds for the whole sweep; None for no limit.

    Raises:
        UserError: missing data, or a time budget that the sweep would refuse.
    """
    from degan_search.search.planning import timed_steps
    from degan_search.search.planning.cost_model import duration
    from degan_search.search.planning.timed_steps import repeats_of
    from degan_search.search.space import check
    from degan_search.search.space import file as space_file
    from degan_search.search.space.cell import cells, fewer_points
    from degan_search.search.space.combined import combined_cells, combined_label
    from degan_search.system import cpus

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
            f"{cell.trials()} search trials, {_repeats(repeats_of(cell))}{finals} final runs\n"
        )
    combined = combined_cells(space)
    for cell in combined:
        sys.stdout.write(f"{combined_label(cell)}: best generators of {cell.label} together; {finals} final runs\n")
    sys.stdout.writelines(f"{line}\n" for line in fewer_points(all_cells))
    slots = max_concurrent or max(1, cpus.usable() // cpus_per_trial)
    repeats = sum(map(repeats_of, all_cells))
    search, final = sum(cell.trials() for cell in all_cells), finals * (len(all_cells) + len(combined))
    fewest, most = map(duration, timed_steps.sweep_seconds(space, slots, data_dir, "cpu", cpus_per_trial))
    span = fewest if fewest == most else f"{fewest} to {most}, as patience decides,"
    counted = f", {repeats} repeats and" if repeats else " and"
    sys.stdout.write(
        f"\n{search} search trials{counted} {final} final runs in {len(all_cells)} cells: about {span} "
        f"on {slots} slots of this machine's CPU if no trial stopped early (a few steps timed and scaled; the teacher "
        f"and reading images apart).\n"
    )
    if time_budget:
        sys.stdout.write(f"{_plan(space, slots, cpus_per_trial, data_dir, time_budget)}\n")


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
