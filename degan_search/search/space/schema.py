"""The schema of a space file: settings, cells, parameters, conditions, and how the search runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import optuna
from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from degan_search.search.space.subsets import written_out
from degan_search.settings.combine import Combine
from degan_search.settings.criteria import CRITERIA
from degan_search.settings.goals import GOALS, SCORE
from degan_search.settings.values import Count, HeldOut, Model, Seed, Text
from degan_search.system.errors import UserError

Scalar = bool | int | float | Text | None
SHARED = ("proxy", "count", "method", "objective", "teacher.", "bank.")
"""Beginnings of the names of settings on which shared inputs depend; these are made before the first trial starts."""
MAX_TRIALS = 10_000
"""Cells, and combinations of a grid, at most: more is taken to be a mistake."""


class Range(Model):
    """One of: a linear range, a log-uniform range, whole numbers, or 0 beside a log-uniform range."""

    range: tuple[FiniteFloat, FiniteFloat] | None = None
    log: tuple[FiniteFloat, FiniteFloat] | None = None
    int_: Annotated[tuple[int, int] | None, Field(alias="int")] = None
    zero_or_log: tuple[FiniteFloat, FiniteFloat] | None = None

    @model_validator(mode="after")
    def _one_ascending_range(self) -> Self:
        given = [(name, bounds) for name, bounds in self if bounds is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of range, log, int, zero_or_log")
        name, (low, high) = given[0]
        if not low < high:
            raise ValueError(f"the lower bound {low} must be below the upper bound {high}")
        if "log" in name and low <= 0:
            raise ValueError(f"a log range must begin above 0, not at {low}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends; of "0 or log" those of the log range."""
        bounds = self.int_ or self.range or self.log or self.zero_or_log
        assert bounds
        return bounds

    @property
    def lowest(self) -> float | int:
        """The lowest value."""
        return 0.0 if self.zero_or_log else self.bounds[0]

    def suggest(self, name: str, trial: optuna.Trial) -> float | int:
        """Draw a value; "0 or log" first draws whether it is 0."""
        if self.int_:
            return trial.suggest_int(name, *self.int_)
        if self.range:
            return trial.suggest_float(name, *self.range)
        if self.log:
            return trial.suggest_float(name, *self.log, log=True)
        assert self.zero_or_log
        if trial.suggest_categorical(f"{name} is 0", (False, True)):
            return 0.0
        return trial.suggest_float(name, *self.zero_or_log, log=True)

    def known(self, name: str, value: Scalar) -> dict[str, Any]:
        """Return the Optuna parameters under which `suggest` gives this value.

        Raises:
            UserError: the value is no number of the range.
        """
        if not isinstance(value, int | float) or (self.int_ and value % 1):
            raise UserError(f"{name} = {value!r} must be {'whole' if self.int_ else 'a number'}")
        if self.zero_or_log and value == 0:
            return {f"{name} is 0": True}
        if not self.bounds[0] <= value <= self.bounds[1]:
            raise UserError(f"{name} = {value} is outside its range {list(self.bounds)}")
        return ({f"{name} is 0": False} if self.zero_or_log else {}) | {name: value}


Values = Annotated[list[Scalar], Field(min_length=1)]
Parameter = Values | Range
Parameters = Annotated[dict[str, Parameter], BeforeValidator(written_out)]
"""What varies, by setting. Of proxies, subsets may be given in short."""


class When(Model):
    """Settings and parameters for some trials only: those whose settings equal all of `if`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    if_: Annotated[dict[str, Scalar | list[Scalar]], Field(alias="if", min_length=1)]
    trial: dict[str, Any] = {}
    parameters: Parameters = {}

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Return whether each key of `if` has that value (or one of them) in flat settings."""
        return all(
            settings.get(key) in (value if isinstance(value, list) else [value]) for key, value in self.if_.items()
        )


class SearchConfig(Model):
    """How configurations are chosen within each cell."""

    sampler: Literal["gp", "tpe", "random", "grid"] = "gp"
    """`gp`: Gaussian process (of several objectives TPE takes its place); `tpe`: Optuna's TPE; `random` and `grid` are
    there for comparison."""
    trials: Count = 16
    """Trials in each cell that has parameters; `grid` runs every combination instead."""
    seed: Seed = 0
    repeats: Annotated[int, Field(ge=0, le=100)] = 0
    """Further students of the best quarter of each cell's trials, from their generators: the choice is then by the mean
    over students (docs/results/2026-11-28-noise.md)."""
    stop_when_flat: bool = False
    """Ends the search of a cell once it has stopped getting better (`selection.flat`)."""
    objectives: Annotated[list[Literal[*GOALS]], Field(min_length=1)] = [SCORE]  # type: ignore[valid-type]
    """What is pursued together, the score first. Of several no trial is best: the search finds a Pareto front."""

    @model_validator(mode="after")
    def _score_first(self) -> Self:
        if self.objectives[0] != SCORE or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives must begin with {SCORE} and hold nothing twice, got {self.objectives}")
        if len(self.objectives) > 1 and self.stop_when_flat:
            raise ValueError("stop_when_flat looks at the score alone; with several objectives leave it out")
        return self


class Prior(Model):
    """Values of `parameters` that the user believes to be good, by setting, and how firmly; they may be wrong."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Scalar]
    confidence: Literal["low", "medium", "high"] = "low"
    """At `low` a wrong prior costs at most a fifth more regret than random search has, at the others more
    (docs/results/2026-11-28-samplers.md)."""

    @property
    def point(self) -> dict[str, Scalar]:
        """The values, by setting."""
        return dict(self.__pydantic_extra__)


class Earlier(Model):
    """A point that a cell tries first, as an earlier run found it good (`sweep --from`)."""

    cell: Text
    """The cell's label."""
    run: Text
    trial: Text
    alike: Annotated[float, Field(ge=0, le=1)]
    """How alike that run's task is (`warm_start.alike`)."""
    point: dict[str, Scalar]


class AshaConfig(Model):
    """Early stopping at the rungs of `probe.at`: asynchronous successive halving (Li et al. 2020)."""

    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 3.0


class FinalsConfig(Model):
    """Runs of each cell's chosen configuration over several seeds; the only ones that see the test split."""

    seeds: Annotated[list[Seed], Field(min_length=1)] = [1, 2, 3]
    by: Literal["score", *CRITERIA] | None = None  # type: ignore[valid-type]
    """What chooses each cell's configuration; None: `choose.chosen_by`."""
    holdout: HeldOut | None = None
    """In place of `teacher.holdout`; 0: final runs and their teachers train on all images. None: as in the search."""
    referee: bool = False
    """Also say how accurate each run's student is on the test images after each epoch; nothing is chosen by it."""
    combine: Combine | None = Combine()
    """Runs beside these, with the same seeds: a student of the best generators together, of each cell that searches
    generators' weights; None: none."""

    @model_validator(mode="after")
    def _no_seed_twice(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must not hold one twice, got {self.seeds}")
        return self

    def settings(self) -> dict[str, Any]:
        """Return what final runs have over the settings that were chosen."""
        return {} if self.holdout is None else {"teacher.holdout": self.holdout}


class Space(Model):
    """A space file."""

    description: str = ""
    trial: dict[str, Any] = {}
    """Settings of every trial, over the paper's defaults."""
    cells: Annotated[dict[str, Values], BeforeValidator(written_out)] = {}
    """One search for each combination: the cells of the table."""
    parameters: Parameters = {}
    when: list[When] = []
    first: list[dict[str, Scalar]] = []
    """Points of `parameters` that each cell tries first."""
    earlier: list[Earlier] = []
    """Points of earlier runs, which a cell tries before those of `first`; written by `sweep --from`."""
    prior: Prior | None = None
    """Where good trials are expected; of samplers `gp` and `random` only."""
    search: SearchConfig = SearchConfig()
    asha: AshaConfig | None = AshaConfig()
    finals: FinalsConfig | None = None

    def conditions(self) -> set[str]:
        """Return the settings that conditions look at."""
        return {name for when in self.when for name in when.if_}


def suggest(trial: optuna.Trial, name: str, spec: Parameter) -> Any:
    """Draw a value of a parameter."""
    if isinstance(spec, Range):
        return spec.suggest(name, trial)
    return spec[trial.suggest_categorical(name, range(len(spec)))]


def first_value(spec: Parameter) -> Scalar:
    """Return the first value of a list, or the lowest of a range."""
    return spec[0] if isinstance(spec, list) else spec.lowest
