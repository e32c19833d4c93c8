"""The command that asks a run's ledger in SQL."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from degan_search.cli.app import Runs, shows_errors
from degan_search.system.errors import UserError, visible

if TYPE_CHECKING:
    import pandas as pd

STYLES = ("text", "markdown", "csv", "json")


@shows_errors
def sql(
    runs: Runs,
    select: Annotated[str, typer.Argument(help="One SELECT statement, in DuckDB's SQL.")],
    style: Annotated[str, typer.Option(help=f"{', '.join(STYLES[:-1])} or {STYLES[-1]}.")] = STYLES[0],
) -> None:
    """Print what a SELECT gives over the tables trials, curves and scores; it changes nothing.

    trials has a row for each trial, curves one for each report, scores one for each trial with measured accuracies.
    Needs DuckDB: pip install 'degan-search[sql]'.
    """
    from degan_search.ledger.sql import query

    if style not in STYLES:
        raise UserError(f"--style {style!r} must be one of {', '.join(STYLES)}")
    sys.stdout.write(visible(_render(query(runs, select), style)))


def _render(table: pd.DataFrame, style: str) -> str:
    if style == "csv":
        from analysis.tables.styles import csv

        return csv(table)
    if style == "json":
        return str(table.to_json(orient="records", date_format="iso", indent=1)) + "\n"
    from tabulate import tabulate

    shown = table.astype(object).where(table.notna(), None)
    kind = "github" if style == "markdown" else "simple"
    text = tabulate(shown.to_dict("split")["data"], headers=[*map(str, table)], tablefmt=kind, floatfmt=".4g")
    return f"{text}\n"
