"""The options that decide how trials are run, for every command that runs a sweep's trials.

A command takes them with `@run_options(...)` as one argument, `given`; `Given.options` turns them into the search's
`Options`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from degan_search.api.options import RUN_OPTIONS, RunOption, as_fields

if TYPE_CHECKING:
    from degan_search.search.run.options import Options

Command = Callable[..., None]


def _parameter(option: RunOption, resuming: bool) -> inspect.Parameter:
    """Return a command's parameter for an option; when `resuming`, what is not typed stays as the run was begun."""
    text = (option.help_of_resume if resuming else None) or option.help
    default = None if resuming else option.default
    kind = option.kind if default is not None else option.kind | None
    annotation = Annotated[kind, typer.Option(min=option.minimum, help=text)]  # type: ignore[valid-type]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


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
        return as_fields({name: self.read(name) for name, value in self.items() if value is not None})

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
                parameters += [_parameter(option, resuming) for option in taken]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return called

    return decorate
