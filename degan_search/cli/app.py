"""What all commands share: the app, its console, their arguments, and how errors are shown."""

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

from degan_search.api import stored
from degan_search.system.console import PlainConsole
from degan_search.system.errors import InterruptedRun, NoticeWarning, UserError, visible

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Tune DeGAN: choose lambda_e, lambda_d and the proxy for distilling a classifier without its data.\n\n"
    "A trial trains a DeGAN on proxy images against a frozen teacher and distils a student from it. A sweep runs "
    "many under Ray Tune, with Optuna and early stopping, and keeps every result in Parquet.",
)


console = PlainConsole()

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


def shows_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with a UserError, an OSError or an interruption shown as one line on stderr and an exit code.

    A run in an object store is fetched first: the command is given a folder.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with _notices_shown(), stored.local(kwargs) as given:
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
def _notices_shown() -> Iterator[None]:
    """Show each notice, such as of a file that was left out, as one line on stderr; other warnings stay as they are."""
    plain, shown = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, NoticeWarning):
            plain(message, category, *where, **more)
        elif str(message) not in shown:
            shown.add(str(message))
            _complain("warning", str(message), "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", NoticeWarning)
        warnings.showwarning = show
        yield


def print_line(text: str) -> None:
    """Print a line without colours, wrapping or cutting."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
