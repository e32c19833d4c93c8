"""Files that the driver must not lose: written at once or, while the disk refuses them, kept and tried again."""

from __future__ import annotations

import time
from collections.abc import Callable


class Outbox:
    """What is still to be written, in order. It never raises: an exception in Tune's callbacks would end the sweep."""

    def __init__(self) -> None:
        self.unwritten: dict[str, Callable[[], object]] = {}
        self.faults: dict[str, str] = {}
        """What the disk said of each."""
        self.since: float | None = None
        """When, on the monotonic clock, the oldest of them was first refused."""

    def put(self, name: str, write: Callable[[], object]) -> None:
        """Write a file, and what waited before it; `name` tells it in messages."""
        self.unwritten[name] = write
        self.flush()

    def flush(self) -> list[str]:
        """Try once more to write what is unwritten; return what the disk said of each that still is."""
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
        """Return for how many seconds the disk has refused; 0 if it does not."""
        return time.monotonic() - self.since if self.since is not None else 0.0
