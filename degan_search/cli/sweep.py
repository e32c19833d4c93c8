"""Commands that run a sweep, go on with one, and list what there is to sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from degan_search.api import stored
from degan_search.api.sweeps import begin, from_earlier, go_on
from degan_search.cli.app import DataDir, console, shows_errors
from degan_search.cli.dry_run import describe
from degan_search.cli.options import Given, run_options


@shows_errors
@run_options()
def sweep(
    space: Annotated[str, typer.Argument(help="A shipped space (see `spaces`) or a path to your own .yaml file.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the run; the space's name by default.")] = None,
    storage: Annotated[
        str, typer.Option(help="Folder, or object store such as s3://bucket/runs, of runs, teachers and images.")
    ] = "runs",
    data_dir: DataDir = None,
    given: Given,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="An earlier run, whose best points are tried first; may be repeated.", parser=stored.rows
        ),
    ] = None,
    stop_when_flat: Annotated[
        bool, typer.Option(help="End the search of a cell once it has stopped getting better.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved settings, trials and time; run nothing.")] = False,
) -> None:
    """Search the weights for every cell of a space, run the finals, and print the table of proxies by methods.

    What is cut short goes on with `resume`.
    """
    from degan_search.search.space import file as space_file

    loaded = space_file.load(space)
    if stop_when_flat:
        search = loaded.search.model_copy(update={"stop_when_flat": True})
        loaded = loaded.model_copy(update={"search": search})
    name = name or Path(space).stem
    loaded = from_earlier(loaded, earlier or [], storage, name, console)
    if dry_run:
        describe(loaded, given.options(data_dir=data_dir), console)
        return
    begin(loaded, storage, name, data_dir, given.settings(), console)


@shows_errors
@run_options(resuming=True)
def resume(
    run: Annotated[str, typer.Argument(help="A run's folder, or s3://bucket/runs/name.")],
    *,
    trials: Annotated[int | None, typer.Option(min=1, help="Search trials of each cell in all, to add some.")] = None,
    space: Annotated[str | None, typer.Option(help="Another .yaml to go on with, by --allow-changed.")] = None,
    allow_changed: Annotated[bool, typer.Option(help="Go on with a space that was changed since.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Run trials again that failed by a fault.")] = False,
    data_dir: DataDir = None,
    given: Given,
) -> None:
    """Go on with a run that was cut short, or add trials to it; what is not said is done as it was begun.

    Finished trials stay; unfinished ones go on from their checkpoints. `space.yaml` in the run's folder may not have
    changed, unless --allow-changed.
    """
    go_on(run, given.settings(), data_dir, console, trials, space, allow_changed, retry_failed)


@shows_errors
def spaces() -> None:
    """List the space files that come with the package."""
    from degan_search.search.space import file as space_file

    for name in space_file.shipped():
        description = " ".join(space_file.load(name).description.split())
        console.print(f"{name:24s} {description}", highlight=False, soft_wrap=True)
