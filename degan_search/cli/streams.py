"""Standard output and errors that no character and no closed pipe can break."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path


class _Lasting(io.TextIOWrapper):
    """A text stream that goes on after its reader has gone: what is written then goes nowhere.

    Else `sweep ... | head -2` would end the sweep at its third line.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._leave()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> None:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())


def make_lasting() -> None:
    """Give this process an output whose encoding replaces characters that it cannot show, and that outlives a pipe."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by >&-
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            encoding, lines = stream.encoding, stream.line_buffering
            lasting = _Lasting(stream.detach(), encoding, "replace", line_buffering=lines)
            setattr(sys, name, lasting)
