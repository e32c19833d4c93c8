"""Times a step by two small batches: what it takes for itself, and for each image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

BATCHES = (2, 8)
"""Images of the two batches. A line through both tells the seconds of a batch of 128 within a tenth."""
REPEATS = 2
LEAST = 0.25
"""Least share of a larger batch's seconds that its images take, however odd the smaller one's are."""
BUSY = 0.8
"""Where the timed steps had less of a CPU than this, that is said."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step: some for itself, whatever the batch, and some for each image."""

    fixed: float
    image: float

    def of(self, batch: int) -> float:
        """Return the seconds of a step on so many images."""
        return self.fixed + self.image * batch

    def times(self, factor: float) -> StepTime:
        """Return the time of a step that takes so many times as long."""
        return StepTime(factor * self.fixed, factor * self.image)


def timed_step(step_on: Callable[[int], Callable[[], object]], device: str) -> StepTime:
    """Return the seconds of a step; `step_on` makes one on so many images."""
    steps = [step_on(batch) for batch in BATCHES]
    rounds = [[_seconds(step, device) for step in steps] for _ in range(1 + REPEATS)][1:]  # the first loads kernels
    # Seconds of computing are hardly longer where other programs run; all seconds are by a factor, the same for both.
    wall, computed = (sum(taken) for taken in zip(*(both for each in rounds for both in each), strict=True))
    small, large = (min(both[1] for both in taken) * wall / computed for taken in zip(*rounds, strict=True))
    few, many = BATCHES
    image = max((large - small) / (many - few), LEAST * large / many)
    return StepTime(max(0.0, large - many * image), image)


def _seconds(act: Callable[[], object], device: str) -> tuple[float, float]:
    """Return the seconds of an act, and those in which this process computed; on a GPU both are the former."""
    begun, computed = time.perf_counter(), time.process_time()
    act()
    if device == "cuda":
        torch.cuda.synchronize()
        wall = time.perf_counter() - begun
        return wall, wall
    _timed.append((time.perf_counter() - begun, time.process_time() - computed))
    return _timed[-1]


_timed: list[tuple[float, float]] = []
"""Of each step timed on the CPU, its seconds and those in which it computed."""


def share_of_cpu(threads: int = 1) -> float:
    """Return in which part of their time the timed steps computed; in the rest other programs had the CPUs."""
    wall, computed = (sum(column) for column in zip(*_timed, strict=True)) if _timed else (1.0, float(threads))
    return min(1.0, computed / threads / wall)
