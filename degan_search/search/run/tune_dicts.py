"""The border of Ray for typed jobs and results: plain dictionaries are made, read and checked here and nowhere else.

Ray Tune passes dictionaries between the driver and its workers. What goes out is made of a `Job` or a `TrialResult`;
what comes in becomes one again or is an error, also for a metric that no ledger knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune

from degan_search.search.run.jobs import Job
from degan_search.search.run.results import TrialResult
from degan_search.settings.resolve import parse


def to_config(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return Tune's configuration of a worker that runs these trials: the first job, and where more, all in `pack`."""
    plain = [job.model_dump(mode="json") for job in jobs]
    return {**plain[0], "pack": plain} if len(plain) > 1 else plain[0]


def from_config(config: Mapping[str, Any]) -> tuple[Job, ...]:
    """Return the jobs in one of Tune's configurations.

    Raises:
        UserError: it was not made by `to_config`.
    """
    return tuple(parse(Job, plain, "a worker's job") for plain in config.get("pack") or [config])


def to_result(results: Sequence[TrialResult], running: Sequence[str], trials: int) -> dict[str, Any]:
    """Return the dictionary that a worker gives Tune after a step.

    Args:
        results: of the trials that have reached a rung or ended.
        running: names of the worker's trials that have not ended; when there are none, it is done.
        trials: of the worker, in all.
    """
    return {
        "score": max((result.score for result in results), default=math.nan),
        "results": [result.model_dump(mode="json") for result in results],
        "running": list(running),
        "trials": trials,
        tune.result.DONE: not running,
    }


def from_result(result: Mapping[str, Any]) -> list[TrialResult]:
    """Return the results in a worker's dictionary, to which Tune has added keys of its own.

    Raises:
        UserError: a result with an unknown metric, or one that was not made by `to_result`.
    """
    return [parse(TrialResult, plain, "a worker's result") for plain in result["results"]]


def running(result: Mapping[str, Any]) -> set[str]:
    """Return the names of the worker's trials that had not ended at this result."""
    return set(result["running"])


def runs_one_trial(result: Mapping[str, Any]) -> bool:
    """Return whether the worker runs one trial only."""
    return bool(result["trials"] == 1)
