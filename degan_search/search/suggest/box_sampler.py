"""The default sampler: a Gaussian process over the cell's flat box, beside what the user believes (`prior`).

Nothing but the study's trials and the seed decides what a trial gets, so a search that goes on suggests as one that was
never cut.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from degan_search.search.space.cell import Cell
from degan_search.search.suggest.box import Box, axes
from degan_search.search.suggest.priors import Sources, around
from degan_search.system import seeds

STARTUP = 5
"""Finished trials before the Gaussian process is asked; until then points are quasi-random."""
REPEATED = "repeated"
"""Attribute of a suggestion that was turned down, as its configuration was tried before."""
ABSENT = 0.5
"""Where a parameter is put that a trial does not have, on an axis of numbers."""


class BoxSampler(BaseSampler):
    """Draws whole points of a cell's box, so that conditions and "0 or log" do not part what belongs together.

    The Gaussian process is Optuna's (expected improvement, also over what the trials that run may bring). A stopped
    trial counts with its last score and what finished trials gained since, one that diverged as the worst so far. After
    a suggestion that was tried before a quasi-random one follows.
    """

    def __init__(self, cell: Cell, seed: int, model: bool = True) -> None:
        self.cell, self.seed, self.model = cell, seed, model
        self.axes = axes(cell)
        prior = cell.space.prior
        self.prior = None
        if prior and (named := {name: value for name, value in prior.point.items() if name in self.axes}):
            middle = {name: self.axes[name].at(value) for name, value in named.items()}
            self.prior = around(middle, self.axes, prior.confidence)
        self._others = RandomSampler(seed=seed)
        self._drawn: tuple[int, dict[str, Any]] = (-1, {})

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: all parameters of a trial come from `sample_independent`, from one point."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing, as above."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the parameter's value at the trial's point, which is drawn when it is asked for first."""
        if self._drawn[0] != trial.number:
            point = {name: self.axes[name].value(at) for name, at in self._propose(study, trial.number).items()}
            self._drawn = trial.number, self.cell.enqueue(point)
        known = self._drawn[1]
        if param_name in known:
            return known[param_name]
        return self._others.sample_independent(study, trial, param_name, param_distribution)  # another branch

    def _propose(self, study: optuna.Study, number: int) -> Box:
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != number]
        boxes = {trial.number: self._box(trial) for trial in trials}
        rng = np.random.default_rng(seeds.stream_seed(self.seed, "point", number))
        values = _values(trials)
        if self.prior:
            if not any(self.prior.is_middle(box) for box in boxes.values()):
                return self._quasi_random(number) | self.prior.middle
            sources = Sources(self.prior, self.axes, [(boxes[name], value) for name, value in values.items()])
            if source := sources.draw(rng):
                return self._own(trials, values, boxes, number) | source.draw(rng)
        return self._own(trials, values, boxes, number)

    def _own(
        self, trials: Sequence[FrozenTrial], values: Mapping[int, float], boxes: Mapping[int, Box], number: int
    ) -> Box:
        finished = sum(trial.state is TrialState.COMPLETE for trial in trials)
        if not self.model or finished < STARTUP or trials[-1].user_attrs.get(REPEATED):
            return self._quasi_random(number)
        return self._modelled(trials, values, boxes, number)

    def _quasi_random(self, number: int) -> Box:
        """Return a point of a scrambled Sobol sequence (Owen 1998)."""
        from scipy.stats import qmc  # half a second, and only a search that draws needs it

        engine = qmc.Sobol(len(self.axes), rng=np.random.default_rng(self.seed))
        drawn = engine.fast_forward(number + 1).random(1)[0]
        return {name: axis.part(float(at)) for (name, axis), at in zip(self.axes.items(), drawn, strict=True)}

    def _modelled(
        self, trials: Sequence[FrozenTrial], values: Mapping[int, float], boxes: Mapping[int, Box], number: int
    ) -> Box:
        kinds: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(range(axis.places)) if axis.places else FloatDistribution(0, 1)
            for name, axis in self.axes.items()
        }
        absent = {name: 0 if axis.places else ABSENT for name, axis in self.axes.items()}
        seed = seeds.stream_seed(self.seed, "model", number) % 2**32
        with warnings.catch_warnings():  # it is called experimental
            warnings.simplefilter("ignore")
            model = optuna.create_study(direction="maximize", sampler=GPSampler(seed=seed, n_startup_trials=1))
            for trial in trials:
                if trial.number in values or trial.state is TrialState.RUNNING:
                    value = values.get(trial.number)
                    state = TrialState.RUNNING if value is None else TrialState.COMPLETE
                    params: dict[str, Any] = absent | boxes[trial.number]
                    model.add_trial(
                        optuna.trial.create_trial(state=state, value=value, params=params, distributions=kinds)
                    )
            return dict(model.ask(kinds).params)

    def _box(self, trial: FrozenTrial) -> Box:
        found = {name: axis.of(name, trial.params) for name, axis in self.axes.items()}
        return {name: at for name, at in found.items() if at is not None}


def _values(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Return what each trial that ended is worth, by number; turned down suggestions are left out."""
    finished = {trial.number: trial.value for trial in trials if trial.state is TrialState.COMPLETE}
    values = {number: value for number, value in finished.items() if value is not None}
    gains: dict[int, list[float]] = {}
    for trial in trials:
        if trial.number in values:
            for step, score in trial.intermediate_values.items():
                gains.setdefault(step, []).append(values[trial.number] - score)
    for trial in trials:
        if trial.state is TrialState.PRUNED and trial.intermediate_values:
            step = max(trial.intermediate_values)
            score = trial.intermediate_values[step] + float(np.median(gains.get(step, [0.0])))
            if math.isfinite(score):
                values[trial.number] = score
    worst = min(values.values(), default=0.0)
    failed = (trial for trial in trials if trial.state is TrialState.FAIL and REPEATED not in trial.user_attrs)
    return values | {trial.number: worst for trial in failed if trial.params}
