"""The options that decide how trials are run, each declared once, for every command that runs a sweep's trials.

A command takes them with `@run_options(...)` as one argument, `given`; `Given.options` turns them into the search's
`Options`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from degan_search.system.errors import UserError

if TYPE_CHECKING:
    from degan_search.search.run.options import Options

Command = Callable[..., None]


def seconds(option: str, text: str) -> float:
    """Return the seconds of a time such as 90s, 30min or 2h; a number alone is of seconds.

    Raises:
        UserError: the text is no time, or a time below 0.
    """
    import pandas as pd

    try:
        found = pd.Timedelta(text if not text.replace(".", "").isdecimal() else f"{text}s").total_seconds()
    except ValueError:
        found = -1.0
    if not found >= 0:
        raise UserError(f"{option} {text!r} is no time; give such as 90s, 30min or 2h")
    return float(found)


def _positive_seconds(option: str, text: str) -> float:
    found = seconds(option, text)
    if found == 0:
        raise UserError(f"{option} {text!r} is no time at all; give such as 30min or 2h")
    return found


def _number_to_keep(option: str, text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise UserError(f"{option} {text!r} must be a whole number, or all")
    return int(text)


def _as_given(option: str, value: Any) -> Any:
    return value


def _or_none(option: str, text: str) -> str | None:
    return text or None


@dataclass(frozen=True)
class RunOption:
    """One option, named as the field of `search.run.options.Options` that it sets."""

    name: str
    kind: type
    """Its type on the command line."""
    help: str
    default: Any = None
    """None for the default of `Options`."""
    minimum: int | None = None
    help_of_resume: str | None = None
    """The help where a command goes on with a run; None if it is the same."""
    read: Callable[[str, Any], Any] = _as_given
    """From the option's flag (for messages) and what was typed, to the field's value."""

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return "--" + self.name.replace("_", "-")

    def parameter(self, resuming: bool) -> inspect.Parameter:
        """Return the command's parameter; when `resuming`, what is not typed stays as the run was begun."""
        text = (self.help_of_resume if resuming else None) or self.help
        default = None if resuming else self.default
        kind = self.kind if default is not None else self.kind | None
        option = typer.Option(min=self.minimum, help=text)
        annotation = Annotated[kind, option]  # type: ignore[valid-type]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


RUN_OPTIONS = (
    RunOption("cpus_per_trial", int, "CPUs, and torch threads, of a trial.", default=1, minimum=1),
    RunOption(
        "gpus_per_trial",
        float,
        "Share of a GPU for a trial, such as 0.25.",
        default=0.0,
        minimum=0,
        help_of_resume="Share of a GPU for a trial.",
    ),
    RunOption("max_concurrent", int, "Trials at a time; as many as fit.", minimum=1),
    RunOption(
        "fuse",
        int,
        "Trials of a cell side by side in one process; chosen by the GPU's load, 1 on a CPU.",
        minimum=1,
    ),
    RunOption(
        "address",
        str,
        "An existing Ray cluster, host:port or auto.",
        help_of_resume="An existing Ray cluster; '' for none.",
        read=_or_none,
    ),
    RunOption("track", str, "Log to mlflow, wandb or tensorboard as well."),
    RunOption(
        "retries",
        int,
        "Further attempts of a trial whose worker, memory or disk failed.",
        default=2,
        minimum=0,
        help_of_resume="Further attempts of a broken trial.",
    ),
    RunOption("time_limit", str, "End a trial that takes longer, such as 30min or 2h.", read=seconds),
    RunOption(
        "checkpoint_every",
        str,
        "Time between two checkpoints of a trial, such as 60s.",
        default="60s",
        help_of_resume="Time between two checkpoints.",
        read=seconds,
    ),
    RunOption(
        "keep",
        str,
        "Search trials of each cell whose networks are kept: the best few, or all.",
        default="5",
        help_of_resume="Trials of each cell whose networks are kept, or all.",
        read=_number_to_keep,
    ),
    RunOption(
        "budget",
        str,
        "Time for all of it, such as 2h: it decides how many search trials there are.",
        help_of_resume="Time from now, such as 1h; by default what is left of the run's own, if it has one.",
        read=_positive_seconds,
    ),
)
"""In the order of `--help`."""


class Given(dict[str, Any]):
    """The run options of one call by name, as they were typed; None where nothing was."""

    def read(self, name: str) -> Any:
        """Return the value of an option as `Options` has it; None where it was not typed.

        Raises:
            UserError: what was typed makes no sense.
        """
        (option,) = (option for option in RUN_OPTIONS if option.name == name)
        return None if self[name] is None else option.read(option.flag, self[name])

    def settings(self) -> dict[str, Any]:
        """Return by name the fields of `Options` that were typed.

        Raises:
            UserError: one makes no sense.
        """
        return {name: self.read(name) for name, value in self.items() if value is not None}

    def options(self, **where: Any) -> Options:
        """Return the search's options; `where` are the fields that say where the run is.

        Raises:
            UserError: one makes no sense.
        """
        from degan_search.search.run.options import Options

        return Options(**where, **self.settings())


def run_options(without: Sequence[str] = (), resuming: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that replaces a command's parameter `given` by the run options.

    Args:
        without: the options that the command does not take.
        resuming: whether the command goes on with a run; what is not typed stays as the run was begun.
    """
    taken = [option for option in RUN_OPTIONS if option.name not in without]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def called(**arguments: Any) -> None:
            given = Given({option.name: arguments.pop(option.name) for option in taken})
            command(**arguments, given=given)

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name == "given":
                parameters += [option.parameter(resuming) for option in taken]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return called

    return decorate


def stored_in(storage: str) -> dict[str, Any]:
    """Return the fields of `Options` that say where runs are kept; for an object store also its working copy."""
    if "://" not in storage:
        from degan_search.settings.paths import whole

        return {"storage": Path(whole(storage)) if storage.startswith("~") else Path(storage)}
    from degan_search.storage import working_copy

    return {"storage": working_copy(storage), "remote": storage}
