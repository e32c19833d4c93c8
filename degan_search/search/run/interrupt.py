"""Ctrl-C and SIGTERM: files being written are finished, then the sweep ends and says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from degan_search.system.errors import InterruptedRun

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Turns the two signals into `InterruptedRun`: at once, or while deferred at the next call of `raise_if_caught`."""

    def __init__(self, hint: str = "") -> None:
        self.hint = hint
        self.caught: int | None = None
        self.deferred = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals, then restore the handlers from before; only in the main thread, which alone can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Set the handlers; call it again after a library has set its own."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Only note a signal, for `raise_if_caught`; a second one raises at once."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False

    def raise_if_caught(self) -> None:
        """Raise if a signal was noted.

        Raises:
            InterruptedRun: a signal came.
        """
        if self.caught is not None:
            raise InterruptedRun(self.caught, self.hint)

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        if not self.deferred or self.caught is not None:
            raise InterruptedRun(number, self.hint)
        self.caught = number
