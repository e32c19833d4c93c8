"""Trials that take turns in one process, step by step; on a GPU each has a stream of its own, so they run at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch

from degan_search.fit import DivergedError

T = TypeVar("T")
IMAGES, MOST = 1024, 8
"""Images of a step that keep a GPU busy, and trials beyond which each one's share was measured to fall again."""


def side_by_side_on_gpu(batch_size: int) -> int:
    """Return how many trials keep a GPU busy, by the batch size of their GANs."""
    return min(MOST, max(1, IMAGES // batch_size))


class Turns(Generic[T]):
    """Iterators that take turns, each step of theirs as if it ran alone: what one reports has the same bits.

    It is itself an iterator over what they report, by number; None is a step without a report. A single step of one
    trial leaves most of a GPU idle. Steps of several overlap there if they only start work and wait for none of it, as
    recorded ones do (`capture`). On a CPU nothing is gained.
    """

    def __init__(self, steps: Mapping[int, Iterator[T | None]], device: str = "cpu") -> None:
        """Take the iterators of the members, not begun yet, and the device on which they run."""
        self.steps = dict(steps)
        self.failed: dict[int, DivergedError] = {}
        """What ended the members that diverged; the others go on."""
        self.streams: dict[int, Any] = {}
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()  # what was made for the members is there before their streams begin
            self.streams = {member: torch.cuda.Stream() for member in steps}  # type: ignore[no-untyped-call]

    def drop(self, member: int) -> None:
        """Run a member no further; between two reports."""
        self.steps.pop(member, None)

    def __iter__(self) -> Iterator[dict[int, T]]:
        """Run until all members are done; yields what they report in the same turn."""
        while self.steps:
            reports = {}
            for member in list(self.steps):
                report = self._step(member)
                if report is not None:
                    reports[member] = report
            if reports:
                yield reports

    def _step(self, member: int) -> T | None:
        with self._stream(member):
            try:
                report = next(self.steps[member])
            except StopIteration:
                self.drop(member)
                return None
            except DivergedError as error:
                self.failed[member] = error
                self.drop(member)
                return None
        if report is not None and member in self.streams:
            self.streams[member].synchronize()  # whoever reads what was reported does so on another stream
        return report

    def _stream(self, member: int) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self.streams[member]) if member in self.streams else nullcontext()
