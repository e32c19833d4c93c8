"""Paths in settings: from the home folder and from the folder of the call to whole ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from degan_search.networks.names import with_whole_path
from degan_search.system.errors import UserError

FILES = ("teacher.path",)
SETS = ("teacher.dataset", "proxy")
"""Settings that may name a user's own images, as in folder:PATH."""
NETWORKS = (".teacher.network", ".student.network")
"""Settings that may name a file with a network, as in FILE.py:FUNCTION."""
KINDS = ("folder", "parquet", "npz")


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
    if name.endswith(tuple(f".{setting}" for setting in FILES)):
        return whole(values)
    if name.endswith(NETWORKS):
        return with_whole_path(values)
    kind, colon, path = values.partition(":")
    if colon and path and kind in KINDS and name.endswith(tuple(f".{setting}" for setting in SETS)):
        return f"{kind}:{whole(path)}"
    return values
