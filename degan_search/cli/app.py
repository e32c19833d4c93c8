"""What all commands share: the app, its console, and how a fault is told."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from degan_search.cli import stored
from degan_search.system.errors import BrokenFileWarning, InterruptedRun, UserError, visible

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Tune DeGAN: choose lambda_e, lambda_d and the proxy for distilling a classifier without its data.\n\n"
    "A trial trains a DeGAN on proxy images against a frozen teacher and distils a student from it. A sweep runs "
    "many under Ray Tune, with Optuna and early stopping, and keeps every result in Parquet.",
)


class PlainConsole(Console):
    """Prints text as it is, brackets and all: names and reasons may be somebody else's, and style nothing."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, with control characters written out."""
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **options)


console = PlainConsole(soft_wrap=False, markup=False, emoji=False)

DataDir = Annotated[
    Path | None,
    typer.Option(envvar="DATA_DIR", help="Folder of image sets, <name>/{train,test}.parquet; ./data by default."),
]
_RUN = "A run's folder, or its address, s3://bucket/runs/x."
_RUNS = "One or more runs' folders or addresses, s3://bucket/runs/x."
Run = Annotated[Path, typer.Argument(help=_RUN, parser=stored.rows)]
RunWithSamples = Annotated[Path, typer.Argument(help=_RUN, parser=stored.samples)]
RunWithNetworks = Annotated[Path, typer.Argument(help=_RUN, parser=stored.networks)]
Runs = Annotated[list[Path], typer.Argument(help=_RUNS, parser=stored.rows)]
RunsWithNetworks = Annotated[list[Path], typer.Argument(help=_RUNS, parser=stored.networks)]
Storage = Annotated[Path, typer.Option(help="Folder in which runs, teachers and comparison images are kept.")]


def speaks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a UserError, what the disk refuses, or an interruption into one line on stderr and an exit code.

    A run that is in a store is in a folder here by the time the command sees it.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with _broken_files_told(), stored.local(kwargs) as given:
                return command(*args, **given)
        except (UserError, OSError) as error:
            _complain("error", str(error))
            raise typer.Exit(getattr(error, "exit_code", 2)) from None
        except InterruptedRun as stop:
            _complain("stopped", stop.hint)
            raise typer.Exit(stop.exit_code) from None
        except KeyboardInterrupt:
            _complain("stopped", "by Ctrl-C")
            raise typer.Exit(130) from None

    return wrapped


def _complain(what: str, text: str, colour: str = "red") -> None:
    line = visible(" ".join(text.splitlines()))
    Console(stderr=True).print(f"[{colour}]{what}:[/{colour}] {escape(line)}", highlight=False, soft_wrap=True)


@contextmanager
def _broken_files_told() -> Iterator[None]:
    """Tell a file that was left out in a line on stderr, once; other warnings stay as they are."""
    plain, told = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, BrokenFileWarning):
            plain(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            _complain("warning", str(message), "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", BrokenFileWarning)
        warnings.showwarning = show
        yield


def tell(text: str) -> None:
    """Print a line as it is: neither coloured nor cut."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
