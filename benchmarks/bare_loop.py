"""Trials in processes that take the next one and do nothing else: what a sweep under Ray Tune is compared with."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from degan_search.settings.trial import TrialConfig
from degan_search.system import cpus, device
from degan_search.trial.inputs import Inputs
from degan_search.trial.trial import run as run_trial


@dataclass(frozen=True)
class Span:
    """When a trial ran, in seconds of `time.time`."""

    begun: float
    ended: float


_inputs: Inputs


def _set_up(inputs: Inputs, threads: int, ready: Any) -> None:
    global _inputs
    _inputs = inputs
    cpus.pin(threads)
    device.set_up_torch(threads)
    ready.wait()


def _run(config: TrialConfig) -> Span:
    begun = time.time()
    run_trial(config, _inputs)
    return Span(begun, time.time())


def bare(trials: Sequence[TrialConfig], inputs: Inputs, processes: int, threads: int) -> list[Span]:
    """Run trials in so many processes; each is given the inputs once, and all begin together."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _set_up, (inputs, threads, spawn.Barrier(processes))) as pool:
        return list(pool.map(_run, trials))


def wall(spans: Sequence[Span]) -> float:
    """Return the seconds from the first start to the last end."""
    return max(span.ended for span in spans) - min(span.begun for span in spans)


def seconds_a_trial(spans: Sequence[Span], processes: int) -> float:
    """Return the mean seconds between two ends of trials, once each process has ended its first."""
    return median(span.ended - span.begun for span in spans[processes:]) / processes
