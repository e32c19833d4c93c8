"""Causes of faults, how often each is tried again, and signals."""

import errno
import os
import signal
import time

import pytest
import torch

from degan_search.ledger.columns import Cause
from degan_search.search.run import faults
from degan_search.search.run.interrupt import Interruption
from degan_search.system.errors import InterruptedRun
from degan_search.training.loop import DivergedError

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (DivergedError("gan: loss is nan"), Cause.DIVERGED),
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.OUT_OF_MEMORY),
        (MemoryError(), Cause.OUT_OF_MEMORY),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            Cause.OUT_OF_MEMORY,
        ),
        (FULL, Cause.DISK),
        (OSError("cannot write s3://bucket/x: connection refused; tried for 300 s"), Cause.DISK),
        (FileExistsError(errno.EEXIST, "File exists"), Cause.ERROR),
        (PermissionError(errno.EACCES, "Permission denied"), Cause.ERROR),
        (KeyError("x"), Cause.ERROR),
    ],
)
def test_each_error_has_a_cause(error, cause):
    assert faults.cause_of(error) == cause


def test_torch_says_what_is_looked_for_where_the_memory_ends():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert faults.cause_of(error.value) is Cause.OUT_OF_MEMORY


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_is_tried_again_a_few_times_or_not_at_all(cause):
    waits = [faults.wait(cause, count, retries=3) for count in range(1, 6)]
    if cause in faults.RETRIED:
        assert waits == [5, 10, 20, None, None]
        assert faults.wait(cause, 50, retries=100) == faults.LONGEST
    else:
        assert waits == [None] * 5


def test_a_death_has_its_cause():
    assert faults.cause_of_death("ActorDiedError", 5, None) is Cause.WORKER_LOST
    assert faults.cause_of_death("ActorDiedError", 5, 4) is Cause.TIME_LIMIT
    assert (
        faults.cause_of_death("RayActorError: OutOfMemoryError: 2 worker(s) were killed", 5, 9) is Cause.OUT_OF_MEMORY
    )


def test_signals_wait_where_they_must_and_do_not_where_they_need_not():
    made = Interruption("say this")
    before = signal.getsignal(signal.SIGTERM)
    with made.handled():
        with pytest.raises(InterruptedRun) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert (stop.value.exit_code, stop.value.hint) == (143, "say this")
        with made.defer():
            os.kill(os.getpid(), signal.SIGINT)
            made_it = True
        assert made_it
        with pytest.raises(InterruptedRun) as stop:
            made.raise_if_caught()
        assert stop.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) == before
