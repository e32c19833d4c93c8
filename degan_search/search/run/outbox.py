"""Files that the driver must not lose: written at once or, while the disk refuses them, kept and written later."""

from __future__ import annotations

import time
from collections.abc import Callable


class Outbox:
    """Writes files in order and keeps those that the disk refuses. It never raises, which would end the sweep."""

    def __init__(self) -> None:
        self.unwritten: dict[str, Callable[[], object]] = {}
        self.faults: dict[str, str] = {}
        """The error of each."""
        self.since: float | None = None
        """When, on the monotonic clock, the disk began to refuse."""

    def put(self, name: str, write: Callable[[], object]) -> None:
        """Write a file, after those that wait; `name` stands for it in messages."""
        self.unwritten[name] = write
        self.flush()

    def flush(self) -> list[str]:
        """Try to write all that is unwritten; return the errors of what still is."""
        for name, write in list(self.unwritten.items()):
            try:
                write()
            except Exception as error:
                self.faults[name] = str(error) or repr(error)
            else:
                del self.unwritten[name]
                self.faults.pop(name, None)
        self.since = (self.since or time.monotonic()) if self.unwritten else None
        return [f"{name}: {fault}" for name, fault in self.faults.items()]

    def refused_for(self) -> float:
        """Return for how many seconds the disk has refused; 0 if it does not refuse."""
        return time.monotonic() - self.since if self.since is not None else 0.0
