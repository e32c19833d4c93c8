"""What a sweep ends with: the table of proxies by methods, and the report page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from degan_search.selection.asked import asked
from degan_search.system.errors import UserError, command

if TYPE_CHECKING:
    import pandas as pd

    from degan_search.search.open_run import Run


def conclude(run: Run, begun: float) -> None:
    """Print and write the table and the report of a run whose trials have ended.

    Args:
        run: still open, so that what is written also goes to its store.
        begun: when this process began the run, in seconds of `time.monotonic`.
    """
    from analysis.tables import table
    from analysis.tables.front import render_front
    from degan_search import ledger

    folder, console = run.folder, run.console
    frame = ledger.load(folder)
    tidy = table.table(frame)
    table.save(tidy, folder)
    page = write_report(folder)  # all is written before anything is printed
    shown = table.render(tidy, "text") + render_front(frame, [folder])
    console.print(shown, highlight=False, markup=False, soft_wrap=True)
    for line in flat_cells(folder, frame):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"\nResults: {folder} ({(time.monotonic() - begun) / 60:.1f} min). Table again: {command('table', folder)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Everything to look at: {page}", highlight=False, soft_wrap=True)


def flat_cells(run: Path, frame: pd.DataFrame) -> list[str]:
    """Return a line for each cell of a run whose search ended as it was flat; none if its space cannot be read.

    `frame` is the run's, from `ledger.load`.
    """
    if asked(run, "stop_when_flat") is not True:
        return []
    # Optuna and torch come with the space, and few tables need it.
    from degan_search.ledger.columns import Phase
    from degan_search.search.run import jobs
    from degan_search.search.space import file as space_file
    from degan_search.search.space.cell import cells
    from degan_search.search.suggest.flat_cells import FlatCells

    space = space_file.of_run(run)
    unfinished = jobs.unfinished(jobs.read(run)[0], frame, Phase.SEARCH)
    searched = frame[frame["phase"] == Phase.SEARCH]
    return FlatCells({cell.label: cell for cell in cells(space)}, searched, unfinished).lines()


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report page of a run, finished or not, and return its path; arguments and errors of `report.write`."""
    from analysis import report

    return report.write(run, out, importances_of(run))


def importances_of(run: Path) -> pd.DataFrame | None:
    """Return the importances of a run's settings; None where its space file cannot be read."""
    from degan_search.search.suggest.studies import importances

    try:
        return importances(run)
    except UserError:
        return None
