"""What all commands share: the app, its console, and how a fault is told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from degan_search.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Tune DeGAN: choose lambda_e, lambda_d and the proxy for distilling a classifier without its data.\n\n"
    "A trial trains a DeGAN on proxy images against a frozen teacher and distils a student from it. A sweep runs "
    "many under Ray Tune, with Optuna and early stopping, and keeps every result in Parquet.",
)
console = Console(soft_wrap=False)

DataDir = Annotated[
    Path | None,
    typer.Option(envvar="DATA_DIR", help="Folder of image sets, <name>/{train,test}.parquet; ./data by default."),
]
Runs = Annotated[list[Path], typer.Argument(help="One or more runs' folders.")]
Storage = Annotated[Path, typer.Option(help="Folder in which runs, teachers and comparison images are kept.")]


def speaks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a UserError, or what the disk refuses, into one line on stderr and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (UserError, OSError) as error:
            text = " ".join(str(error).splitlines())
            Console(stderr=True).print(f"[red]error:[/red] {escape(text)}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None

    return wrapped


def tell(text: str) -> None:
    """Print a line as it is: neither coloured nor cut."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
