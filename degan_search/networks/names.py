"""A network's name in its parts, `WHAT?option=value&option=value`, and what else is told to build it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from degan_search.system.errors import UserError

LONGEST = 1000
"""Most characters of a name."""
Option = str | int | float | bool | None


@dataclass(frozen=True)
class Named:
    """A name in its parts: `text` is the whole, `what` stands before the `?`."""

    text: str
    what: str
    options: dict[str, Option]


@dataclass(frozen=True)
class Wanted:
    """The network that is asked for: its outputs and the images [N, channels, height, width] that it takes."""

    classes: int
    channels: int
    size: tuple[int, int]
    width: int | None = None


def parts(text: str) -> Named:
    """Return a name's parts; an option's value is what YAML makes of it.

    Raises:
        UserError: an option without a value, twice, or with one that is no plain value.
    """
    if len(text) > LONGEST or "\0" in text:
        raise UserError(f"network {text[:80]!r}: a name has at most {LONGEST} characters, and no zero byte")
    what, _, given = text.partition("?")
    options: dict[str, Option] = {}
    for option in given.split("&") if given else ():
        key, equals, value = option.partition("=")
        if not equals or not key.isidentifier() or key in options:
            raise UserError(f"network {text!r}: {option!r} must be OPTION=VALUE, each option once")
        options[key] = _value(value, text)
    return Named(text, what, options)


def _value(text: str, name: str) -> Option:
    try:
        value = yaml.safe_load(text)
        if isinstance(value, str):
            value = float(value) if value[:1] in "+-.0123456789" and "e" in value.lower() else value  # 1e-3
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    if value is not None and not isinstance(value, str | int | float | bool):
        raise UserError(f"network {name!r}: the value {text!r} must be a number, true, false, null or a word")
    return value


def one_line(error: BaseException) -> str:
    """Return the message of any library's error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def refused(name: Named, error: BaseException) -> UserError:
    """Return the error to raise for a library's error in building a network."""
    return UserError(f"network {name.text!r} cannot be built: {one_line(error)}")


def first_logits(module: Any, given: Any, outputs: Any) -> Any:
    """Return the first of several outputs: a forward hook for networks with auxiliary ones in train mode."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def forbid(name: Named, *options: str) -> None:
    """Refuse options that this project sets itself.

    Raises:
        UserError: names the option.
    """
    for option in options:
        if option in name.options:
            raise UserError(f"network {name.text!r}: {option} is not yours to set here; take it out of the name")
