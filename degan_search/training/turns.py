"""Trials that take turns in one process, step by step; on a GPU each has a stream of its own, so they run at once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch

from degan_search.training.loop import DivergedError, Stage

T = TypeVar("T")
IMAGES, MOST = 1024, 8
"""Images in a step that keep a GPU busy, and the number of trials beyond which more were measured to be slower."""


def side_by_side_on_gpu(batch_size: int) -> int:
    """Return how many trials keep a GPU busy, by the batch size of their GANs."""
    return min(MOST, max(1, IMAGES // batch_size))


class Turns(Generic[T]):
    """Trials, or stages, that take turns: a step of each, in order, then the next of each, until all are done.

    Each gives the same bits as alone. A single step of one trial leaves most of a GPU idle. Steps of several overlap
    there if they start work without waiting for it, as recorded ones do (`cuda_graph`). On a CPU nothing is gained.
    """

    def __init__(self, members: Mapping[int, Stage[T]], device: str = "cpu") -> None:
        """Take the members by number, and the device on which they run."""
        self.running = dict(members)
        self.failed: dict[int, DivergedError] = {}
        """What ended the members that diverged; the others go on."""
        self.streams: dict[int, Any] = {}
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()  # the members' inputs are computed before their streams begin
            self.streams = {number: torch.cuda.Stream() for number in members}  # type: ignore[no-untyped-call]

    @property
    def done(self) -> bool:
        """Whether no member runs any more."""
        return not self.running

    def step(self) -> dict[int, T]:
        """Do a step of each member that runs; returns what they report, by number."""
        reports = {}
        for number in list(self.running):
            report = self._step(number)
            if report is not None:
                reports[number] = report
        return reports

    def drop(self, number: int) -> None:
        """Run a member no further."""
        self.running.pop(number, None)

    def settle(self) -> None:
        """Wait until all that the members began is computed, so that their states can be copied."""
        for stream in self.streams.values():
            stream.synchronize()

    def _step(self, number: int) -> T | None:
        member = self.running[number]
        try:
            with self._stream(number):
                report = member.step()
        except DivergedError as error:
            self.failed[number] = error
            self.drop(number)
            return None
        if member.done:
            self.drop(number)
        if report is not None and number in self.streams:
            self.streams[number].synchronize()  # the report is read on another stream
        return report

    def _stream(self, number: int) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self.streams[number]) if number in self.streams else nullcontext()
