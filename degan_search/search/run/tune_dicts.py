"""Jobs and results as the plain dictionaries that Ray Tune passes on: the one place that makes and reads them."""

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
    plain = [one.model_dump(mode="json") for one in jobs]
    return {**plain[0], "pack": plain} if len(plain) > 1 else plain[0]


def from_config(config: Mapping[str, Any]) -> tuple[Job, ...]:
    """Return the jobs of one of Tune's configurations.

    Raises:
        UserError: it is none of ours.
    """
    return tuple(parse(Job, one, "a worker's job") for one in config.get("pack") or [config])


def to_result(results: Sequence[TrialResult], running: Sequence[str], trials: int) -> dict[str, Any]:
    """Return what Tune is told after a step.

    Args:
        results: of the trials that have something to tell.
        running: names of the worker's trials that have not ended; when there are none, it is done.
        trials: of the worker, in all.
    """
    return {
        "score": max((one.score for one in results), default=math.nan),
        "results": [one.model_dump(mode="json") for one in results],
        "running": list(running),
        "trials": trials,
        tune.result.DONE: not running,
    }


def from_result(result: Mapping[str, Any]) -> list[TrialResult]:
    """Return the results in what Tune was told; Tune adds keys of its own to it.

    Raises:
        UserError: a result with an unknown metric, or one that is none of ours.
    """
    return [parse(TrialResult, one, "a worker's result") for one in result["results"]]


def running(result: Mapping[str, Any]) -> set[str]:
    """Return the names of the worker's trials that had not ended when it told this."""
    return set(result["running"])


def alone(result: Mapping[str, Any]) -> bool:
    """Return whether the worker runs one trial only."""
    return bool(result["trials"] == 1)
