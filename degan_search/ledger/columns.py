"""The columns of the ledger: names, directions, Arrow schemas, and their version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
from pydantic import BaseModel, ConfigDict
from pydantic.dataclasses import dataclass

from degan_search.settings import criteria
from degan_search.settings.criteria import Direction
from degan_search.settings.gan_losses import GanLosses
from degan_search.settings.goals import GOALS, OF_STUDENT
from degan_search.settings.resolve import flatten, parse, stable_hash
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 9


class State(StrEnum):
    """How a trial ended, in Optuna's words."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"


class Cause(StrEnum):
    """Why a trial failed; null in rows that did not."""

    DIVERGED = "diverged"
    """A loss that is not finite, or a generator that makes one image: the configuration's own result."""
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    """The worker's process or machine went away."""
    TIME_LIMIT = "time_limit"
    DISK = "disk"
    """The trial's files could not be written."""
    ERROR = "error"
    """Anything else: the same again would fail again."""


class Phase(StrEnum):
    """What a trial was for."""

    SEARCH = "search"
    REPEAT = "repeat"
    """A further student of a search trial's generator, which `combine.members` names."""
    FINAL = "final"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Moment:
    """Where a trial stands: the first columns of a report."""

    budget: int
    score: float
    """NaN where none was measured."""
    seconds: float


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Report(GanLosses, _Moment):
    """A point of a trial's curve; what is None is null. Its columns are those of `_Moment`, the losses, and these.

    budget is in GAN steps, score the rung score (higher is better), seconds count from the trial's start;
    effective_classes is exp(entropy of the mean output); referee_test_accuracy is a final run's student's on the test
    images, after an epoch.
    """

    effective_classes: float | None = None
    stage: str | None = None
    referee_test_accuracy: float | None = None


REPORT_COLUMNS = tuple(field.name for field in fields(Report))
"""The columns of a report, in order."""

TRIAL_METRICS: dict[str, Direction] = {
    "score": "max",
    **{criterion.name: criterion.direction for criterion in criteria.in_ledger(after_search=False)},
    "gan_seconds": "min",
    "distill_seconds": "min",
    "seconds": "min",
    "effective_classes": "max",
    "coverage": "max",
    "mean_entropy": "min",
    "entropy": "min",
    "diversity": "max",
    "teacher_holdout_accuracy": "max",
    **{name: GOALS[name].direction for name in OF_STUDENT},
}
"""Measured by the trial itself, without true labels but for the teacher's own. Rates are in [0, 1]."""

REFEREE_METRICS: dict[str, Direction] = {criteria.REFEREE_BEST: "max"}
"""Measured by a final run on the test images if `finals.referee` asks for it; nothing is chosen by it."""
TOLD: dict[str, Direction] = TRIAL_METRICS | REFEREE_METRICS
"""All that a worker measures."""

HELD: dict[str, Direction] = {"core_seconds": "min", "gpu_seconds": "min"}
"""Seconds of all attempts, lost ones too, times the CPUs and the share of a GPU that the trial held; the driver counts.

Trials that run side by side in one process share what it holds.
"""

_ORACLE: dict[str, Direction] = {criteria.TRUE: "max", "oracle_half_1": "max", "oracle_half_2": "max"}
_AFTERWARDS = {criterion.name: criterion.direction for criterion in criteria.in_ledger(after_search=True)}
SCORE_METRICS: dict[str, Direction] = {
    **_ORACLE,
    **_AFTERWARDS,
    "test_accuracy": "max",
    "teacher_oracle_accuracy": "max",
    "teacher_test_accuracy": "max",
    "teacher_check_accuracy": "max",
    "old_accuracy": "max",
    "new_accuracy": "max",
}
"""Rates in [0, 1], filled in after the search: oracle accuracy on the held-out share of the true training
images, and on each half of it; agreement with the teacher on images of all other trials' generators; test
accuracy for final trials alone. Of the task `incremental` also the accuracy on each kind's images, old and new
classes: on the test images for final trials, on the held-out ones for others."""

METRICS: dict[str, Direction] = TOLD | HELD | SCORE_METRICS
"""Every measured column, and which way is better."""

_PLAIN: dict[Any, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
}


@cache
def trial_schema() -> pa.Schema:
    """Return the columns of a trial attempt, its configuration's leaves among them.

    Raises:
        TypeError: a configuration field of a type that has no column type.
    """
    moment = pa.timestamp("us", tz="UTC")
    report = pa.struct([(name, _arrow(hint)) for name, hint in get_type_hints(Report).items()])
    texts = ("phase", "cell", "chosen_by", "state", "reason", "cause")
    return pa.schema(
        [
            ("trial_id", pa.string()),
            ("attempt", pa.int32()),
            *((name, pa.string()) for name in texts),
            ("number", pa.int32()),
            ("config_hash", pa.string()),
            ("config_json", pa.string()),
            ("teacher_hash", pa.string()),
            *((column_of(name), _arrow(annotation)) for name, annotation in _leaves(TrialConfig)),
            *((name, pa.float64()) for name in (*TOLD, *HELD)),
            ("class_agreement", pa.list_(pa.float64())),
            ("gan_steps", pa.int64()),
            ("distill_steps", pa.int64()),
            ("threads", pa.int32()),
            ("device", pa.string()),
            ("precision", pa.string()),
            ("started", moment),
            ("finished", moment),
            *((name, pa.string()) for name in ("host", "git_commit", "versions", "hardware")),
            ("schema_version", pa.int32()),
            ("reports", pa.list_(report)),
        ]
    )


@cache
def score_schema() -> pa.Schema:
    """Return the columns of a trial's accuracies, which are measured apart from the search."""
    return pa.schema(
        [
            ("trial_id", pa.string()),
            *((name, pa.float64()) for name in SCORE_METRICS),
            ("n_oracle", pa.int64()),
            ("n_test", pa.int64()),
            ("n_check", pa.int64()),
            ("schema_version", pa.int32()),
        ]
    )


def config_columns(config: TrialConfig) -> dict[str, Any]:
    """Return a configuration as ledger columns: `gan.lambda_e` becomes `config_gan_lambda_e`.

    `config_json` holds the whole of it, for `config_of`.
    """
    leaves = {column_of(name): value for name, value in flatten(config.model_dump(mode="json"))}
    return {"config_hash": stable_hash(config), "config_json": config.model_dump_json(), **leaves}


def config_of(row: Mapping[str, Any] | pd.Series) -> TrialConfig:
    """Return the configuration of a ledger row.

    Raises:
        UserError: the row's configuration is not one that this version knows.
    """
    what = f"configuration of {row['trial_id']}"
    try:
        values = json.loads(row["config_json"])
    except (ValueError, TypeError, RecursionError) as error:  # TypeError: there is none
        raise UserError(f"{what} is no JSON: {error}") from None
    return parse(TrialConfig, values, what)


def column_of(dotted: str) -> str:
    """Return the column of a setting: `config_gan_lambda_e` of `gan.lambda_e`."""
    return "config_" + dotted.replace(".", "_")


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def _arrow(annotation: Any) -> pa.DataType:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _arrow(inner[0])
    if origin in (Union, UnionType):
        # Every column may be null, so an optional type is its one other member.
        members = [member for member in inner if member is not NoneType]
        if len(members) == 1:
            return _arrow(members[0])
    if origin is Literal:
        return _arrow(type(inner[0]))
    if origin in (tuple, list):
        return pa.list_(_arrow(inner[0]))
    if annotation not in _PLAIN:
        raise TypeError(f"no column type for {annotation!r}: known are {', '.join(t.__name__ for t in _PLAIN)}")
    return _PLAIN[annotation]
