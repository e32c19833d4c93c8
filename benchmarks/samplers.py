"""Samplers and priors, replayed on recorded tables: how near the best do so many trials come?

No trial is run. Two trials run at a time, the one begun first ends first. A task is a grid of weights, or of the
choosing bench a teacher's four proxies with their weights, where the search chooses the proxy too. Regret is how far
the best trial found lies below the best there is, in what the search maximises; 1 is the mean regret of one trial at
random from the table. `points` are percent points of true accuracy below the choice of all trials by the same measure.
Intervals are of 95%, by bootstrap over tasks, of means over seeds.
"""

from __future__ import annotations

import argparse
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, TPESampler

from analysis.statistics import interval
from benchmarks import record
from benchmarks.measure import Figures
from benchmarks.replay import SLOTS, WEIGHTS, search
from degan_search.ledger.columns import State
from degan_search.search.run import tune_dicts
from degan_search.search.run.results import TrialResult
from degan_search.search.space.cell import Cell
from degan_search.search.space.schema import Prior, Scalar
from degan_search.search.suggest import studies
from degan_search.search.suggest.box_sampler import BoxSampler
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.settings.criteria import TRUE

GRIDS = ("fashion_mnist", "fashion_mnist_background_6", "cifar10")
BENCH = ("letters", "fashion_mnist", "numerals", "cifar10")
KEY = ("proxy", *WEIGHTS)
AT = (4, 8, 16, 32)
"""Trials after which regret is read; the first is a tenth of a grid of 36."""

Make = Callable[[Cell, int], BaseSampler]
"""Returns a sampler that is not the package's, of a cell and a seed."""


@dataclass(frozen=True)
class Arm:
    """A search: the package's sampler of this name, or another one in its place; `grid` in a random order."""

    sampler: str
    other: Make | None = None


ARMS: dict[str, Arm] = {
    "gp": Arm("gp"),
    "tpe": Arm("tpe"),
    "random": Arm("random"),
    "grid": Arm("grid"),
    "quasi_random": Arm("gp", lambda cell, seed: BoxSampler(cell, studies.sampler_seed(cell), model=False)),
    "optuna_gp": Arm("random", lambda _, seed: GPSampler(seed=seed, n_startup_trials=5)),
    "optuna_quasi_random": Arm("random", lambda _, seed: QMCSampler(seed=seed, scramble=True)),
    "tpe_univariate": Arm("random", lambda cell, seed: TPESampler(seed=seed, multivariate=False, n_startup_trials=5)),
    "tpe_2_startup": Arm("random", lambda cell, seed: TPESampler(seed=seed, group=True, n_startup_trials=2)),
    "tpe_10_startup": Arm("random", lambda cell, seed: TPESampler(seed=seed, group=True, n_startup_trials=10)),
}
"""`tpe` is multivariate, with five trials before its model; `quasi_random` is `gp` without its model."""


def tasks() -> dict[str, pd.DataFrame]:
    """Return the recorded tasks: proxy, weights, score, accuracy."""
    columns = [*KEY, "score", "accuracy"]
    found = {}
    for name in GRIDS:
        frame = record.read(record.FOLDER / f"grid_{name}.parquet").rename(columns={TRUE: "accuracy"})
        found[f"grid_{name}"] = frame[frame["state"] == State.COMPLETE].assign(proxy=name)[columns]
    for name in BENCH:
        frame = pd.read_parquet(record.FOLDER / f"choice_{name}.parquet")
        frame = frame[
            (frame["seed"] == 0) & ((frame["lambda_e"] < 1) | (name != "cifar10"))
        ]  # the rest was not trained
        found[f"bench_{name}"] = frame[columns]
    return {name: frame.reset_index(drop=True) for name, frame in found.items()}


def searched(
    task: pd.DataFrame,
    arm: Arm,
    first: bool,
    seed: int,
    by: str,
    trials: int = AT[-1],
    prior: Prior | None = None,
    points: Sequence[dict[str, Scalar]] = (),
) -> list[int]:
    """Return the row of each trial in the order in which they end; no more after the best there is."""
    best = int(task[by].to_numpy().argmax())
    if arm.sampler == "grid":
        order: list[int] = np.random.default_rng(seed).permutation(len(task))[:trials].tolist()
        return order[: order.index(best) + 1] if best in order else order
    jobs = search(task, arm.sampler, first, seed, prior, points)
    if arm.other:
        jobs.studies["all"].sampler = arm.other(jobs.cells["all"], seed)
    found: list[int] = []
    for row in _ended(jobs, task, by, trials):
        found.append(row)
        if row == best:
            break
    return found


def _ended(jobs: CellSearcher, task: pd.DataFrame, by: str, trials: int) -> Iterator[int]:
    rows = {tuple(row): place for place, row in enumerate(task[list(KEY)].to_numpy().tolist())}
    several = task["proxy"].nunique() > 1
    running: deque[str] = deque()
    for number in range(trials + SLOTS):
        if len(running) == SLOTS or number >= trials:
            name = running.popleft()
            (job,) = jobs.running[name]
            weights = job.config.gan
            proxy = job.config.proxy if several else task["proxy"].iloc[0]
            row = rows[proxy, weights.lambda_e, weights.lambda_d]
            end = TrialResult(id=job.id, score=float(task[by].iloc[row]), gan_steps=1, state=State.COMPLETE)
            jobs.ended(job, State.COMPLETE, end)
            jobs.on_trial_complete(name)
            yield row
        if number < trials:
            suggested = jobs.suggest(name := str(number))
            assert isinstance(suggested, dict)
            tune_dicts.from_config(suggested)
            running.append(name)


def regrets(task: pd.DataFrame, rows: Sequence[int], by: str) -> np.ndarray:
    """Return regret and points below all trials' choice after each of `AT` trials, or at the end, [len(AT), 2]."""
    values, accuracy = task[by].to_numpy(), 100 * task["accuracy"].to_numpy()
    chosen = [rows[int(values[list(rows[:trials])].argmax())] for trials in AT]
    regret = (values.max() - values[chosen]) / (values.max() - values.mean())
    return np.stack([regret, accuracy[values.argmax()] - accuracy[chosen]], axis=1)


def priors(task: pd.DataFrame, by: str, seed: int) -> dict[str, Prior]:
    """Return a good, a mediocre and an adversarial prior for a grid of weights.

    Good: the best point or a neighbour of it on the grid, by the seed. Mediocre: the median trial. Adversarial: the
    worst.
    """
    order = task.sort_values(by)[list(WEIGHTS)].to_numpy()
    grids = [sorted(set(task[name])) for name in WEIGHTS]
    at = [grid.index(value) for grid, value in zip(grids, order[-1], strict=True)]
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    near = [
        [grid[place + by] for grid, place, by in zip(grids, at, move, strict=True)]
        for move in moves
        if all(0 <= place + by < len(grid) for grid, place, by in zip(grids, at, move, strict=True))
    ]
    middles = {"good": near[seed % len(near)], "mediocre": order[len(order) // 2], "adversarial": order[0]}
    return {name: _prior(values) for name, values in middles.items()}


def _prior(values: Sequence[float], confidence: str = "medium") -> Prior:
    given = {f"gan.{name}": float(value) for name, value in zip(WEIGHTS, values, strict=True)}
    return Prior.model_validate({"confidence": confidence, **given})


def add(figures: Figures, name: str, found: Mapping[str, np.ndarray], most: int) -> None:
    """Add means over tasks, with intervals, of what `regrets` gives for each task's seeds, [seeds, len(AT), 2].

    Leaves out what needs more than `most` trials.
    """
    means = np.stack([values.mean(0) for values in found.values()])
    for place, trials in enumerate(AT[: AT.index(most) + 1]):
        for column, what in enumerate(("regret", "points")):
            line, own = f"{name}_{what}_at_{trials}", interval(means[:, place, column].tolist())
            for end, value in (("", own.mean), ("_low", own.low), ("_high", own.high)):
                figures.add(line + end, value)
    for task, mean in zip(found, means, strict=True):
        for place, trials in enumerate(AT[: AT.index(most) + 1]):
            figures.add(f"{name}_{task}_regret_at_{trials}", mean[place, 0])


def add_priors(figures: Figures, by: str, seeds: int, confidence: str, most: int) -> None:
    """Add regrets of searches with priors on the grids, and random's beside them."""
    grids = {name: task for name, task in tasks().items() if name.startswith("grid")}
    for kind in ("good", "mediocre", "adversarial"):
        found = {}
        for name, task in grids.items():
            given = [
                priors(task, by, seed)[kind].model_copy(update={"confidence": confidence}) for seed in range(seeds)
            ]
            rows = [searched(task, ARMS["gp"], False, seed, by, most, prior) for seed, prior in enumerate(given)]
            found[name] = np.stack([regrets(task, row, by) for row in rows])
            for place, trials in enumerate(AT[: AT.index(most) + 1]):
                middle = float(np.median(found[name][:, place, 1]))
                figures.add(f"prior_{by}_{kind}_{confidence}_{name}_median_points_at_{trials}", middle)
        add(figures, f"prior_{by}_{kind}_{confidence}", found, most)


def main() -> None:
    """Print regrets of every arm, or of priors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arms", nargs="*", help=f"of {', '.join(ARMS)}; default all")
    parser.add_argument("--by", choices=("score", "accuracy"), default="score", help="what searches maximise")
    parser.add_argument("--seeds", type=int, default=20, help="search seeds, default 20")
    parser.add_argument("--trials", type=int, choices=AT, default=AT[-1], help="of each search, default 32")
    parser.add_argument("--first", choices=("with", "without", "both"), default="both", help="the shipped first points")
    parser.add_argument("--priors", choices=("low", "medium", "high"), help="priors of this confidence, not samplers")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    given = parser.parse_args()
    if unknown := set(given.arms) - set(ARMS):
        parser.error(f"unknown arms {sorted(unknown)}; choose of {', '.join(ARMS)}")
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    figures = Figures()
    if given.priors:
        add_priors(figures, given.by, given.seeds, given.priors, given.trials)
    for name in () if given.priors else given.arms or ARMS:
        for first in {"with": (True,), "without": (False,), "both": (False, True)}[given.first]:
            if first and name == "grid":
                continue
            found = {
                task: np.stack(
                    [
                        regrets(frame, searched(frame, ARMS[name], first, seed, given.by, given.trials), given.by)
                        for seed in range(given.seeds)
                    ]
                )
                for task, frame in tasks().items()
            }
            add(figures, f"sampler_{given.by}_{name}{'_first' if first else ''}", found, given.trials)
    figures.save(given.json)


if __name__ == "__main__":
    main()
