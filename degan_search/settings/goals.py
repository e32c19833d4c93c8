"""The table of goals: what a search may pursue together, each with its direction and where its value comes from.

A goal is entered here, once: the schema of spaces, the ledger's columns, Optuna's studies, early stopping, the Pareto
front, tables and figures ask this table. A goal's name is its column in the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Source(StrEnum):
    """Where a goal's value comes from, at a rung and at a trial's end."""

    RESULT = "result"
    """The worker's result has a field of this name, and so has each report."""
    STUDENT = "student"
    """`networks.size` counts it of the student's network, before the trial begins. In the task `incremental` there is
    none: the network is the teacher's own."""


@dataclass(frozen=True)
class Goal:
    """One thing that a search may pursue."""

    name: str
    direction: Literal["max", "min"]
    """Which way is better."""
    source: Source
    help: str


SCORE = "score"
_TABLE = (
    Goal(SCORE, "max", Source.RESULT, "the trial's `objective`"),
    Goal("student_parameters", "min", Source.STUDENT, "numbers that the student learns"),
    Goal("multiply_adds", "min", Source.STUDENT, "multiply-adds of the student on one image"),
    Goal("seconds", "min", Source.RESULT, "of the trial"),
)
GOALS: dict[str, Goal] = {goal.name: goal for goal in _TABLE}
"""By name, in the order in which they are shown."""
OF_STUDENT = tuple(goal.name for goal in _TABLE if goal.source is Source.STUDENT)
"""The goals that the student's network alone decides."""
