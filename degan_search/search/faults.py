"""What a sweep does when something breaks: which faults are tried again, how often, and when it gives up."""

from __future__ import annotations

import errno

import torch

from degan_search.fit import DivergedError
from degan_search.records import Cause

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
