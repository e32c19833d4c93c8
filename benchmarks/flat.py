"""What ending a flat search saves and loses: TPE with early stopping, replayed on recorded runs of a full grid.

Each search is replayed once to its last trial and then cut where `selection.flat` would have ended it, the trials that
ran just then included. Intervals are of 95%, by bootstrap over search seeds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.statistics import interval
from benchmarks import record
from benchmarks.replay import SLOTS, Ended, replay, search, timelines
from benchmarks.search import Stopping, by_point, picked
from degan_search.ledger.columns import State
from degan_search.search.suggest.asha import Rungs
from degan_search.selection.flat import flat_after
from degan_search.system.errors import UserError

STOPPING = Stopping(0.25, 2.0)
"""How trials are stopped early, as in the paper-sized spaces."""
PATIENCES = (4, 6, 8, 10, 12)


def searches(frame: pd.DataFrame, first: bool, trials: int, seeds: int) -> Iterator[list[Ended]]:
    """Yield each seed's search of so many trials, as `replay` returns it; `first`: with the shipped first points."""
    recorded = timelines(frame, STOPPING.grace)
    for seed in range(seeds):
        jobs = search(frame, "tpe", first, seed)
        jobs.set_trials(trials)
        yield replay(jobs, recorded, Rungs(STOPPING.factor))


def cut(ended: Sequence[Ended], scores: pd.Series, patience: int) -> int:
    """Return how many of a search's trials end where it is ended once it is flat."""
    told = [float(scores[trial.point]) if trial.state is State.COMPLETE else math.nan for trial in ended]
    flat = flat_after(told, patience)
    return len(ended) if flat is None else min(len(ended), flat + SLOTS - 1)


def lost(frame: pd.DataFrame, ended: Sequence[Ended], kept: int) -> float:
    """Return how many points of accuracy the choice among the first trials lies below that among all."""
    known = by_point(frame)
    accuracies = [
        picked(known.loc[[trial.point for trial in own if trial.state is State.COMPLETE]])
        for own in (ended, ended[:kept])
    ]
    return accuracies[0] - accuracies[1]


def table(frames: dict[str, pd.DataFrame], lengths: Sequence[int], seeds: int) -> pd.DataFrame:
    """Return for each grid, start, length and patience the share of trials saved and the points lost with interval."""
    rows = []
    for name, frame in frames.items():
        scores = by_point(frame)["score"]
        for first in (True, False):
            longest = list(searches(frame, first, max(lengths), seeds))
            for length in lengths:
                runs = [ended[:length] for ended in longest]
                for patience in PATIENCES:
                    kept = [cut(ended, scores, patience) for ended in runs]
                    saved = np.mean([1 - own / len(ended) for own, ended in zip(kept, runs, strict=True)])
                    points = interval([lost(frame, ended, own) for own, ended in zip(kept, runs, strict=True)])
                    about = (name, "with" if first else "without", length, patience)
                    rows.append((*about, saved, points.mean, points.low, points.high))
    columns = ["grid", "first points", "trials", "patience", "trials saved", "points lost", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="*", help="default all grids of benchmarks/recorded")
    parser.add_argument("--trials", type=int, nargs="+", default=[16, 24], help="lengths of a search")
    parser.add_argument("--seeds", type=int, default=20, help="search seeds, default 20")
    given = parser.parse_args()
    paths = given.tables or sorted(record.FOLDER.glob("grid_*.parquet"))
    try:
        frames = {path.stem.removeprefix("grid_"): record.read(path) for path in paths}
    except UserError as error:
        parser.error(str(error))
    print(table(frames, given.trials, given.seeds).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
