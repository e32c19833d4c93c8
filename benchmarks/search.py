"""What the search brings: rungs, early stopping and samplers, replayed on recorded runs of a full grid.

No trial is run. Compute is in units of the whole grid's seconds, without probes where nothing stops trials early. A
search's choice is the finished trial with the highest score so far, which sees no true data; before one has
finished it is any trial. Intervals are of 95%, by bootstrap over search seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import stats

from analysis.figures import style
from analysis.regret import cross_fitted
from analysis.statistics import interval, rank_correlation
from benchmarks import record
from benchmarks.measure import Figures
from benchmarks.replay import LAST, ROUNDING, SHIPPED, WEIGHTS, Ended, in_random_order, replay, search, timelines
from degan_search.ledger.columns import State
from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from degan_search.search.suggest.asha import Rungs
from degan_search.settings.criteria import TRUE
from degan_search.system.errors import UserError

SHARES = np.linspace(0, 1, 201)
"""Shares of the whole grid's compute at which regret is measured."""
AT = {"quarter": 50, "half": 100, "end": 200}
FACTORS = (2.0, 3.0, 4.0)
RESAMPLES = 1_999


@dataclass(frozen=True)
class Arm:
    """A search: its sampler, `grid` in a random order, and whether it has known first points and early stopping."""

    label: str
    sampler: str
    first: bool = False
    stops: bool = False


ARMS = {
    "asha_tpe": Arm("TPE + ASHA, as shipped", "tpe", first=True, stops=True),
    "tpe": Arm("TPE", "tpe", first=True),
    "tpe_without_first": Arm("TPE without first points", "tpe"),
    "asha_random": Arm("random + ASHA", "random", stops=True),
    "random": Arm("random", "random"),
    "grid": Arm("grid in random order", "grid"),
}


@dataclass(frozen=True)
class Stopping:
    """How trials are stopped early: the first rung, as a share of the GAN steps, and the reduction factor."""

    grace: float
    factor: float


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that came to their end."""
    return frame[frame["state"] == State.COMPLETE]


def whole(frame: pd.DataFrame) -> float:
    """Return the whole grid's seconds, without probes."""
    return sum(results[-1][0] for results in timelines(frame, None).values())


def chosen(frame: pd.DataFrame, ended: Sequence[Ended], by: str) -> np.ndarray:
    """Return the accuracy, in percent, of the choice by a column at each of `SHARES`."""
    known = by_point(frame)
    scores, accuracies = known[by].to_dict(), (100 * known[TRUE]).to_dict()
    accuracy = np.full(len(SHARES), 100 * known[TRUE].mean())
    best, unit = -np.inf, whole(frame)
    for trial in ended:
        if trial.state is State.COMPLETE and scores[trial.point] > best:
            best = scores[trial.point]
            accuracy[trial.spent / unit - ROUNDING < SHARES] = accuracies[trial.point]
    return accuracy


def by_point(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the finished trials, indexed by their weights."""
    return finished(frame).set_index(list(WEIGHTS))


def picked(trials: pd.DataFrame, by: str = "score") -> float:
    """Return the accuracy, in percent, of the trial that has the most of a column; NaN: there is no trial."""
    return nan if trials.empty else 100 * float(trials[TRUE].iloc[int(trials[by].argmax())])


def searched(arm: Arm, frame: pd.DataFrame, stopping: Stopping, seeds: int, by: str) -> np.ndarray:
    """Return the accuracy of an arm's choice, [seeds, SHARES], where it maximises a column and chooses by it."""
    recorded = timelines(frame, stopping.grace if arm.stops else None, by)
    budget = whole(frame)
    top: Any = by_point(frame)[by].idxmax()
    rows = []
    for seed in range(seeds):
        jobs = in_random_order(frame, seed) if arm.sampler == "grid" else search(frame, arm.sampler, arm.first, seed)
        ended = replay(jobs, recorded, Rungs(stopping.factor) if arm.stops else None, time_budget=budget, until=top)
        rows.append(chosen(frame, ended, by))
    return np.array(rows)


def stops(frame: pd.DataFrame, orders: int) -> pd.DataFrame:
    """Return what each way of stopping costs and saves on the grid in random orders.

    Columns: grace (share of the GAN steps), factor, compute (mean, 1 is the whole grid), regret (mean points below the
    choice of all trials) with its interval low and high.
    """
    known, unit = by_point(frame), whole(frame)
    rows = []
    for grace in graces(frame):
        recorded = timelines(frame, grace)
        for factor in FACTORS:
            runs = [replay(in_random_order(frame, order), recorded, Rungs(factor)) for order in range(orders)]
            kept = [known.loc[[trial.point for trial in run if trial.state is State.COMPLETE]] for run in runs]
            regret = interval([picked(known) - picked(own) for own in kept])
            compute = np.mean([run[-1].spent for run in runs]) / unit
            rows.append([grace, factor, compute, regret.mean, regret.low, regret.high])
    return pd.DataFrame(rows, columns=["grace", "factor", "compute", "regret", "low", "high"])


def graces(frame: pd.DataFrame) -> list[float]:
    """Return the rungs, up to the last that counts, as shares of the GAN steps."""
    every = {rung["step"] / row["gan_steps"] for row in frame.to_dict("records") for rung in row["rungs"]}
    return sorted(grace for grace in every if grace <= LAST)


def noise(frame: pd.DataFrame) -> float:
    """Return the standard error of a trial's accuracy, in percent points, from the two halves of the true images."""
    done = finished(frame)
    return float(100 * np.sqrt(((done["oracle_half_1"] - done["oracle_half_2"]) ** 2).mean()) / 2)


def recommended(tables: Sequence[pd.DataFrame], noises: Sequence[float]) -> Stopping | None:
    """Return the stopping with the least compute, on average over the proxies, whose regret is within each one's noise.

    None: there is no such stopping. Takes tables of `stops`.
    """
    together = pd.concat(
        [table.assign(within=table["regret"] <= most) for table, most in zip(tables, noises, strict=True)]
    )
    ways = together.groupby(["grace", "factor"]).agg(
        n=("within", "size"), within=("within", "all"), compute=("compute", "mean")
    )
    kept = ways[ways["within"] & (ways["n"] == len(tables))]
    least: Any = kept["compute"].idxmin() if len(kept) else None
    return Stopping(*least) if least else None


def to_within(regret: np.ndarray, points: float) -> np.ndarray:
    """Return for each row of [seeds, SHARES] the compute from which regret stays within points; 1: not before."""
    above = regret > points
    last = np.where(above.any(axis=1), len(SHARES) - above[:, ::-1].argmax(axis=1), 0)
    return SHARES[np.minimum(last, len(SHARES) - 1)]


def medians(values: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the median over the first axis and its percentile bootstrap interval."""
    given = np.asarray(values, float)
    drawn = stats.bootstrap((given,), np.median, axis=0, n_resamples=RESAMPLES, method="percentile", rng=0)
    return np.median(given, axis=0), *drawn.confidence_interval


def add(figures: Figures, name: str, values: ArrayLike) -> None:
    """Add a median over seeds with its interval."""
    for end, value in zip(("", "_low", "_high"), medians(values), strict=True):
        figures.add(name + end, float(value))


def add_rungs(figures: Figures, name: str, frame: pd.DataFrame) -> None:
    """Add each rung's rank correlations with score and accuracy, and what it takes of a whole trial's seconds."""
    done = finished(frame)
    table = pd.DataFrame([{"trial": trial, **rung} for trial, own in done["rungs"].items() for rung in own])
    for step, rung in table.groupby("step"):
        trials, line = done.loc[rung["trial"]], f"{name}_rung_{step:g}"
        for column, what in (("score", "score"), (TRUE, "accuracy")):
            found = rank_correlation(rung["score"], trials[column])
            for end, value in (("", found.rho), ("_low", found.low), ("_high", found.high)):
                figures.add(f"{line}_rank_correlation_with_{what}{end}", value)
        seconds = trials["seconds"].sum()
        figures.add(f"{line}_reached_at_share_of_seconds", rung["seconds"].sum() / seconds)
        figures.add(f"{line}_probe_share_of_seconds", rung["probe_seconds"].sum() / seconds)


def add_stops(figures: Figures, name: str, frame: pd.DataFrame, orders: int) -> pd.DataFrame:
    """Add what each way of stopping costs; returns it, as `stops`."""
    table = stops(frame, orders)
    for row in table.to_dict("records"):
        line = f"{name}_grace_{row['grace']:g}_factor_{row['factor']:g}"
        figures.add(f"{line}_compute", row["compute"])
        for end, column in (("", "regret"), ("_low", "low"), ("_high", "high")):
            figures.add(f"{line}_points_below_grid{end}", row[column])
    return table


def add_arms(figures: Figures, name: str, frame: pd.DataFrame, stopping: Stopping, seeds: int) -> dict[str, np.ndarray]:
    """Add every arm's regret, choosing by score and by accuracy; returns the points below the grid's by score."""
    done = finished(frame)
    best = 100 * cross_fitted(done)
    below_grid = {}
    for by, references in (("score", ("grid", "best")), (TRUE, ("grid",))):
        suffix = "" if by == "score" else "_by_accuracy"
        grid = picked(done, by)
        costs = {}
        with ProcessPoolExecutor() as pool:
            found = pool.map(partial(searched, frame=frame, stopping=stopping, seeds=seeds, by=by), ARMS.values())
        for label, accuracy in zip(ARMS, found, strict=True):
            line = f"{name}{suffix}_{label}"
            for against, reference in zip(references, (grid, best), strict=False):
                for at, place in AT.items():
                    add(figures, f"{line}_points_below_{against}_at_{at}", reference - accuracy[:, place])
            costs[label] = to_within(grid - accuracy, 1.0)
            add(figures, f"{line}_compute_to_within_1_point", costs[label])
            if not suffix:
                below_grid[label] = grid - accuracy
        own = np.median(costs["asha_tpe"])
        for label in ("random", "grid") if own else ():  # 0: a trial at random is as good as the grid's choice
            figures.add(f"{name}{suffix}_asha_tpe_times_less_compute_than_{label}", np.median(costs[label]) / own)
    return below_grid


def regret_figure(regrets: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Return a panel a proxy: regret against compute, medians over seeds with their intervals."""
    figure, grid = style.panels(len(regrets), 4.4, 3.4)
    looks: dict[str, dict[str, Any]] = {
        label: {"color": colour} for label, colour in zip(ARMS, style.COLOURS, strict=True)
    }
    for axes, (proxy, arms) in zip(grid, regrets.items(), strict=True):
        for label, regret in arms.items():
            middle, low, high = medians(regret)
            axes.plot(SHARES, middle, **looks[label], linewidth=1.5, drawstyle="steps-post")
            axes.fill_between(SHARES, low, high, **looks[label], alpha=0.15, linewidth=0, step="post")
        axes.axhline(0, color=style.GRAY, linewidth=0.8)
        axes.set_title(proxy, fontsize=9)
        style.plain(axes, "both")
    style.name_axes(grid, "compute (1: the whole grid)", "points below the grid's choice")
    style.legend(figure, [style.mark(ARMS[label].label, **looks[label], linestyle="-") for label in ARMS])
    return figure


def main() -> None:
    """Print the evidence on every recorded table."""
    factor = (space_file.load(SHIPPED).asha or schema.AshaConfig()).reduction_factor
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="*", help="default all of benchmarks/recorded")
    parser.add_argument("--seeds", type=int, default=20, help="search seeds, default 20")
    parser.add_argument("--orders", type=int, default=100, help="orders of the grid for each stopping, default 100")
    parser.add_argument(
        "--grace", type=float, default=0.25, help="first rung of the comparison, as a share of GAN steps"
    )
    parser.add_argument("--factor", type=float, default=factor, help=f"its reduction factor, default {factor:g}")
    parser.add_argument("--figure", type=Path, help="where to draw regret against compute")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    given = parser.parse_args()
    paths = given.tables or sorted(record.FOLDER.glob("*.parquet"))
    if not paths:
        parser.error(f"no recorded table in {record.FOLDER}: `python -m benchmarks.record RUN` makes one from a run")
    try:
        tables = {path.stem.removeprefix("grid_"): record.read(path) for path in paths}
    except UserError as error:
        parser.error(str(error))
    figures, regrets, ways = Figures(), {}, []
    for proxy, frame in tables.items():
        name, done = f"search_{proxy}", finished(frame)
        figures.add(f"{name}_trials", len(frame))
        figures.add(f"{name}_hours", whole(frame) / 3600)
        figures.add(f"{name}_accuracy_at_random", 100 * done[TRUE].mean())
        figures.add(f"{name}_accuracy_of_grid_by_score", picked(done))
        figures.add(f"{name}_accuracy_of_best", 100 * cross_fitted(done))
        figures.add(f"{name}_accuracy_standard_error", noise(frame))
        add_rungs(figures, name, frame)
        ways.append(add_stops(figures, name, frame, given.orders))
        regrets[proxy] = add_arms(figures, name, frame, Stopping(given.grace, given.factor), given.seeds)
    advised = recommended(ways, [noise(frame) for frame in tables.values()])
    if advised:
        figures.add("search_recommended_grace", advised.grace)
        figures.add("search_recommended_factor", advised.factor)
    figures.save(given.json)
    if given.figure:
        style.save(regret_figure(regrets), given.figure)


if __name__ == "__main__":
    main()
