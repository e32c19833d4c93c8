"""A trial's row for the ledger, from its job and its result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from degan_search.ledger.columns import TOLD, Report, config_columns
from degan_search.search.run.jobs import Job
from degan_search.search.run.results import INTEGER_METRICS, End, TrialResult
from degan_search.system import provenance

OWN = (
    "teacher_hash",
    "score",
    "class_agreement",
    "seconds",
    "teacher_holdout_accuracy",
    "threads",
    "device",
    "precision",
)
"""Columns that have the value of the result's field of this name."""


def trial_row(
    job: Job, result: TrialResult | None, end: End, curve: list[Report], started: float, held: Mapping[str, float]
) -> dict[str, Any]:
    """Return a trial's row.

    Args:
        job: of the trial.
        result: the last one that its worker sent; None: the worker sent nothing.
        end: how the trial ended.
        curve: all of it.
        started: seconds since 1970 by the driver's clock, for a worker that sent nothing.
        held: the columns of `columns.HELD`.
    """
    about = (result and result.provenance) or provenance.provenance()  # of this machine, if the worker sent nothing
    begun = datetime.fromtimestamp((result and result.started) or started, UTC)
    finished = result and result.finished
    # A clock that was set back must not make a trial end before it began.
    ended = max(begun, datetime.fromtimestamp(finished, UTC) if finished else datetime.now(UTC))
    return {
        "trial_id": job.id,
        "attempt": job.attempt,
        "phase": str(job.phase),
        "cell": job.cell,
        "chosen_by": job.chosen_by,
        "state": str(end.state),
        "reason": end.reason,
        "cause": None if end.cause is None else str(end.cause),
        "number": job.number,
        **config_columns(job.config),
        **_measured(result),
        **held,
        "started": begun,
        "finished": ended,
        **about,
        "versions": json.dumps(about["versions"]),
        "reports": [asdict(report) for report in curve],
    }


def _measured(result: TrialResult | None) -> dict[str, Any]:
    """Return the columns of a worker's last result; without one, only the score, as NaN."""
    if result is None:
        return {"score": math.nan}
    metrics = {name: value for name, value in result.metrics.items() if name in TOLD}
    counted = {name: int(result.metrics[name]) for name in INTEGER_METRICS if name in result.metrics}
    return {"gan_steps": result.gan_steps, **metrics, **counted, **{name: getattr(result, name) for name in OWN}}
