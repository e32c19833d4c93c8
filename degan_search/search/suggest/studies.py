"""Optuna's studies, one for each cell: empty ones for a search, and finished searches rebuilt from the ledger."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from degan_search import ledger
from degan_search.ledger.columns import METRICS, Phase, State, config_of
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import Cell, cells, first_points
from degan_search.search.suggest.box_sampler import BoxSampler
from degan_search.settings.goals import GOALS, SCORE
from degan_search.settings.methods import METHODS, UNTUNED
from degan_search.settings.resolve import flatten
from degan_search.settings.trial import TrialConfig
from degan_search.system import seeds
from degan_search.system.errors import UserError

OPTUNA_STATES = {
    State.COMPLETE: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.FAIL: TrialState.FAIL,
}

DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}

TOP = 5
"""Trials that are taken as the good ones for importances, at least, as Optuna advises."""
FEWEST = 2 * TOP
"""Finished trials that a cell needs for importances: of fewer, the good ones would be most."""


def sampler_seed(cell: Cell, known: int = 0) -> int:
    """Return the seed of a cell's sampler, where so many trials are known already."""
    return seeds.stream_seed(cell.space.search.seed, "search", cell.label, *([known] if known else [])) % 2**32


def create(cell: Cell, known: int = 0) -> optuna.Study:
    """Return an empty study with the cell's sampler.

    `known` is the number of earlier trials that will be added to the study. The sampler's seed depends on it, so that a
    search that goes on does not draw its first points again.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns where a model could not be fitted
    search = cell.space.search
    seed = sampler_seed(cell, known)
    sampler: BaseSampler
    if search.sampler == "tpe" or (search.sampler == "gp" and len(search.objectives) > 1):
        with warnings.catch_warnings():  # `group` is called experimental; conditional parameters need it
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = TPESampler(seed=seed, group=True, n_startup_trials=max(5, len(first_points(cell))))
    elif search.sampler == "gp" or cell.space.prior:
        sampler = BoxSampler(cell, seed, model=search.sampler == "gp")
    else:
        sampler = RandomSampler(seed=seed)
    return optuna.create_study(
        directions=[DIRECTIONS[GOALS[goal].direction] for goal in search.objectives],
        sampler=sampler,
        study_name=cell.label,
    )


def studies(run: Path, score_alone: bool = False) -> dict[str, optuna.Study]:
    """Return the study of each cell of a run's space that has search trials in its ledger, by the cell's label.

    `score_alone`: as if the search had pursued nothing else.

    Raises:
        UserError: no run there, no space.yaml in it, or rows that do not fit it.
    """
    frame, curves = ledger.load(run), ledger.curves(run)
    space = space_file.of_run(run)
    if score_alone:
        space = space.model_copy(update={"search": space.search.model_copy(update={"objectives": [SCORE]})})
    made = {cell.label: from_ledger(cell, frame, curves) for cell in cells(space)}
    return {label: study for label, study in made.items() if study.get_trials(deepcopy=False)}


def from_ledger(cell: Cell, frame: pd.DataFrame, curves: pd.DataFrame, lenient: bool = False) -> optuna.Study:
    """Return the study of a cell's search as it stood when the last of its rows was written.

    Takes `ledger.load` and `ledger.curves` of one run; rows of other cells and of finals are left out. Each
    row is a trial with its parameters, state, rung scores by GAN step, times, and its id and measures as user
    attributes. Suggestions that the search turned down as repeats left no row. The study can be asked for
    more trials; the caller enqueues points of `cell.points` that have no row yet.

    Raises:
        UserError: a row whose parameters the cell does not allow; if `lenient`, such rows are left out.
    """
    mine = (frame["cell"] == cell.label) & (frame["phase"] == Phase.SEARCH)
    reports = curves[curves["score"].notna() & (curves["stage"] != "done") & (curves["cell"] == cell.label)]
    rungs = {name: dict(zip(own["budget"], own["score"], strict=True)) for name, own in reports.groupby("trial_id")}
    rows = frame[mine].sort_values("number").to_dict("records")
    study = create(cell, known=len(rows))
    for row in rows:
        try:
            study.add_trial(_trial(cell, row, rungs.get(row["trial_id"], {})))
        except UserError:
            if not lenient:
                raise
    return study


def told(state: State, values: Sequence[float]) -> tuple[State, list[float] | None]:
    """Return as what a finished trial is told: with its values, or as failed where one could not be measured."""
    if all(map(math.isfinite, values)):
        return state, [*values]
    return State.FAIL, None  # Optuna refuses such values


def ask_again(study: optuna.Study, cell: Cell, config: TrialConfig) -> optuna.Trial | None:
    """Return a new, running trial of the study with the parameters of a known configuration; None: it does not fit."""
    try:
        params, _ = _parameters(cell, config)
    except UserError:
        return None
    study.enqueue_trial(params)
    trial = study.ask()
    cell.configure(trial)
    return trial


def importances(run: Path) -> pd.DataFrame:
    """Return how important each parameter was for reaching a cell's best scores: cell, parameter, importance, n.

    Importances are of PED-ANOVA (Watanabe et al. 2023; its conditional form for parameters that only some
    trials have) and sum to 1 in a cell; n is the number of finished trials. The good ones are the best tenth, and
    at least `TOP`; cells with fewer than `FEWEST` finished trials are left out. `x is 0` is the draw of a
    "0 or log" parameter between the two.

    Raises:
        UserError: as `studies`.
    """
    from optuna import importance  # here, as it brings scikit-learn and scipy with it, which take a second to load

    rows: list[dict[str, Any]] = []
    for label, study in studies(run, score_alone=True).items():
        done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(done) < FEWEST:
            continue
        evaluator = importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, TOP / len(done)))
        with warnings.catch_warnings():  # it warns where all scores are equal
            warnings.simplefilter("ignore")
            found = importance.get_param_importances(study, evaluator=evaluator)
        rows += [
            {"cell": label, "parameter": name, "importance": value, "n": len(done)} for name, value in found.items()
        ]
    return pd.DataFrame(rows, columns=["cell", "parameter", "importance", "n"])


def _trial(cell: Cell, row: Mapping[Any, Any], rungs: Mapping[int, float]) -> FrozenTrial:
    try:
        params, distributions = _parameters(cell, config_of(row))
    except UserError as error:
        raise UserError(f"{row['trial_id']} does not fit the space of its run: {error}") from None
    goals, values = cell.space.search.objectives, None
    if len(goals) > 1:
        rungs = {}  # Optuna keeps none of a trial with several values
    state = State(row["state"])
    if state is State.COMPLETE:
        state, values = told(state, [math.nan if pd.isna(row[goal]) else float(row[goal]) for goal in goals])
    elif state is State.PRUNED and rungs:  # as Optuna itself values a pruned trial
        values = [rungs[max(rungs)]]
    measures = {name: float(row[name]) for name in METRICS if pd.notna(row[name])}
    about = {name: str(row[name]) for name in ("trial_id", "reason") if pd.notna(row[name])}
    trial = optuna.trial.create_trial(
        state=OPTUNA_STATES[state],
        values=values,
        params=params,
        distributions=distributions,
        intermediate_values={int(step): float(score) for step, score in rungs.items()},
        user_attrs=about | measures,
    )
    trial.datetime_start, trial.datetime_complete = _local(row["started"]), _local(row["finished"])
    return trial


def _parameters(cell: Cell, config: TrialConfig) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Return Optuna's parameters under which the cell gives this configuration, and their distributions."""
    point = dict(flatten(config.model_dump(mode="json")))
    unused: dict[str, Any] = {}
    if not METHODS[config.method].tuned:  # rows do not hold drawn weights that had no effect
        for name in (f"gan.{weight}" for weight in UNTUNED):
            del point[name]
            unused |= {name: 0, f"{name} is 0": True}
    params = cell.enqueue(point)
    fixed = FixedTrial({**unused, **params})
    with warnings.catch_warnings():  # it warns that an unused 0 is out of range
        warnings.simplefilter("ignore")
        cell.configure(fixed)  # type: ignore[arg-type]
    return params, {name: fixed.distributions[name] for name in params}


def _local(moment: pd.Timestamp) -> datetime:
    """Return a time as Optuna keeps it: local, without a time zone."""
    return moment.to_pydatetime().astimezone().replace(tzinfo=None)
