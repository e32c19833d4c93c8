"""The copy of a run in an object store, kept up to date while the sweep runs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from degan_search.search.run.options import Options
from degan_search.storage import Mirror, RemotePlace, place
from degan_search.storage.layout import CACHE
from degan_search.system.errors import IncompleteError, UserError, command

WRITER = ".writer.json"
"""In the store: who writes the run. The lock in the working copy holds on one machine only."""
PATIENCE = 10.0
"""Seconds within which a process that ends tries to delete its note."""


class Copy:
    """The run's files in its store, and teachers and comparison images beside it; of a local run it does nothing."""

    def __init__(self, options: Options) -> None:
        self.folder = options.folder
        self.run = self.cache = None
        if options.remote:
            self.run = Mirror(options.folder, remote_place(options.remote, options.name))
            self.cache = Mirror(options.storage / CACHE, remote_place(options.remote, CACHE))

    def __enter__(self) -> Self:
        """Leave a note in the store of who writes the run.

        Raises:
            UserError: another machine does.
        """
        if self.run:
            here = platform.node()
            who = _note(self.run.remote)
            if who.get("host", here) != here:
                raise UserError(
                    f"{self.run.remote.address} is being written by process {who.get('pid')} on {who['host']} since "
                    f"{who.get('since')}; if that machine is gone, delete {self.run.remote.address}/{WRITER}"
                )
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.run.remote.write(WRITER, json.dumps({"host": here, "pid": os.getpid(), "since": now}).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is waiting, unless the run was interrupted."""
        if self.run is None:
            return
        try:
            if kind is None or issubclass(kind, Exception):
                self.push_all()
                self._wait()
        finally:
            with contextlib.suppress(OSError):
                replace(self.run.remote, patience=PATIENCE).delete(WRITER)

    def check_new(self) -> None:
        """Refuse a run that is in the store already.

        Raises:
            UserError: says what to do.
        """
        if self.run and self.run.remote.names():
            where = self.run.remote.address
            raise UserError(f"{where} is already there; `{command('resume', where)}`, or choose another --name")

    def pull(self) -> None:
        """Fetch the files of the run and the cache that are missing here; checkpoints are read from the store."""
        for mirror in (self.run, self.cache):
            if mirror:
                mirror.pull(only=lambda name: "/checkpoint-" not in name)

    def pull_trials(self) -> None:
        """Fetch the networks that workers have written to the store."""
        if self.run:
            self.run.pull("trials", only=lambda name: "/checkpoint-" not in name)

    def push(self, file: Path) -> None:
        """Send one file of the run, in the background."""
        if self.run:
            self.run.push(file.relative_to(self.folder).as_posix())

    def push_all(self) -> None:
        """Send everything that changed, in the background."""
        for mirror in (self.cache, self.run):
            if mirror:
                mirror.push_all()

    def delete(self, files: Iterable[Path]) -> None:
        """Delete files of the run, here and in the store."""
        for file in files:
            if self.run:
                self.run.delete(file.relative_to(self.folder).as_posix())
            else:
                file.unlink(missing_ok=True)

    def _wait(self) -> None:
        """Wait for what is being sent.

        Raises:
            IncompleteError: the store did not take it.
        """
        for mirror in (self.cache, self.run):
            if mirror and not mirror.flush():
                raise IncompleteError(
                    f"{len(mirror.waiting)} files, such as {min(mirror.waiting)}, are not in {mirror.remote.address}: "
                    f"{mirror.fault}; they are in {mirror.local}, and `degan-search resume` sends them"
                )


def _note(remote: RemotePlace) -> dict[str, object]:
    try:
        note = json.loads(remote.read(WRITER))
    except (FileNotFoundError, ValueError):  # a store's UserError is a ValueError too, and is raised again by the write
        return {}
    return note if isinstance(note, dict) else {}


def remote_place(storage: str, name: str) -> RemotePlace:
    """Return the place in a store of one of its storage's folders."""
    found = place(storage)
    assert isinstance(found, RemotePlace)
    return found.at(name)
