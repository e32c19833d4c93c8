"""What a sweep would do: its settings, cells, trials and time, without running any."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from degan_search.search.space.schema import Space


def describe(
    loaded: Space, max_concurrent: int | None, cpus_per_trial: int, data_dir: Path | None, budget: float | None
) -> None:
    """Print a space's settings, its cells, and how long a sweep of it would take here.

    Args:
        loaded: the space.
        max_concurrent: trials at a time; None: as many as this machine's CPUs take.
        cpus_per_trial: threads of a trial.
        data_dir: folder of image sets.
        budget: seconds for all of it, if it has any.

    Raises:
        UserError: data that are not there, or a budget that would be refused.
    """
    import os

    from degan_search.search.planning import timed_steps
    from degan_search.search.planning.cost_model import duration
    from degan_search.search.space import cell as spaces_
    from degan_search.search.space import file as space_file

    cells = spaces_.cells(loaded)
    finals = len(loaded.finals.seeds) if loaded.finals else 0
    sys.stdout.write(space_file.dump(loaded))
    sys.stdout.write("\n# every cell, with the settings that differ from the paper's defaults\n")
    for cell in cells:
        example = cell.example()
        networks = f"{example.teacher.network} -> {example.student.network}"
        varies = ", ".join(cell.varies()) or "nothing"
        sys.stdout.write(
            f"{cell.label}: true {example.teacher.dataset}, proxy {', '.join(cell.proxies())}, "
            f"method {example.method}, {networks}; varies {varies}; "
            f"{cell.trials()} search trials, {finals} final runs\n"
        )
    slots = max_concurrent or max(1, (os.cpu_count() or 1) // cpus_per_trial)
    search = sum(cell.trials() for cell in cells)
    fewest, most = map(duration, timed_steps.sweep_seconds(loaded, slots, data_dir, "cpu", cpus_per_trial))
    span = fewest if fewest == most else f"{fewest} to {most}, as patience decides,"
    sys.stdout.write(
        f"\n{search} search trials and {finals * len(cells)} final runs in {len(cells)} cells: about {span} on "
        f"{slots} slots of this machine's CPU if no trial stopped early (a few steps timed and scaled; the teacher "
        f"and reading images apart).\n"
    )
    if budget:
        sys.stdout.write(f"{_plan(loaded, slots, cpus_per_trial, data_dir, budget)}\n")


def _plan(loaded: Space, slots: int, cpus_per_trial: int, data_dir: Path | None, budget: float) -> str:
    """Return what a sweep with this budget would try.

    Raises:
        UserError: it would be refused.
    """
    from degan_search.search.planning import timed_steps
    from degan_search.search.planning.budget import FEWEST, TimeBudget
    from degan_search.search.space import cell as spaces_
    from degan_search.search.space import check
    from degan_search.search.suggest.cell_searcher import CellSearcher

    check.check_budget(loaded)
    model = timed_steps.cost_model(loaded, data_dir, threads=cpus_per_trial)
    model.set_slots(slots)
    search = CellSearcher(spaces_.cells(loaded))
    found = TimeBudget(model, search, budget, 0.0, max(FEWEST, len(loaded.first)))
    found.check(0.0)
    return found.plan(0.0)
