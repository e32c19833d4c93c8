"""Paths in settings: from the home folder and from the folder of the call to whole ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from degan_search.system.errors import UserError

FILES = ("teacher.path",)
NETWORKS = ("teacher.network", "student.network")
"""Settings that may name a file of the user's own, as net.py:build or net.onnx."""
CLASSES = ("teacher.classes",)
"""Settings that may name a text file."""
SETS = ("teacher.dataset", "teacher.check", "proxy", "bank.proxies", "bank.judges")
"""Settings that may name a user's own images, as in folder:PATH."""
KINDS = ("folder", "parquet", "npz")
_JOINED = re.compile(rf"\+(?=(?:{'|'.join(KINDS)}):)")
"""What joins a user's own images to others before them, as in glyphs+folder:PATH."""


def whole(path: str) -> str:
    """Return a path with `~` and the folder of the call put before it; one that is whole stays as it is written.

    Raises:
        UserError: `~NAME` of an unknown user.
    """
    if path.startswith("/"):
        return path
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:
        raise UserError(f"path {path!r}: {error}") from None


def with_whole_paths(values: Any, name: str = "") -> Any:
    """Return plain settings, nested or dotted, in which every path is whole; lists of values too.

    Raises:
        UserError: as `whole`.
    """
    if isinstance(values, Mapping):
        return {key: with_whole_paths(value, f"{name}.{key}") for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [with_whole_paths(value, name) for value in values]
    if not isinstance(values, str):
        return values
    if _is(name, FILES):
        return whole(values)
    if _is(name, NETWORKS):
        return _network(values)
    if _is(name, CLASSES):
        return values if "\n" in values or values.isdecimal() else whole(values)
    return "+".join(map(_own, _JOINED.split(values))) if _is(name, SETS) else values


def _is(name: str, settings: tuple[str, ...]) -> bool:
    return name.endswith(tuple(f".{setting}" for setting in settings))


def _own(images: str) -> str:
    """Return the name of a user's own images with their whole path; other names as they are."""
    kind, colon, path = images.partition(":")
    return f"{kind}:{whole(path)}" if colon and path and kind in KINDS else images


def _network(name: str) -> str:
    """Return a network's name with the whole path of the file in it, if there is one."""
    what, mark, options = name.partition("?")
    file, colon, function = what.rpartition(":") if ".py:" in what else (what, "", "")
    return f"{whole(file)}{colon}{function}{mark}{options}" if file.endswith((".py", ".onnx")) else name
