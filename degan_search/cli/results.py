"""Commands that read finished trials and run none."""

from __future__ import annotations

from typing import Annotated

import typer

from degan_search.cli.app import Runs, app, console, speaks
from degan_search.errors import UserError


@app.command()
@speaks
def table2(
    runs: Runs,
    paper: Annotated[str, typer.Option(help="Which of the paper's tables to set beside: table1 or table2.")] = "table2",
) -> None:
    """Print proxies by methods, ours beside the paper's, and write table2.csv, .md and .png into the run."""
    from analysis import table2 as tables
    from degan_search import ledger

    if paper not in ("table1", "table2"):
        raise UserError(f"--paper {paper!r} must be table1 or table2")
    tidy = tables.table2(ledger.load(runs if len(runs) > 1 else runs[0]), paper)  # type: ignore[arg-type]
    console.print(tables.render(tidy, "text"), highlight=False, markup=False, soft_wrap=True)
    tables.save(tidy, runs[0])


@app.command()
@speaks
def regret(runs: Runs) -> None:
    """Print what choosing the weights without true data cost, per proxy and criterion, as Markdown."""
    from analysis import choice
    from degan_search import ledger

    table = choice.regret(ledger.load(runs if len(runs) > 1 else runs[0]))
    for part in (table, choice.mean_regret(table)):
        console.print(choice.render(part), highlight=False, markup=False, soft_wrap=True)
