"""What a sweep does when something breaks: which faults are tried again, how often, and when it gives up."""

from __future__ import annotations

import errno
import time

import torch

from degan_search.ledger.columns import Cause
from degan_search.search.run.outbox import Outbox
from degan_search.system.errors import IncompleteError
from degan_search.training.loop import DivergedError

RETRIED = frozenset({Cause.OUT_OF_MEMORY, Cause.WORKER_LOST, Cause.DISK})
"""Faults that may be over the next time. The others end a trial at once, with their reason in its row."""
BACK_OFF = 5.0
"""Seconds before the first further attempt of a trial; each next one waits twice as long, up to `LONGEST`."""
LONGEST = 300.0
GRACE = 10.0
"""Seconds past the time limit after which the driver kills a worker that has not ended itself."""
HOPELESS = 8
"""Trials that fail one after the other, other than by diverging, before the sweep stops: something is broken."""
DISK_PATIENCE = 300.0
"""Seconds that a sweep waits for a disk that takes no rows; it starts no trial meanwhile."""
RETRY_SECONDS = 5.0
"""Between two tries to write what the disk refused."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}
"""What a disk answers that may take the file later; an OSError without a number is an object store's."""


def cause_of(error: BaseException) -> Cause:
    """Return why a trial failed that raised this."""
    if isinstance(error, DivergedError):
        return Cause.DIVERGED
    # What torch raises where the CPU's memory ends has no class of its own.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return Cause.OUT_OF_MEMORY
    if isinstance(error, OSError) and (error.errno is None or error.errno in FULL):
        return Cause.DISK
    return Cause.ERROR


def reason_of(error: BaseException) -> str:
    """Return the line that tells people why a trial failed that raised this."""
    first = (str(error) or "no message").splitlines()[0]
    return first if isinstance(error, DivergedError) else f"{type(error).__name__}: {first}"


def cause_of_death(text: str, seconds: float, time_limit: float | None) -> Cause:
    """Return why a worker is gone, from Ray's words for it and the seconds that the attempt had taken."""
    if time_limit is not None and seconds >= time_limit:
        return Cause.TIME_LIMIT
    return Cause.OUT_OF_MEMORY if "OutOfMemoryError" in text else Cause.WORKER_LOST


def wait(cause: Cause, faults: int, retries: int) -> float | None:
    """Return the seconds before a trial's next attempt after so many faults, this one counted; None: it has failed."""
    if cause not in RETRIED or faults > retries:
        return None
    return float(min(BACK_OFF * 2 ** (faults - 1), LONGEST))


class Patience:
    """Tries again to write rows that the disk refused, and ends a sweep in which nothing succeeds."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.faulty: dict[str, str] = {}
        """Trials that failed by a fault, and their reasons."""
        self.in_a_row = 0
        self.tried = time.monotonic()
        """When the unwritten were last tried."""

    def count(self, trial: str, cause: Cause | None, reason: str | None) -> None:
        """Count how a trial ended."""
        if cause in (None, Cause.DIVERGED):
            self.in_a_row = 0
        else:
            self.faulty[trial] = str(reason)
            self.in_a_row += 1

    def check(self) -> None:
        """Write what can be written now.

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
