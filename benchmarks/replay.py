"""A search replayed on a recorded grid: the package's own searcher and rungs, with recorded seconds as the clock."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import pandas as pd

from degan_search.ledger.columns import Phase, State
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import Job, new_job
from degan_search.search.run.results import TrialResult
from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from degan_search.search.space.cell import Cell
from degan_search.search.suggest.asha import Rungs
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.search.suggest.job_queue import GivenJobs, Jobs
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig

SLOTS = 2
SHIPPED = "fashion_mnist_cpu"
"""The space whose ranges, first points and reduction factor a replayed search has; the shipped ones agree in these."""
WEIGHTS = ("lambda_e", "lambda_d")
LAST = 0.5
"""Share of the GAN steps at the last rung: a later probe costs its time and could stop only what is nearly done."""
ROUNDING = 1e-9

Point = tuple[float, float]
"""(lambda_e, lambda_d)."""
Timeline = list[tuple[float, TrialResult]]
"""A trial's results, each with the seconds from its start; they name no trial yet."""


def timelines(frame: pd.DataFrame, grace: float | None, objective: str = "score") -> dict[Point, Timeline]:
    """Return the results of each trial of a recorded table.

    Args:
        frame: from `benchmarks.record`.
        grace: share of a trial's GAN steps at its first rung. Probes before it or after `LAST` are not made and cost
            nothing; with None no probe is made.
        objective: the column that is a finished trial's score; rungs keep theirs.
    """
    return {(row["lambda_e"], row["lambda_d"]): _timeline(row, grace, objective) for row in frame.to_dict("records")}


def _timeline(row: Mapping[Any, Any], grace: float | None, objective: str) -> Timeline:
    timeline: Timeline = []
    saved = 0.0
    for rung in row["rungs"]:
        if grace is None or not grace * row["gan_steps"] <= rung["step"] <= LAST * row["gan_steps"]:
            saved += rung["probe_seconds"]
        else:
            at_rung = TrialResult(id="", score=rung["score"], gan_steps=int(rung["step"]))
            timeline.append((rung["seconds"] - saved, at_rung))
    end = TrialResult(id="", score=row[objective], gan_steps=int(row["gan_steps"]), state=row["state"])
    return [*timeline, (row["seconds"] - saved, end)]


def nearest(value: float, values: Sequence[float]) -> float:
    """Return the value of a grid that is nearest by its ratio; 0 is nearest to 0 alone."""
    if value == 0:
        return 0.0
    return min((other for other in values if other > 0), key=lambda other: abs(math.log(other / value)))


@dataclass(frozen=True)
class GridCell(Cell):
    """A cell whose suggestions are moved to the nearest point of a grid, so that repeats are seen as such."""

    values: Mapping[str, Sequence[float]] = field(kw_only=True)

    def configure(self, trial: optuna.Trial) -> TrialConfig:
        """Draw one configuration from the ranges, and move its weights."""
        config = super().configure(trial)
        moved = {name: nearest(getattr(config.gan, name), values) for name, values in self.values.items()}
        return config.model_copy(update={"gan": config.gan.model_copy(update=moved)})


def parameters(frame: pd.DataFrame) -> dict[str, schema.Parameter]:
    """Return what a replayed search varies: the shipped ranges, and of several proxies these."""
    ranges = {name: spec for when in space_file.load(SHIPPED).when for name, spec in when.parameters.items()}
    proxies = list(frame["proxy"].unique()) if "proxy" in frame else []
    return {"proxy": proxies, **ranges} if len(proxies) > 1 else ranges


def search(
    frame: pd.DataFrame,
    sampler: str,
    first: bool,
    seed: int,
    prior: schema.Prior | None = None,
    points: Sequence[dict[str, schema.Scalar]] = (),
) -> CellSearcher:
    """Return the package's searcher over the shipped ranges, with or without the shipped first points.

    Where the table is of several proxies, these are searched too. `points` are tried before the first ones.
    """
    trials = schema.SearchConfig(sampler=sampler, seed=seed, trials=schema.MAX_TRIALS)
    known = [*points, *(space_file.load(SHIPPED).first if first else [])]
    space = schema.Space(parameters=parameters(frame), first=known, prior=prior, search=trials)
    return CellSearcher([GridCell({}, space, values={name: sorted(set(frame[name])) for name in WEIGHTS})])


def in_random_order(frame: pd.DataFrame, seed: int) -> GivenJobs:
    """Return the recorded trials as jobs, each once."""
    points = frame[list(WEIGHTS)].to_dict("records")
    order = np.random.default_rng(seed).permutation(len(points))
    configs = [trial_config({"gan": points[place]}) for place in order]
    return GivenJobs(new_job(Phase.SEARCH, n, "grid", config) for n, config in enumerate(configs))


@dataclass(frozen=True)
class Ended:
    """How a replayed trial ended, the seconds that all slots together had worked by then (`spent`), and the clock."""

    point: Point
    state: State
    spent: float
    clock: float


@dataclass(frozen=True)
class _Running:
    name: str
    job: Job
    begun: float
    results: Iterator[tuple[float, TrialResult]]


def replay(
    jobs: Jobs,
    recorded: Mapping[Point, Timeline],
    rungs: Rungs | None,
    slots: int = SLOTS,
    time_budget: float = math.inf,
    until: Point | None = None,
) -> list[Ended]:
    """Run a search on recorded trials until it has begun all of them, its jobs are out, or its time budget is spent.

    Asynchronous, as under Tune: a slot takes the next job as soon as its own ended. Trials that end when more than
    `time_budget` seconds were worked are left out.

    Args:
        jobs: the searcher.
        recorded: from `timelines`.
        rungs: what stops trials early; None: nothing does.
        slots: trials at a time.
        time_budget: seconds of work, those of all slots together.
        until: end also when this point's trial has come to its end; with the grid's best one no later trial can change
            what is chosen.
    """
    queue: list[tuple[float, int, _Running, TrialResult]] = []
    ended: list[Ended] = []
    begun: set[Point] = set()
    numbers = itertools.count()
    clock = spent = 0.0

    def listen(trial: _Running) -> None:
        seconds, result = next(trial.results)
        own = result.model_copy(update={"id": trial.job.id})
        heapq.heappush(queue, (trial.begun + seconds, next(numbers), trial, own))

    def start() -> None:
        name = f"trial-{next(numbers)}"
        suggested = jobs.suggest(name) if len(begun) < len(recorded) else None
        if isinstance(suggested, dict):
            (taken,) = tune_dicts.from_config(suggested)
            begun.add(_point(taken))
            listen(_Running(name, taken, clock, iter(recorded[_point(taken)])))

    for _ in range(slots):
        start()
    while queue:
        running = len(queue)
        when, _, trial, result = heapq.heappop(queue)
        clock, spent = when, spent + running * (when - clock)
        if spent > time_budget * (1 + ROUNDING):
            break
        if result.state is None and _goes_on(rungs, trial.job, result):
            jobs.on_trial_result(trial.name, tune_dicts.to_result([result], [result.id], 1))
            listen(trial)
            continue
        state = result.state or State.PRUNED
        jobs.ended(trial.job, state, result)
        jobs.on_trial_complete(trial.name)
        ended.append(Ended(_point(trial.job), state, spent, clock))
        if ended[-1].point == until and state is State.COMPLETE:
            break
        start()
    return ended


def _goes_on(rungs: Rungs | None, taken: Job, result: TrialResult) -> bool:
    return rungs is None or rungs.record(taken.cell, result.gan_steps, result.score, taken.id) is None


def _point(taken: Job) -> Point:
    return taken.config.gan.lambda_e, taken.config.gan.lambda_d
