"""Reads settings from YAML: plain values only, without aliases or other types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from degan_search.system import untrusted
from degan_search.system.errors import UserError, visible

MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """Refuses aliases: with them a few lines stand for gigabytes, or for themselves."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not known here, write it out", mark)
        return super().compose_node(parent, index)


def read(path: Path, what: str) -> Any:
    """Return a YAML file's content; `what` names it in messages.

    Raises:
        UserError: no such file, too large, no text, or as `parse`.
    """
    try:
        if not path.exists():
            raise UserError(f"{what} does not exist")
        text = untrusted.read(path, what, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:  # OSError: a name that no file system allows
        raise UserError(f"{what} cannot be read as text: {error}") from None
    return parse(text, what)


def parse(text: str, what: str) -> Any:
    """Return YAML as text keys, lists, text, numbers, booleans and nulls; `what` names it in messages.

    Raises:
        UserError: not YAML, an alias, a value of another kind, such as a date, or control characters in text.
    """
    try:
        value = yaml.load(text, _Loader)
        _check(value, what)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{what} is nested too deeply") from None
    except Exception as error:  # PyYAML also raises errors that are not its own, as for a wrong tag (!!int "")
        raise UserError(f"{what} is not YAML: {' '.join(str(error).split()) or repr(error)}") from None
    return value


def _check(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise UserError(f"{place}: key {key!r} must be text; put it in quotes")
            _check(key, place)
            _check(inner, f"{place}: {key}")
    elif isinstance(value, list):
        for inner in value:
            _check(inner, place)
    elif isinstance(value, str) and visible(value) != value:
        raise UserError(f"{place} = {value!r} holds control characters")
    elif not isinstance(value, bool | int | float | str | None):
        raise UserError(f"{place} = {value}: {type(value).__name__} is no setting; put text in quotes")
