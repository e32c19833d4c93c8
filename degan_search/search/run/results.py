"""The results that a worker sends of its trials: one at each rung and one at the end, with the curve in between."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from pydantic import Field, field_validator

from degan_search.ledger.columns import REPORT_COLUMNS, TOLD, Cause, Report, State
from degan_search.search.run.jobs import Job
from degan_search.settings.goals import GOALS, Source
from degan_search.settings.values import Model
from degan_search.stages.teacher_file import Teacher
from degan_search.system import provenance
from degan_search.system.errors import UserError, close_matches
from degan_search.trial.outcome import Event

INTEGER_METRICS = ("gan_steps", "distill_steps")
CURVE = tuple(name for name in REPORT_COLUMNS if name not in ("stage", "budget"))
"""What a trial may measure at each point of its curve."""
KNOWN = tuple(dict.fromkeys([*TOLD, *INTEGER_METRICS, *CURVE]))
"""Names of everything that a trial may measure: each has a column in its row, or in its curve."""


class TrialResult(Model):
    """What is known of a trial at a rung (`state` is None) or at its end."""

    id: str
    """The job's."""
    score: float = math.nan
    """Higher is better; NaN where none was measured."""
    gan_steps: int
    """GAN steps done."""
    state: State | None = None
    reason: str | None = None
    """Why the trial failed, for people."""
    cause: Cause | None = None
    reports: tuple[Report, ...] = ()
    """The curve since the last result."""
    reports_from: int = 0
    """Where in the whole curve they begin: a trial that goes on from a checkpoint sends some reports again."""
    metrics: dict[str, float] = Field(default_factory=dict)
    class_agreement: tuple[float | None, ...] | None = None
    """At the end, as an event's."""
    seconds: float | None = None
    """From the trial's start, with those of earlier attempts that it goes on from."""
    teacher_hash: str | None = None
    teacher_holdout_accuracy: float | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    started: float | None = None
    """When the attempt began, in seconds since 1970."""
    finished: float | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Of the worker's machine, see `provenance.provenance`."""

    @property
    def ended(self) -> bool:
        """Whether it is the trial's last."""
        return self.state is not None

    def goals(self, names: Sequence[str]) -> tuple[float, ...]:
        """Return the values of some of GOALS; NaN for one that was not measured."""
        own = {name: getattr(self, name) for name in names if GOALS[name].source is Source.RESULT}
        return tuple(math.nan if (value := (self.metrics | own).get(name)) is None else float(value) for name in names)

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: dict[str, float]) -> dict[str, float]:
        check_names(metrics)
        return metrics


def check_names(metrics: Iterable[str]) -> None:
    """Refuse a metric that has no column.

    Raises:
        UserError: names it.
    """
    for name in metrics:
        if name not in KNOWN:
            raise UserError(f"unknown metric {name!r}; {close_matches(name, KNOWN)}")


class Curve:
    """The reports of a running trial, and how many of them the driver has been sent."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.sent = 0

    def add(self, event: Event) -> None:
        """Add what an event measured, if anything, and a curve has a column for; the row has the other measures.

        Raises:
            UserError: an unknown metric.
        """
        if event.metrics:
            check_names(event.metrics)
            measured = {name: value for name, value in event.metrics.items() if name in CURVE}
            about = {"score": math.nan, "seconds": event.seconds} | measured
            self.reports.append(Report(**about, budget=event.gan_steps, stage=event.stage))

    def take_unsent(self) -> tuple[int, tuple[Report, ...]]:
        """Return where in the curve the reports begin that were not sent yet, and these; they count as sent."""
        first, self.sent = self.sent, len(self.reports)
        return first, tuple(self.reports[first:])

    def at_rungs(self, goals: Sequence[str], measured: Mapping[str, float]) -> dict[int, list[float]]:
        """Return the values of goals at rungs by GAN step; `measured` has those that are the same at all rungs."""
        return {
            report.budget: [getattr(report, goal, measured.get(goal, math.nan)) for goal in goals]
            for report in self.reports
            if not math.isnan(report.score)
        }

    def saved(self) -> list[dict[str, Any]]:
        """Return the reports as plain values for a checkpoint."""
        return [asdict(report) for report in self.reports]

    @classmethod
    def of(cls, state: Iterable[Mapping[str, Any]]) -> Self:
        """Return the curve of a checkpoint, of which nothing counts as sent.

        Raises:
            UserError: its reports are of another version.
        """
        curve = cls()
        try:
            curve.reports = [Report(**report) for report in state]
        except (TypeError, ValueError):
            raise UserError("the checkpoint's reports are of another version; start the trial anew") from None
        return curve


@dataclass(frozen=True)
class Worker:
    """The process that runs a trial, and since when."""

    device: str
    threads: int
    started: float
    """In seconds since 1970."""


@dataclass(frozen=True)
class End:
    """How a trial ended, and of one that failed why."""

    state: State
    reason: str | None = None
    cause: Cause | None = None


def result(
    job: Job,
    event: Event,
    curve: Curve,
    worker: Worker,
    teacher: Teacher | None,
    precision: str | None,
    end: End | None = None,
) -> TrialResult:
    """Return the result that the driver is sent after an event; the curve counts as sent.

    `end`: of a trial that has ended with this event.

    Raises:
        UserError: an unknown metric.
    """
    check_names(event.metrics)
    first, reports = curve.take_unsent()
    return TrialResult(
        id=job.id,
        score=event.metrics.get("score", math.nan),
        gan_steps=event.gan_steps,
        state=end and end.state,
        reason=end and end.reason,
        cause=end and end.cause,
        reports=reports,
        reports_from=first,
        metrics=dict(event.metrics),
        class_agreement=event.class_agreement,
        seconds=event.seconds,
        teacher_hash=teacher.hash if teacher else None,
        teacher_holdout_accuracy=teacher.holdout_accuracy if teacher else None,
        device=worker.device,
        precision=precision,
        threads=worker.threads,
        started=worker.started,
        finished=time.time(),
        provenance=provenance.provenance(),
    )
