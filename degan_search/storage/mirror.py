"""A local folder and its copy in a store: downloads, and uploads in the background."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from degan_search.storage.places import LocalPlace, RemotePlace, Stamp, checked, stamp_of

AT_A_TIME = 8
"""Files that `Mirror.pull` fetches at a time."""

_log = logging.getLogger(__name__)


class Mirror:
    """A local folder and its copy in a store.

    A thread in the background uploads files in the order in which they were pushed, so that a store that is down
    delays nobody. What is not uploaded yet is in `waiting`; `flush` waits for it. `.stored.jsonl` lists what the store
    has in the version that is here: a file that changed here since is not replaced by the older one in the store.
    """

    def __init__(self, local: Path, remote: RemotePlace) -> None:
        self.local, self.remote = local, remote
        self.fault = ""
        """What the store, or the disk, said of the last file that could not be uploaded."""
        self._here = LocalPlace(local)
        self._record = _Record(local / ".stored.jsonl")
        self._changed = threading.Condition()
        self._queue: dict[str, tuple[bool, int]] = {}
        """Files to handle, in order: whether to delete it in the store, and the number of the request."""
        self._asked = self._tried = 0
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> set[str]:
        """The files that the store does not have yet."""
        with self._changed:
            return set(self._queue)

    def pull(self, under: str = "", only: Callable[[str], bool] | None = None) -> int:
        """Download files that are missing here or differ in the store, and return how many those were.

        `only` says of a name whether it is wanted. Files that the store does not have stay, and so does a file that
        changed here since its last upload: it is newer.

        Raises:
            OSError, UserError: as RemotePlace, or the disk refused.
        """
        stamps = self.remote.stamps(under)
        names = [name for name in stamps if only is None or only(name)]
        with ThreadPoolExecutor(AT_A_TIME, "pull") as pool:  # after an error no further download begins
            return sum(pool.map(lambda name: self._fetch(name, stamps[name]), names))

    def push(self, *names: str) -> None:
        """Upload these files in the background.

        What the store refuses stays in `waiting` and is tried again with the next push or flush. A file that already
        waits is uploaded once, as it is at that time.
        """
        self._ask(names, delete=False)

    def push_all(self) -> None:
        """Upload all files that changed since their last upload or download, the oldest first, in the background.

        Hidden files, lock files and what is of use on this machine alone (folders `ray` and `packed`) are left out.
        """
        stamps = self._here.stamps()
        new = [name for name, stamp in stamps.items() if not _local_only(name) and self._record.here(name) != stamp]
        self.push(*sorted(new, key=lambda name: stamps[name][1]))

    def delete(self, *names: str) -> None:
        """Delete these files here, and in the background in the store."""
        for name in names:
            self._here.delete(name)
        self._ask(names, delete=True)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all is uploaded, one more try failed, or `timeout` seconds are over; return whether all is."""
        self._ask([], delete=False)
        with self._changed:
            self._changed.wait_for(lambda: not self._queue or self._tried == self._asked, timeout)
            return not self._queue

    def _ask(self, names: Iterable[str], delete: bool) -> None:
        for name in names:
            checked(name)
        with self._changed:
            self._asked += 1
            for name in names:
                self._queue[name] = (delete, self._asked)
            if self._queue and self._thread is None:
                # A daemon: a process that ends does not wait for a store that is down.
                self._thread = threading.Thread(target=self._work, name="push", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue and self._tried != self._asked)
                asked = self._asked
                names = list(self._queue)
            for name in names:
                if not self._send(name):
                    break
            with self._changed:
                self._tried = asked
                self._changed.notify_all()

    def _send(self, name: str) -> bool:
        """Upload or delete a waiting file; return False if the store is down, so that the others are not tried."""
        with self._changed:
            asked = self._queue[name]
        try:
            stamp = None if asked[0] else stamp_of(self.local / name)
            data = self._here.read(name) if stamp else None
        except FileNotFoundError:
            data = None
        except OSError as error:  # the other files may be readable
            self.fault = f"{name}: {error}"
            return True
        try:
            if stamp and data is not None:
                self.remote.write(name, data)
                self._record.write(name, stamp, self.remote.stamps(name).get(name))
            elif asked[0]:
                self.remote.delete(name)
        except Exception as error:  # of any kind: the thread has to go on with other uploads
            self.fault = str(error)
            _log.warning("%s; it is tried again later", error)
            return False
        with self._changed:
            if self._queue.get(name) == asked:  # else it changed again meanwhile
                del self._queue[name]
            self._changed.notify_all()
        return True

    def _fetch(self, name: str, there: Stamp) -> bool:
        """Download a file if the store has another version; return whether it was downloaded."""
        file = self.local / name
        before = stamp_of(file)
        with self._changed:
            if name in self._queue:
                return False
        if before:
            known = self._record.here(name)
            if known and known != before:
                return False
            if self._record.there(name) == there:
                return False
            if not known and before[0] == there[0]:
                self._record.write(name, before, there)
                return False
        try:
            data = self.remote.read(name)
        except FileNotFoundError:  # deleted meanwhile
            return False
        if stamp_of(file) != before:
            return False
        self._here.write(name, data)
        if now := stamp_of(file):
            self._record.write(name, now, there)
        return True


class _Record:
    """What the store has in the version that is here: a line for each transfer, of which a name's last one counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()

    @functools.cached_property
    def _known(self) -> dict[str, tuple[Stamp, Stamp | None]]:
        known = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError):  # a line that was cut short: its file counts as new
                    name, here, there = json.loads(line)
                    known[name] = ((here[0], here[1]), (there[0], there[1]) if there else None)
        return known

    def here(self, name: str) -> Stamp | None:
        with self._lock:
            return self._known[name][0] if name in self._known else None

    def there(self, name: str) -> Stamp | None:
        with self._lock:
            return self._known[name][1] if name in self._known else None

    def write(self, name: str, here: Stamp, there: Stamp | None) -> None:
        with self._lock:
            self._known[name] = (here, there)
            # Without the line, a file is only uploaded once more than needed.
            with contextlib.suppress(OSError), self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, here, there]) + "\n")


def _local_only(name: str) -> bool:
    """Return whether a file is of use on this machine alone."""
    return name.endswith(".lock") or bool({"ray", "packed"} & set(name.split("/")[:-1]))
