"""Runs in an object store, for commands that take a run's folder: fetched before, and what is new uploaded after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from degan_search.settings.paths import whole
from degan_search.storage import LocalPlace, Mirror, RemotePlace, place, split_run, working_copy
from degan_search.storage.places import SCHEMES
from degan_search.system.errors import IncompleteError, UserError

PATIENCE = 30.0
"""Seconds for which a store that does not answer is tried again; short, as the user waits for the command."""


@dataclass(frozen=True)
class Stored:
    """A run's address, and which of its files the command needs."""

    address: str
    wanted: Callable[[str], bool]
    """Whether a file of this name in the run is fetched."""
    cache: bool = False
    """Whether the teachers and comparison images beside the run are fetched too."""


def rows(text: str) -> Path | Stored:
    """Return the run for a command that reads everything but the trials' own files."""
    return _given(text, Stored(text, _is_row))


def samples(text: str) -> Path | Stored:
    """Return the run for a command that also reads the trials' sample grids."""
    return _given(text, Stored(text, lambda name: _is_row(name) or name.endswith("/samples.png")))


def teacher(text: str) -> Path | Stored:
    """Return the run for a command that also reads the teacher."""
    return _given(text, Stored(text, _is_row, cache=True))


def networks(text: str) -> Path | Stored:
    """Return the run for a command that also reads the teacher and the trials' networks."""
    return _given(text, Stored(text, lambda name: "/checkpoint-" not in name, cache=True))


@contextlib.contextmanager
def local(arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a command's arguments with a local folder for each run in a store; afterwards upload what is new.

    Raises:
        UserError: no such run, or an address where a folder is needed.
        IncompleteError: not all that is new could be uploaded.
        OSError: the store does not answer.
    """
    mirrors: list[Mirror] = []

    def fetched(value: Any) -> Any:
        if isinstance(value, list):
            return [fetched(item) for item in value]
        if isinstance(value, Path) and str(value).partition(":/")[0] in SCHEMES and ":/" in str(value):
            raise UserError(f"{value} is in a store: a folder or file on this machine is needed here")
        if isinstance(value, Path):
            return Path(whole(str(value))) if str(value).startswith("~") else value
        return _fetched(value, mirrors) if isinstance(value, Stored) else value

    try:
        yield {name: fetched(value) for name, value in arguments.items()}
    except Exception:
        _upload(mirrors)
        raise
    if unsent := _upload(mirrors):
        raise IncompleteError(unsent)


def _given(text: str, stored: Stored) -> Path | Stored:
    return stored if "://" in text else Path(text)


def _is_row(name: str) -> bool:
    return not name.startswith("trials/")


def _fetched(stored: Stored, mirrors: list[Mirror]) -> Path:
    from degan_search.storage.layout import LEDGER

    storage, name = split_run(stored.address)
    there = place(storage)
    if isinstance(there, LocalPlace):  # file://
        return there.folder / name
    assert isinstance(there, RemotePlace)
    there = replace(there, patience=PATIENCE)
    run = Mirror(working_copy(storage) / name, there.at(name))
    # In a notebook rich's own display needs a package that may be missing.
    with Console(stderr=True, force_jupyter=False).status(f"Fetching {run.remote.address}"):
        run.pull(only=stored.wanted)
        if not (run.local / LEDGER).is_dir():
            raise UserError(f"{run.remote.address} is no run: it has no folder {LEDGER!r}")
        mirrors.append(run)
        if stored.cache:
            from degan_search.storage.layout import CACHE

            cache = Mirror(working_copy(storage) / CACHE, there.at(CACHE))
            cache.pull()
            mirrors.append(cache)
    return run.local


def _upload(mirrors: list[Mirror]) -> str:
    """Upload what is new; return a message on what could not be uploaded, "" for none."""
    for mirror in mirrors:
        mirror.push_all()
    for mirror in mirrors:
        if not mirror.flush():
            return (
                f"{len(mirror.waiting)} files, such as {min(mirror.waiting)}, are not in {mirror.remote.address}: "
                f"{mirror.fault}; they are in {mirror.local} and are put by the next command on this run"
            )
    return ""
