"""The command of final runs: chosen configurations again with fresh seeds, compared in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from degan_search.api import stored
from degan_search.cli.app import DataDir, console, shows_errors
from degan_search.cli.options import Given, run_options
from degan_search.cli.trial import change

if TYPE_CHECKING:
    from degan_search.settings.combine import Combine


@shows_errors
@run_options(without=("track", "keep", "budget", "price"))
def finals(
    run: Annotated[
        Path, typer.Argument(help="A run's folder or address; the new rows go there too.", parser=stored.networks)
    ],
    *,
    top: Annotated[int, typer.Option(help="How many configurations of each proxy (or of what --per says).")] = 1,
    per: Annotated[str, typer.Option(help="Choose within each proxy, or within each method or cell on it.")] = "proxy",
    seeds: Annotated[int, typer.Option(help="How many; such as no trial of this run had.")] = 5,
    by: Annotated[str | None, typer.Option(help="Criterion, or score; by default the best that the run has.")] = None,
    lengths: Annotated[
        str, typer.Option("--budget", help="as-is (as searched) or paper (the paper's lengths and rates).")
    ] = "as-is",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value over that: gan.steps=5000")] = None,
    baselines: Annotated[
        str | None,
        typer.Option(help="By comma, methods without weights; '' for none. By default those of the task."),
    ] = None,
    combine: Annotated[
        int | None, typer.Option(help="Also a student of so many of the best generators together; 0 for none. Else 4.")
    ] = None,
    balance: Annotated[
        bool | None, typer.Option("--balance/--no-balance", help="It sees as many images of each class. Else yes.")
    ] = None,
    share: Annotated[float | None, typer.Option(help="Of proxy images in its batches. Else 0.25.")] = None,
    early: Annotated[
        bool | None, typer.Option("--early/--no-early", help="Their half-trained states, too. Else yes.")
    ] = None,
    referee: Annotated[
        bool, typer.Option(help="Also the accuracy on the test images after each epoch; nothing is chosen by it.")
    ] = False,
    compare_only: Annotated[bool, typer.Option(help="Run nothing: compare the final runs that are there.")] = False,
    storage: Annotated[Path | None, typer.Option(help="Where the teacher is kept; beside the run.")] = None,
    data_dir: DataDir = None,
    given: Given,
) -> None:
    """Run a search's best configurations again with fresh seeds, beside baselines, and compare them in pairs.

    Where several compete for a proxy, those that cannot win stop after three seeds or more. Only final runs are
    measured on the test images. Writes finals.csv, finals.md and finals.json into the run.
    """
    from analysis.finals import compare, render, save
    from degan_search import ledger

    if not compare_only:
        from degan_search.search.finals.finals import finals as run_finals
        from degan_search.search.finals.lineup import Request
        from degan_search.selection.choose import grouping

        names = None if baselines is None else tuple(name.strip() for name in baselines.split(",") if name.strip())
        changes = {key: value for text in set_ or [] for key, value in change(text).items()}
        together, asked = _combine(combine, balance=balance, share=share, early=early), combine is not None
        request = Request(top, grouping(per), seeds, by, lengths, changes, names, together, asked, referee)
        # The run's whole path as its name, as it may lie outside the storage.
        options = given.options(storage=storage or run.resolve().parent, name=str(run.resolve()), data_dir=data_dir)
        run_finals(request, options, console)
    table = compare(ledger.load(run))
    save(table, run)
    console.print(render(table), highlight=False, markup=False, soft_wrap=True)
    console.print(f"Written: {run / 'finals.csv'}, {run / 'finals.md'}", highlight=False, soft_wrap=True)


def _combine(members: int | None, **manner: bool | float | None) -> Combine | None:
    """Return what --combine and its options ask for; None is its default."""
    from degan_search.settings.combine import Combine
    from degan_search.settings.resolve import parse

    given = {name: value for name, value in {"members": members, **manner}.items() if value is not None}
    return None if members == 0 else parse(Combine, given, "--combine")
