"""What a search gains by beginning where searches of other tasks were best, replayed on recorded tables.

Each of the seven tasks of `benchmarks.samplers` in turn is the new one, and the other six are the earlier runs of
`sweep --from`. `one_run`: each of these alone. Figures as in `benchmarks.samplers`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from scipy.stats import spearmanr

from analysis.statistics import interval
from benchmarks.choice.tasks import TASKS
from benchmarks.measure import Figures
from benchmarks.replay import parameters
from benchmarks.samplers import ARMS, AT, BENCH, GRIDS, add, regrets, searched, tasks
from degan_search.ledger.columns import Phase, State, config_columns
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import Cell, cells
from degan_search.search.space.schema import Earlier, Prior, Scalar, Space
from degan_search.search.suggest.warm_start import candidates, picked
from degan_search.selection.choose import DEFAULT
from degan_search.settings.trial import TrialConfig


@dataclass(frozen=True)
class Way:
    """What a search has of the earlier runs."""

    points: bool = False
    """Their best points, before other first points, as `--from` does it."""
    shipped: bool = False
    """The shipped first points."""
    prior: bool = False
    """The best of their points as a prior of medium confidence."""
    weighted: bool = True
    """Whether likeness counts; else the best points of all runs come in a random order, by the seed."""


WAYS = {
    "none": Way(),
    "shipped": Way(shipped=True),
    "earlier": Way(points=True),
    "earlier_and_shipped": Way(points=True, shipped=True),
    "earlier_unweighted": Way(points=True, weighted=False),
    "earlier_as_prior": Way(prior=True),
}


NAMES = tuple(f"{kind}_{name}" for kind, names in (("grid", GRIDS), ("bench", BENCH)) for name in names)
"""Of the tasks."""
KNOWN = cache(tasks)


def config_of_task(name: str) -> TrialConfig:
    """Return a configuration of a recorded task."""
    kind, _, task = name.partition("_")
    if kind == "grid":
        return cells(space_file.load(name))[0].example()
    return TASKS[task].config(TASKS[task].proxies[0])


def cell_of_task(name: str) -> Cell:
    """Return the cell that a search of the task has."""
    return Cell({}, Space(trial=config_of_task(name).model_dump(mode="json"), parameters=parameters(KNOWN()[name])))


@cache
def as_run(name: str) -> pd.DataFrame:
    """Return a task's trials as a ledger has them, in the columns by which points are chosen."""
    config, task = config_of_task(name), KNOWN()[name]
    several = task["proxy"].nunique() > 1
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(task.to_dict("records")):
        weights = config.gan.model_copy(update={"lambda_e": row["lambda_e"], "lambda_d": row["lambda_d"]})
        own = config.model_copy(update={"gan": weights} | ({"proxy": row["proxy"]} if several else {}))
        rows.append({"trial_id": f"search-{number:04}", "score": row["score"]} | config_columns(own))
    about = {"run": name, "phase": Phase.SEARCH, "state": State.COMPLETE, "cell": "all", "teacher_hash": name}
    return pd.DataFrame(rows).assign(**about, compared_on=name, **{DEFAULT: np.nan})


def earlier(new: str, runs: Sequence[str], shuffled: int | None = None) -> list[Earlier]:
    """Return the points that `sweep --from` has a search of the task `new` begin with.

    Args:
        new: the task.
        runs: the earlier tasks.
        shuffled: a seed, for a random order of the runs in place of that of likeness.
    """
    cell = cell_of_task(new)
    found = candidates(cell, pd.concat([as_run(name) for name in runs]))
    if shuffled is not None:
        order = np.random.default_rng(shuffled).permutation(len(found))
        equal = [one.found.model_copy(update={"alike": 1.0}) for one in found]
        found = [replace(found[place], found=equal[place]) for place in order]
    return [one.found for one in picked(cell, found)]


def of_way(way: Way, new: str, seeds: int, trials: int) -> np.ndarray:
    """Return what `regrets` gives for each seed, [seeds, len(AT), 2], with all other tasks as earlier runs."""
    others, found = [name for name in NAMES if name != new], []
    points: list[dict[str, Scalar]] = []
    for seed in range(seeds):
        if (way.points or way.prior) and not (points and way.weighted):
            points = [one.point for one in earlier(new, others, None if way.weighted else seed)]
        prior = Prior.model_validate({"confidence": "medium", **points[0]}) if way.prior else None
        given = points if way.points else []
        rows = searched(KNOWN()[new], ARMS["gp"], way.shipped, seed, "score", trials, prior, given)
        found.append(regrets(KNOWN()[new], rows, "score"))
    return np.stack(found)


def add_one_run(figures: Figures, seeds: int) -> None:
    """Add regret after 4 trials, of which an earlier run alone gives three, and its correlation with likeness.

    Also the means over the three most alike earlier runs of each task, and over the other three.
    """
    degrees: list[float] = []
    means: list[float] = []
    halves: list[list[float]] = []
    for new in NAMES:
        pairs: list[tuple[float, float]] = []
        for other in (name for name in NAMES if name != new):
            points = earlier(new, [other])
            given = [one.point for one in points]
            rows = [
                searched(KNOWN()[new], ARMS["gp"], False, seed, "score", AT[0], None, given) for seed in range(seeds)
            ]
            pairs.append(
                (max(one.alike for one in points), np.mean([regrets(KNOWN()[new], row, "score")[0, 0] for row in rows]))
            )
            figures.add(f"one_run_{new}_from_{other}_alike", pairs[-1][0])
            figures.add(f"one_run_{new}_from_{other}_regret_at_4", pairs[-1][1])
        degrees += [degree for degree, _ in pairs]
        means += [regret for _, regret in pairs]
        pairs.sort(key=lambda pair: -pair[0])
        halves.append([float(np.mean([regret for _, regret in half])) for half in (pairs[:3], pairs[3:])])
    for which, values in (("any", means), *zip(("more", "less"), zip(*halves, strict=True), strict=True)):
        own = interval(list(values))
        for end, value in (("", own.mean), ("_low", own.low), ("_high", own.high)):
            figures.add(f"one_run_{which}_alike_regret_at_4{end}", value)
    figures.add("one_run_correlation_of_likeness_and_regret", float(spearmanr(degrees, means).statistic))


def main() -> None:
    """Print regrets of searches that begin by earlier runs, and of those that do not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", help=f"of {', '.join((*WAYS, 'one_run'))}; default all")
    parser.add_argument("--seeds", type=int, default=10, help="search seeds, default 10")
    parser.add_argument("--trials", type=int, choices=AT, default=16, help="of each search, default 16")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    given = parser.parse_args()
    if unknown := set(given.ways) - {*WAYS, "one_run"}:
        parser.error(f"unknown ways {sorted(unknown)}; choose of {', '.join((*WAYS, 'one_run'))}")
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    figures = Figures()
    for name in given.ways or (*WAYS, "one_run"):
        if name == "one_run":
            add_one_run(figures, given.seeds)
            continue
        values = {new: of_way(WAYS[name], new, given.seeds, given.trials) for new in NAMES}
        add(figures, f"warm_start_{name}", values, given.trials)
    figures.save(given.json)


if __name__ == "__main__":
    main()
