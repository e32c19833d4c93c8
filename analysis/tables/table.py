"""The paper's tables from finished trials, ours beside the paper's, for both tasks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.tables import distillation, incremental
from analysis.tables.styles import STYLES, csv
from degan_search.system.errors import UserError, close_matches
from degan_search.system.whole_files import write_bytes

PAPERS = {"table1": "distillation", "table2": "distillation", "table3": "incremental"}
"""The task of each of the paper's tables."""
DEFAULT = {"distillation": "table2", "incremental": "table3"}
"""The table with which a task's trials are compared by default."""


def table(frame: pd.DataFrame, paper: str | None = None) -> pd.DataFrame:
    """Return the table of the trials' task: `distillation.table`, or `incremental.table` (Table 3).

    Args:
        frame: from `ledger.load`.
        paper: one of PAPERS; None for the one that fits: Table 3; Table 1 where a method without
            proxy ran; else Table 2.

    Raises:
        UserError: an unknown table, or one of another task; trials of two tasks, or of several settings.
    """
    if paper is not None and paper not in PAPERS:
        raise UserError(f"the paper's table {paper!r} is unknown; {close_matches(paper, PAPERS)}")
    tasks = list(frame["config_task"].unique())
    if len(tasks) > 1:
        raise UserError(f"a table is of one task, but these trials are of {' and '.join(tasks)}: keep those of one")
    task = tasks[0] if tasks else PAPERS[paper or "table2"]
    if paper is None and task == "distillation" and frame["config_method"].isin(distillation.WITHOUT_PROXY).any():
        paper = "table1"  # only Table 1 has methods that use no proxy
    paper = paper or DEFAULT[task]
    if PAPERS[paper] != task:
        fitting = " or ".join(name for name, own in PAPERS.items() if own == task)
        raise UserError(f"{paper} is of the task {PAPERS[paper]!r}, but these trials are of {task!r}: {fitting} fits")
    return incremental.table(frame) if task == "incremental" else distillation.table(frame, paper)


def render(tidy: pd.DataFrame, style: str = "text") -> str:
    r"""Return a `table` for reading, or as csv with every column.

    `71.2 ± 0.8 (3)` is mean, sample standard deviation and number of seeds, in Table 3 of runs; a mark by
    `styles.STARRED` held-out images. Text lines have at most 120 characters; LaTeX is a `table` that needs
    \usepackage{booktabs}.

    Raises:
        UserError: a style that is not in STYLES.
    """
    if style not in STYLES:
        raise UserError(f"style {style!r} is unknown; {close_matches(style, STYLES)}")
    if tidy.empty:
        return csv(tidy) if style == "csv" else "No trials yet.\n"
    return STYLES[style]((incremental if is_incremental(tidy) else distillation).page(tidy))


def save(tidy: pd.DataFrame, folder: Path) -> None:
    """Write a `table` as `table.csv` (every column), `table.md`, `table.tex` and `table.png` (rows with trials).

    Raises:
        UserError: the folder cannot be written.
    """
    from analysis import figures  # matplotlib, which who only prints a table does without

    try:
        for ending, style in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
            write_bytes(folder / f"table.{ending}", render(tidy, style).encode())
        if len(shown := tidy[tidy["trials"] > 0]):
            figures.save(figures.methods_by_proxy(shown), folder / "table.png")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None


def is_incremental(tidy: pd.DataFrame) -> bool:
    """Return whether a `table` is Table 3."""
    return "orders" in tidy
