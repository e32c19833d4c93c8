"""Faults in a sweep: their causes, which trials are tried again and how often, and when the sweep gives up."""

from __future__ import annotations

import errno
import re
import time

import torch

from degan_search.ledger.columns import Cause
from degan_search.search.run.outbox import Outbox
from degan_search.system.errors import IncompleteError
from degan_search.training.loop import DivergedError

RETRIED = frozenset({Cause.OUT_OF_MEMORY, Cause.WORKER_LOST, Cause.DISK})
"""Faults after which a trial is tried again. The others end it at once, with their reason in its row."""
BACK_OFF = 5.0
"""Seconds before a trial's second attempt; each further one waits twice as long, at most `LONGEST`."""
LONGEST = 300.0
GRACE = 10.0
"""Seconds past the time limit after which the driver kills a worker that has not ended itself."""
HOPELESS = 8
"""Trials in a row that a fault ends before the sweep stops: something is broken that lasts."""
DISK_PATIENCE = 300.0
"""Seconds that a sweep waits for a disk that cannot be written; it starts no trial meanwhile."""
LEFT = 75
"""Exit code of a worker that was told to end and wrote checkpoints first; EX_TEMPFAIL of `sysexits.h`."""
STOP_SECONDS = 60.0
"""That a sweep which is told to stop waits for the checkpoints of its trials."""
RETRY_SECONDS = 5.0
"""Between two attempts to write what the disk refused."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}
"""Errors of a disk that may accept the file later; an OSError without a number comes from an object store."""


def cause_of(error: BaseException) -> Cause:
    """Return the cause of failure of a trial that raised this error."""
    if isinstance(error, DivergedError):
        return Cause.DIVERGED
    # When the CPU's memory is full, torch raises a RuntimeError.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return Cause.OUT_OF_MEMORY
    if isinstance(error, OSError) and (error.errno is None or error.errno in FULL):
        return Cause.DISK
    return Cause.ERROR


def reason_of(error: BaseException) -> str:
    """Return the line that says to people why a trial failed that raised this error."""
    first = (str(error) or "no message").splitlines()[0]
    return first if isinstance(error, DivergedError) else f"{type(error).__name__}: {first}"


def cause_of_death(text: str, seconds: float, time_limit: float | None) -> Cause:
    """Return why a worker is gone, from Ray's message and the seconds that the attempt had taken."""
    if time_limit is not None and seconds >= time_limit:
        return Cause.TIME_LIMIT
    return Cause.OUT_OF_MEMORY if "OutOfMemoryError" in text else Cause.WORKER_LOST


def told_to_end(text: str) -> bool:
    """Return whether a worker, by Ray's message about its end, was told to end and wrote checkpoints first."""
    return re.search(rf"exit code {LEFT}\b", text) is not None


def wait(cause: Cause, faults: int, retries: int) -> float | None:
    """Return the seconds until a trial's next attempt after its so many faults so far; None: it is not tried again."""
    if cause not in RETRIED or faults > retries:
        return None
    return float(min(BACK_OFF * 2 ** (faults - 1), LONGEST))


class Patience:
    """Tries again to write what the disk refused, and ends a sweep in which trial after trial fails."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.faulty: dict[str, str] = {}
        """Trials that a fault ended, and their reasons."""
        self.in_a_row = 0
        self.tried = time.monotonic()
        """When, on the monotonic clock, it was last tried to write."""

    def count(self, trial: str, cause: Cause | None, reason: str | None) -> None:
        """Count how a trial ended."""
        if cause in (None, Cause.DIVERGED):
            self.in_a_row = 0
        else:
            self.faulty[trial] = str(reason)
            self.in_a_row += 1

    def check(self) -> None:
        """Try to write what the disk refused before.

        Raises:
            IncompleteError: the disk has refused for too long, or trial after trial failed.
        """
        if self.outbox.unwritten and time.monotonic() - self.tried >= RETRY_SECONDS:
            self.tried = time.monotonic()
            self.outbox.flush()
            if self.outbox.refused_for() > DISK_PATIENCE:
                raise IncompleteError(f"stopped, as the disk takes no rows: {'; '.join(self.outbox.flush())}")
        if self.in_a_row >= HOPELESS:
            last = list(self.faulty.values())[-1]
            raise IncompleteError(f"stopped, as {self.in_a_row} trials in a row failed, the last with: {last}")
