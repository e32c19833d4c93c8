"""A worker that is told to end: by SIGTERM, as before a spot machine is taken away, or by its driver."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from degan_search.search.workers import ray_patches

ASK_SECONDS = 1.0
"""Between two looks whether the driver wants to stop; each takes about a millisecond."""


class Told:
    """Whether this process was told to end."""

    def __init__(self) -> None:
        self.by_signal = False
        self.asked = time.monotonic()
        """When the driver's wish was last looked up."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Only note SIGTERM, which else ends the process at once; in the main thread alone, which can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def to_end(self) -> bool:
        """Return whether this process should end."""
        if not self.by_signal and time.monotonic() - self.asked >= ASK_SECONDS:
            self.asked = time.monotonic()
            return ray_patches.driver_stops()
        return self.by_signal

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.by_signal = True
