"""Space files: what a sweep holds fixed, what it varies, and how it searches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import optuna
import yaml
from pydantic import ConfigDict, Field, FiniteFloat, model_validator

from degan_search import settings_file
from degan_search.config import Count, Model, Seed, TrialConfig, flatten, merge, parse, trial_config
from degan_search.errors import UserError, close_matches
from degan_search.methods import UNTUNED, WITHOUT_PROXY, normalised
from degan_search.settings.criteria import CRITERIA
from degan_search.trial import checks

Scalar = bool | int | float | str | None
SHARED = ("proxy", "count", "method", "objective", "teacher.", "bank.")
"""Beginnings of the settings that what trials share is made from, before the first starts."""
MAX_TRIALS = 10_000
"""Cells, and combinations of a grid, at most: more is a slip of the pen."""


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
        bounds = _bounds(self)
        if not isinstance(value, int | float) or (self.int_ and value % 1):
            raise UserError(f"first: {name} = {value!r} must be {'whole' if self.int_ else 'a number'}")
        if self.zero_or_log and value == 0:
            return {f"{name} is 0": True}
        if not bounds[0] <= value <= bounds[1]:
            raise UserError(f"first: {name} = {value} is outside its range {list(bounds)}")
        return ({f"{name} is 0": False} if self.zero_or_log else {}) | {name: value}


Parameter = Annotated[list[Scalar], Field(min_length=1)] | Range


class When(Model):
    """Settings and parameters for some trials only: those whose settings equal all of `if`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    if_: Annotated[dict[str, Scalar | list[Scalar]], Field(alias="if", min_length=1)]
    trial: dict[str, Any] = {}
    parameters: dict[str, Parameter] = {}

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Return whether each key of `if` has that value (or one of them) in flat settings."""
        return all(
            settings.get(key) in (value if isinstance(value, list) else [value]) for key, value in self.if_.items()
        )


class SearchConfig(Model):
    """How configurations are chosen within each cell."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: Count = 16
    """Trials in each cell that has parameters; `grid` runs every combination instead."""
    seed: Seed = 0


class AshaConfig(Model):
    """Early stopping at the rungs of `probe.at`: asynchronous successive halving (Li et al. 2020)."""

    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 3.0


class FinalsConfig(Model):
    """Runs of each cell's chosen configuration over several seeds; the only ones that see the test split."""

    seeds: Annotated[list[Seed], Field(min_length=1)] = [1, 2, 3]
    by: Literal["score", *CRITERIA] | None = None  # type: ignore[valid-type]
    """What chooses each cell's configuration; None: `choose.chosen_by`."""


class Space(Model):
    """A space file."""

    description: str = ""
    trial: dict[str, Any] = {}
    """Settings of every trial, over the paper's defaults."""
    cells: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = {}
    """One search for each combination: the cells of the table."""
    parameters: dict[str, Parameter] = {}
    when: list[When] = []
    first: list[dict[str, Scalar]] = []
    """Points of `parameters` that each cell tries first."""
    search: SearchConfig = SearchConfig()
    asha: AshaConfig | None = AshaConfig()
    finals: FinalsConfig | None = None

    def conditions(self) -> set[str]:
        """Return the settings that conditions look at."""
        return {name for when in self.when for name in when.if_}


@dataclass(frozen=True)
class Cell:
    """One search: fixed settings, and the parameters that vary."""

    settings: dict[str, Any]
    space: Space = field(repr=False)

    @property
    def label(self) -> str:
        """Such as `proxy=photos method=degan`."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items()) or "all"

    def configure(self, trial: optuna.Trial) -> TrialConfig:
        """Draw one configuration, conditions included."""
        return self._resolve(lambda name, spec: _suggest(trial, name, spec))[0]

    def enqueue(self, point: Mapping[str, Scalar]) -> dict[str, Any]:
        """Return Optuna's parameters for a known point; keys that this cell does not vary are left out.

        Raises:
            UserError: a value that the parameter cannot take.
        """
        known: dict[str, Any] = {}

        def fixed(name: str, spec: Parameter) -> Any:
            if name not in point:
                return spec[0] if isinstance(spec, list) else _low(spec)
            value = point[name]
            if isinstance(spec, list):
                if value not in spec:
                    raise UserError(f"first: {name} = {value!r} is not one of {spec}")
                known[name] = spec.index(value)
            else:
                known.update(spec.known(name, value))
            return value

        self._resolve(fixed)
        return known

    def example(self) -> TrialConfig:
        """Return the configuration with each parameter at its first or lowest value."""
        return self._resolve(lambda _, spec: spec[0] if isinstance(spec, list) else _low(spec))[0]

    def varies(self) -> dict[str, Parameter]:
        """Return the parameters that may vary in this cell, by name."""
        return self._resolve(lambda _, spec: spec[0] if isinstance(spec, list) else _low(spec))[1]

    def grid(self) -> list[dict[str, Scalar]]:
        """Return every combination of this cell's lists, each with the parameters that its conditions give it.

        Raises:
            UserError: a parameter is a range, which has no combinations; more than MAX_TRIALS.
        """
        combinations = list(itertools.islice(self.branches(lambda _: True), MAX_TRIALS + 1))
        for _, varies, _ in combinations:
            for name, spec in varies.items():
                if isinstance(spec, Range):
                    raise UserError(f"search.sampler grid needs lists, but {name} is a range")
        if len(combinations) > MAX_TRIALS:
            raise UserError(f"search.sampler grid has more than {MAX_TRIALS:,} combinations")
        return [values for _, _, values in combinations]

    def branches(
        self, follows: Callable[[str], bool]
    ) -> Iterator[tuple[TrialConfig, dict[str, Parameter], dict[str, Scalar]]]:
        """Yield (configuration, its parameters, their values) for every value of the lists that `follows` names.

        Other parameters are at their first or lowest value.
        """
        waiting: list[dict[str, Scalar]] = [{}]
        while waiting:
            point = waiting.pop()

            def draw(name: str, spec: Parameter, point: dict[str, Scalar] = point) -> Scalar:
                if name not in point:
                    values = spec if isinstance(spec, list) else [_low(spec)]
                    if follows(name):
                        waiting.extend({**point, name: value} for value in reversed(values[1:]))
                    point[name] = values[0]
                return point[name]

            yield *self._resolve(draw), point

    def trials(self) -> int:
        """Return how many trials the search of this cell runs."""
        if not self.varies():
            return 0 if self.space.finals else 1
        return len(self.grid()) if self.space.search.sampler == "grid" else self.space.search.trials

    def proxies(self) -> list[str]:
        """Return the proxies that trials of this cell may use."""
        varied = self.varies().get("proxy")
        return [str(name) for name in varied] if isinstance(varied, list) else [self.example().proxy]

    def shared(self) -> Iterator[TrialConfig]:
        """Yield a configuration for every value of `SHARED` settings, and of those in conditions."""
        conditions = self.space.conditions()
        for config, _, _ in self.branches(lambda name: name.startswith(SHARED) or name in conditions):
            yield config

    def _resolve(self, draw: Callable[[str, Parameter], Any]) -> tuple[TrialConfig, dict[str, Parameter]]:
        """Apply conditions in the file's order, drawing each parameter where it first comes up."""
        drawn: dict[str, Parameter] = {}
        values: dict[str, Any] = {}
        settings = merge(self.space.trial, self.settings)

        def take(parameters: Mapping[str, Parameter]) -> None:
            for name, spec in parameters.items():
                if name in drawn:
                    raise UserError(f"{name} varies twice in one trial; let every condition but one leave it out")
                if name not in self.settings:
                    drawn[name] = spec
                    values[name] = draw(name, spec)

        take(self.space.parameters)
        for when in self.space.when:
            if when.holds(_flat(trial_config(merge(settings, values)))):
                settings = merge(settings, when.trial)
                take(when.parameters)
        return normalised(trial_config(merge(settings, values))), drawn


def load(name: str) -> Space:
    """Read a shipped space by name (`demo`) or a user's by path (`my/space.yaml`).

    Raises:
        UserError: no such space, not YAML, an unknown key, a range upside down.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        values = settings_file.read(path, f"space file {name!r}")
    else:
        known = shipped()
        if name not in known:
            raise UserError(f"space {name!r} is not shipped; {close_matches(name, known)}; your own file ends in .yaml")
        values = settings_file.parse(files("search_spaces").joinpath(f"{name}.yaml").read_text(), f"space {name!r}")
    space = parse(Space, values, f"space {name!r}")
    check(space)
    return space


def shipped() -> list[str]:
    """Return the names of the spaces that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in files("search_spaces").iterdir() if ".yaml" in file.name)


def cells(space: Space) -> list[Cell]:
    """Return the cells of the table in the file's order; methods that use no proxy have one, on the first proxy."""
    combinations = itertools.product(*space.cells.values())
    made = [dict(zip(space.cells, values, strict=True)) for values in combinations]
    first = space.cells.get("proxy", [None])[0]
    return [
        Cell(settings, space)
        for settings in made
        if settings.get("proxy", first) == first or settings.get("method") not in WITHOUT_PROXY
    ]


def check(space: Space) -> None:
    """Refuse a space with a wrong configuration in any cell, under any condition or at any value of any list.

    Raises:
        UserError: the first fault, naming the cell.
    """
    if math.prod(map(len, space.cells.values())) > MAX_TRIALS:
        raise UserError(f"cells: more than {MAX_TRIALS:,} combinations")
    trial_config(space.trial)
    known = set(space.parameters).union(*(when.parameters for when in space.when))
    for name in (name for point in space.first for name in point):
        if name not in known:
            raise UserError(f"first: {name!r} is none of the parameters ({', '.join(sorted(known)) or 'none'})")
    seen: set[str] = set()
    for cell in cells(space):
        try:
            if cell.label in seen:
                raise UserError("appears twice")
            seen.add(cell.label)
            _check_cell(cell)
        except UserError as error:
            raise UserError(f"cell {cell.label}: {error}") from None


def check_budget(space: Space) -> None:
    """Refuse a space whose number of trials no budget can choose.

    Raises:
        UserError: says why.
    """
    if space.search.sampler == "grid":
        raise UserError("--budget: search.sampler grid runs every combination, whatever it takes; use tpe or random")
    if not any(cell.varies() for cell in cells(space)):
        raise UserError("--budget: no cell of the space has parameters, so there is no search to fit into it")


def _check_cell(cell: Cell) -> None:
    space = cell.space
    conditions = space.conditions()
    kinds: dict[str, Any] = {}
    for config, varies, _ in itertools.islice(cell.branches(conditions.__contains__), MAX_TRIALS):
        _check_trial(space, config)
        for name, spec in varies.items():
            # Optuna's own rule: a study knows one list, or one kind of range, by one name.
            kind = spec if isinstance(spec, list) else [kind for kind, bounds in spec if bounds]
            if kinds.setdefault(name, kind) != kind:
                raise UserError(f"{name} is not the same list or kind of range under every condition")
            if isinstance(spec, Range) and name.startswith(SHARED):
                raise UserError(f"{name} can vary in a list alone: what trials share is made before the first starts")
            tried = [trial_config(config.model_dump(mode="json"), {name: value}) for value in _samples(spec)]
            for trial in tried:
                _check_trial(space, trial)
            # A rebuilt study could not tell what was drawn; of the weights it knows that they had no effect.
            if name.removeprefix("gan.") not in UNTUNED and len(tried) > 1 and len(set(map(normalised, tried))) == 1:
                raise UserError(
                    f"{name} varies, but method {config.method!r} does not use it: put it under a condition"
                )
    for point in space.first:
        cell.enqueue(point)
    if space.search.sampler == "grid":
        cell.grid()


def _check_trial(space: Space, config: TrialConfig) -> None:
    checks.check(config)
    if space.finals and config.seed in space.finals.seeds:
        raise UserError(f"finals.seeds must not hold the search's own seed {config.seed}")


def _samples(spec: Parameter) -> list[Any]:
    """Return a list's values, or a range's ends and one value between that is not whole unless all are."""
    if isinstance(spec, list):
        return spec
    low, high = _bounds(spec)
    return [_low(spec), high] if spec.int_ else [_low(spec), low + (high - low) / math.pi, high]


def _suggest(trial: optuna.Trial, name: str, spec: Parameter) -> Any:
    if isinstance(spec, Range):
        return spec.suggest(name, trial)
    return spec[trial.suggest_categorical(name, range(len(spec)))]


def _low(spec: Range) -> float | int:
    if spec.zero_or_log:
        return 0.0
    return _bounds(spec)[0]


def _bounds(spec: Range) -> tuple[float, float]:
    bounds = spec.int_ or spec.range or spec.log or spec.zero_or_log
    assert bounds
    return bounds


def _flat(config: TrialConfig) -> dict[str, Any]:
    return dict(flatten(config.model_dump(mode="json")))


def dump(space: Space) -> str:
    """Return the space as YAML that `load` reads back to an equal space."""
    text: str = yaml.safe_dump(space.model_dump(mode="json", by_alias=True, exclude_none=False), sort_keys=False)
    return text


def points(cell: Cell) -> Iterator[dict[str, Any]]:
    """Yield Optuna's parameters of the trials known before the search: the grid, or the first points."""
    source = cell.grid() if cell.space.search.sampler == "grid" else cell.space.first
    for point in source:
        known = cell.enqueue(point)
        if known:
            yield known
