"""Cells: the searches of a space, each with fixed settings and the parameters that vary."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import optuna

from degan_search.search.space.schema import MAX_TRIALS, SHARED, Parameter, Range, Scalar, Space, first_value, suggest
from degan_search.settings.criteria import SURE
from degan_search.settings.methods import METHODS, UNTUNED, WITHOUT_PROXY, normalised
from degan_search.settings.resolve import flatten, merge, stable_hash, trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError


def _listed(spec: Parameter) -> Sequence[Scalar]:
    """Return a list's values, or the lowest of a range."""
    return spec if isinstance(spec, list) else [spec.lowest]


Branch = tuple[TrialConfig, dict[str, Parameter], dict[str, Scalar]]
"""A configuration, its parameters, and their values."""
Resolve = Callable[[Callable[[str, Parameter], Any]], tuple[TrialConfig, dict[str, Parameter]]]
"""Takes what draws a parameter; returns a configuration with its parameters."""


@dataclass(frozen=True)
class Cell:
    """One search: fixed settings, and the parameters that vary."""

    settings: dict[str, Any]
    space: Space = field(repr=False)

    @property
    def label(self) -> str:
        """Such as `proxy=photos method=degan`."""
        return self.labelled()

    def labelled(self, **other: Scalar) -> str:
        """Return the label with some settings at other values."""
        return " ".join(f"{key}={value}" for key, value in (self.settings | other).items()) or "all"

    def configure(self, trial: optuna.Trial) -> TrialConfig:
        """Draw one configuration, with what its conditions add."""
        return self._resolve(lambda name, spec: suggest(trial, name, spec))[0]

    def enqueue(self, point: Mapping[str, Scalar]) -> dict[str, Any]:
        """Return Optuna's parameters for a known point; keys that this cell does not vary are left out.

        Raises:
            UserError: a value that the parameter cannot take.
        """
        known: dict[str, Any] = {}

        def fixed(name: str, spec: Parameter) -> Any:
            if name not in point:
                return first_value(spec)
            value = point[name]
            if isinstance(spec, list):
                if value not in spec:
                    raise UserError(f"{name} = {value!r} is not one of {spec}")
                known[name] = spec.index(value)
            else:
                known.update(spec.known(name, value))
            return value

        self._resolve(fixed)
        return known

    def example(self) -> TrialConfig:
        """Return the configuration with each parameter at its first or lowest value."""
        return self._first[0]

    def varies(self) -> dict[str, Parameter]:
        """Return the parameters that may vary in this cell, by name."""
        return dict(self._first[1])

    @cached_property
    def _first(self) -> tuple[TrialConfig, dict[str, Parameter]]:
        return self._resolve(lambda _, spec: first_value(spec))

    def grid(self) -> list[dict[str, Scalar]]:
        """Return every combination of this cell's lists, each with the parameters that its conditions give it.

        Raises:
            UserError: a parameter is a range, which has no combinations; more than MAX_TRIALS.
        """
        combinations = list(itertools.islice(self.branches(lambda _: True), MAX_TRIALS + 1))
        for name, spec in (parameter for _, varies, _ in combinations for parameter in varies.items()):
            if isinstance(spec, Range):
                raise UserError(f"search.sampler grid needs lists, but {name} is a range")
        if len(combinations) > MAX_TRIALS:
            raise UserError(f"search.sampler grid has more than {MAX_TRIALS:,} combinations")
        return [values for _, _, values in combinations]

    def distinct(self, most: int) -> dict[str, dict[str, Scalar]] | None:
        """Return the configurations that the search can draw, each by its hash and with a point that gives it.

        At most `most`, which may then not be all. None: a range gives endless ones.
        """
        varies, fixed = self.varies(), normalised(self.example())
        idle = () if "method" in varies or METHODS[fixed.method].tuned else tuple(f"gan.{name}" for name in UNTUNED)

        def values(spec: Parameter) -> Sequence[Scalar]:
            if isinstance(spec, Range) and spec.int_:
                return range(spec.int_[0], min(spec.int_[1], spec.int_[0] + most) + 1)
            return _listed(spec)

        found: dict[str, dict[str, Scalar]] = {}
        for config, drawn, point in self.branches(lambda name: name not in idle, values):
            if any(isinstance(spec, Range) and not spec.int_ and name not in idle for name, spec in drawn.items()):
                return None
            found.setdefault(stable_hash(config), point)
            if len(found) >= most:
                break
        return found

    def branches(
        self, follows: Callable[[str], bool], values_of: Callable[[Parameter], Sequence[Scalar]] = _listed
    ) -> Iterator[Branch]:
        """Yield a branch for every value of the lists that `follows` names.

        Other parameters are at their first or lowest value. `values_of` may give ranges more values than the lowest.
        """
        return _branches(self._resolve, follows, values_of)

    def trials(self) -> int:
        """Return how many trials the search of this cell runs."""
        if not self.varies():
            return 0 if self.space.finals else 1
        if self.space.search.sampler == "grid":
            return len(self.grid())
        possible = self.distinct(wanted := self.space.search.trials)
        return wanted if possible is None else len(possible)

    @cached_property
    def proxies(self) -> tuple[str, ...]:
        """The proxies that trials of this cell may use."""
        return _proxies(_branches(self._drawn, self.space.conditions().__contains__))

    @cached_property
    def _several(self) -> tuple[tuple[str, ...], bool]:
        """The proxies of a bank of several, () where the space says its own; and whether it names an objective."""
        shared = len(self.proxies) > 1 and not _says(self.space, "bank.proxies")
        return self.proxies if shared else (), _says(self.space, "objective")

    def shared(self) -> Iterator[TrialConfig]:
        """Yield a configuration for every value of `SHARED` settings, and of those in conditions."""
        conditions = self.space.conditions()
        for config, _, _ in self.branches(lambda name: name.startswith(SHARED) or name in conditions):
            yield config

    def _resolve(self, draw: Callable[[str, Parameter], Any]) -> tuple[TrialConfig, dict[str, Parameter]]:
        """Return what `_drawn` does, compared as trials on several proxies have to be if this cell has several."""
        config, drawn = self._drawn(draw)
        return _compared(config, *self._several), drawn

    def _drawn(self, draw: Callable[[str, Parameter], Any]) -> tuple[TrialConfig, dict[str, Parameter]]:
        """Apply conditions in the file's order, drawing each parameter where it first comes up."""
        drawn: dict[str, Parameter] = {}
        values: dict[str, Any] = {}
        settings = merge(self.space.trial, self.settings)

        def take(parameters: Mapping[str, Parameter]) -> None:
            for name, spec in parameters.items():
                if name in drawn:
                    raise UserError(f"{name} varies twice in one trial; let every condition but one leave it out")
                if name not in self.settings:
                    drawn[name], values[name] = spec, draw(name, spec)

        take(self.space.parameters)
        for when in self.space.when:
            if when.holds(_flat(json.dumps(merge(settings, values)))):
                settings = merge(settings, when.trial)
                take(when.parameters)
        return _config(json.dumps(merge(settings, values))), drawn


def _proxies(branches: Iterator[Branch]) -> tuple[str, ...]:
    each = (
        map(str, _listed(drawn["proxy"])) if "proxy" in drawn else [config.proxy]
        for config, drawn, _ in itertools.islice(branches, MAX_TRIALS)
    )
    return tuple(dict.fromkeys(itertools.chain.from_iterable(each)))


def _compared(config: TrialConfig, proxies: tuple[str, ...], given: bool) -> TrialConfig:
    """Return a trial with a bank of all proxies, judged by `sure_agreement` unless its objective is `given`.

    Across proxies other objectives choose little better than chance (docs/results/2026-11-28-choosing.md).
    """
    if not proxies or config.task != "distillation":
        return config
    bank = config.bank.model_copy(update={"proxies": proxies})
    objective = config.objective if given or not bank.proxy_images else SURE
    return config.model_copy(update={"bank": bank, "objective": objective})


def _says(space: Space, setting: str) -> bool:
    """Return whether the space fixes or varies a setting anywhere."""
    fixed = (space.trial, *(when.trial for when in space.when))
    varied = {*space.cells, *space.parameters, *(name for when in space.when for name in when.parameters)}
    return setting in varied or any(setting in dict(flatten(merge({}, one))) for one in fixed)


def _branches(
    resolve: Resolve, follows: Callable[[str], bool], values_of: Callable[[Parameter], Sequence[Scalar]] = _listed
) -> Iterator[Branch]:
    waiting: list[dict[str, Scalar]] = [{}]
    while waiting:
        point = waiting.pop()

        def draw(name: str, spec: Parameter, point: dict[str, Scalar] = point) -> Scalar:
            if name not in point:
                values = values_of(spec)
                if follows(name):
                    waiting.extend({**point, name: value} for value in reversed(values[1:]))
                point[name] = values[0]
            return point[name]

        yield *resolve(draw), point


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


def shared_configs(space: Space) -> list[TrialConfig]:
    """Return a configuration for everything that trials of a space share (`Cell.shared`), final runs among them."""
    configs = [config for cell in cells(space) for config in cell.shared()]
    if not (space.finals and (changes := space.finals.settings())):
        return configs
    return [*configs, *(trial_config(config.model_dump(mode="json"), changes) for config in configs)]


def lists(cell: Cell) -> dict[str, list[Scalar]]:
    """Return the parameters that are lists in a cell, under any condition, by name."""
    found: dict[str, list[Scalar]] = {}
    for _, varies, _ in itertools.islice(cell.branches(cell.space.conditions().__contains__), MAX_TRIALS):
        found |= {name: spec for name, spec in varies.items() if isinstance(spec, list)}
    return found


def fewer_points(cells: Iterable[Cell]) -> Iterator[str]:
    """Yield a line for each cell with fewer possible points than the space asks trials for, if that is so of all."""
    varied = [cell for cell in cells if cell.varies() and cell.space.search.sampler != "grid"]
    short = [(cell, runs) for cell in varied if (runs := cell.trials()) < cell.space.search.trials]
    for cell, runs in short if len(short) == len(varied) else ():
        wanted = cell.space.search.trials
        yield f"{cell.label}: search.trials is {wanted}, but there are only {runs} possible points: {runs} are run"


@lru_cache(maxsize=1024)  # a cell is asked for the same again and again
def _config(settings: str) -> TrialConfig:
    """Return the configuration of settings as JSON, without those that its method does not use."""
    return normalised(trial_config(json.loads(settings)))


@lru_cache(maxsize=1024)
def _flat(settings: str) -> Mapping[str, Any]:
    """Return every setting by its dotted name, from some as JSON."""
    return dict(flatten(trial_config(json.loads(settings)).model_dump(mode="json")))


def earlier_points(cell: Cell) -> list[dict[str, Scalar]]:
    """Return the points of earlier runs that a cell tries."""
    return [one.point for one in cell.space.earlier if one.cell == cell.label]


def first_points(cell: Cell) -> list[dict[str, Scalar]]:
    """Return the points that a cell tries first: those of earlier runs, then the space's own."""
    return [*earlier_points(cell), *cell.space.first]


def points(cell: Cell) -> Iterator[dict[str, Any]]:
    """Yield Optuna's parameters of the trials known before the search: the grid, or the first points."""
    source = cell.grid() if cell.space.search.sampler == "grid" else first_points(cell)
    for point in source:
        known = cell.enqueue(point)
        if known:
            yield known
