"""What a search gains by beginning where searches of other tasks were best, replayed on recorded tables.

Each of the seven tasks of `benchmarks.samplers` in turn is the new one, and the other six are the earlier runs of
`sweep --from`. `one_run`: each of these alone. Figures as in `benchmarks.samplers`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
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
from benchmarks.samplers import ARMS, AT, add, regrets, searched, tasks
from degan_search.ledger.columns import Phase, State, config_columns
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import Cell, cells
from degan_search.search.space.schema import Earlier, Prior, Space
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


WAYS = {
    "none": Way(),
    "shipped": Way(shipped=True),
    "earlier": Way(points=True),
    "earlier_and_shipped": Way(points=True, shipped=True),
    "earlier_as_prior": Way(prior=True),
    "earlier_and_prior": Way(points=True, prior=True),
}


def config_of_task(name: str) -> TrialConfig:
    """Return a configuration of a recorded task."""
    kind, _, task = name.partition("_")
    if kind == "grid":
        return cells(space_file.load(name))[0].example()
    return TASKS[task].config(TASKS[task].proxies[0])


def cell_of_task(name: str, task: pd.DataFrame) -> Cell:
    """Return the cell that a search of the task has."""
    return Cell({}, Space(trial=config_of_task(name).model_dump(mode="json"), parameters=parameters(task)))


def as_run(name: str, task: pd.DataFrame) -> pd.DataFrame:
    """Return a task's trials as a ledger has them, its columns that choosing looks at."""
    config, several = config_of_task(name), task["proxy"].nunique() > 1
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(task.to_dict("records")):
        weights = config.gan.model_copy(update={"lambda_e": row["lambda_e"], "lambda_d": row["lambda_d"]})
        own = config.model_copy(update={"gan": weights} | ({"proxy": row["proxy"]} if several else {}))
        rows.append({"trial_id": f"search-{number:04}", "score": row["score"]} | config_columns(own))
    about = {"run": name, "phase": Phase.SEARCH, "state": State.COMPLETE, "cell": "all", "teacher_hash": name}
    return pd.DataFrame(rows).assign(**about, compared_on=name, **{DEFAULT: np.nan})


def earlier(new: str, runs: list[str], found: Mapping[str, pd.DataFrame]) -> list[Earlier]:
    """Return the points that `sweep --from` has a search of the task `new` begin with."""
    cell = cell_of_task(new, found[new])
    frame = pd.concat([as_run(name, found[name]) for name in runs])
    return [one.found for one in picked(cell, candidates(cell, frame))]


def of_way(way: Way, new: str, found: Mapping[str, pd.DataFrame], seeds: int, trials: int) -> np.ndarray:
    """Return what `regrets` gives for each seed, [seeds, len(AT), 2], with all other tasks as earlier runs."""
    points = [one.point for one in earlier(new, [name for name in found if name != new], found)]
    prior = Prior.model_validate(points[0]) if way.prior else None
    given = points if way.points else []
    rows = [searched(found[new], ARMS["gp"], way.shipped, seed, "score", trials, prior, given) for seed in range(seeds)]
    return np.stack([regrets(found[new], row, "score") for row in rows])


def add_one_run(figures: Figures, found: Mapping[str, pd.DataFrame], seeds: int) -> None:
    """Add regret after 4 trials, of which an earlier run alone gives three, and its correlation with likeness."""
    degrees, means, halves = [], [], []
    for new in found:
        pairs = []
        for other in (name for name in found if name != new):
            points = earlier(new, [other], found)
            given = [one.point for one in points]
            rows = [searched(found[new], ARMS["gp"], False, seed, "score", AT[0], None, given) for seed in range(seeds)]
            regret = float(np.mean([regrets(found[new], row, "score")[0, 0] for row in rows]))
            pairs.append((max(one.alike for one in points), regret))
            figures.add(f"one_run_{new}_from_{other}_alike", pairs[-1][0])
            figures.add(f"one_run_{new}_from_{other}_regret_at_4", regret)
        degrees += [degree for degree, _ in pairs]
        means += [regret for _, regret in pairs]
        pairs.sort(key=lambda pair: -pair[0])
        halves.append([np.mean([regret for _, regret in half]) for half in (pairs[:3], pairs[3:])])
    for which, values in zip(("more", "less"), np.array(halves).T, strict=True):
        own = interval(values.tolist())
        for end, value in (("", own.mean), ("_low", own.low), ("_high", own.high)):
            figures.add(f"one_run_of_the_{which}_alike_half_regret_at_4{end}", value)
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
    figures, found = Figures(), tasks()
    for name in given.ways or (*WAYS, "one_run"):
        if name == "one_run":
            add_one_run(figures, found, given.seeds)
            continue
        values = {new: of_way(WAYS[name], new, found, given.seeds, given.trials) for new in found}
        add(figures, f"warm_start_{name}", values, given.trials)
    figures.save(given.json)


if __name__ == "__main__":
    main()
