"""What further student seeds do to the choice among one proxy's weights, and how sure the choice is, by replays.

Replays draw students: a trial's recorded mean of score and accuracy, and a deviation of both from their means that some
student of the pair had, times sqrt(3/2), as three students' deviations are from their own mean. A sweep scores every
trial by one student, distils the best quarter again, and chooses by the mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.choice.criteria import CANDIDATES
from benchmarks.choice.judge import recorded
from benchmarks.choice.record import FOLDER, WORK
from benchmarks.choice.tasks import TASKS
from degan_search.selection.repeats import number_repeated

FILE = FOLDER / "choice_seeds.parquet"
SCORES = {"sure": "soft, held-out, sure 0.5", "across": "soft, held-out and generated"}
"""Measures that choose, and their names in `criteria`: that of searches without data, and one like agreement across
trials."""
REPEATS = (0, 1, 2, 4)
SWEEPS = 2000
BUDGETS = (5, 8, 11)
"""Of a search, in trials' worth of its time."""
SHARES = (0.3, 0.5)
"""Of a trial's time that its student's distillation takes."""
CHANCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def record(work: Path) -> pd.DataFrame:
    """Return a row a student of the pairs with several: its scores, of a person who has this proxy alone, and truth."""
    rows = []
    for name in TASKS:
        task = recorded(name, work)
        several = task.table.groupby("proxy")["seed"].nunique() > 1
        for place, row in enumerate(task.table.to_dict("records")):
            if several[row["proxy"]]:
                view = task.view(place, str(row["proxy"]))
                kept = {column: row[column] for column in ("task", "proxy", "trial", "seed", "accuracy")}
                rows.append(kept | {column: CANDIDATES[by](view) for column, by in SCORES.items()})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Pair:
    """Students of a task's trials on one proxy: scores and accuracies in percent, [trials, seeds]."""

    name: str
    scores: np.ndarray
    accuracies: np.ndarray

    @cached_property
    def truth(self) -> np.ndarray:
        """Each trial's mean accuracy."""
        return np.asarray(self.accuracies.mean(1))

    @cached_property
    def error(self) -> float:
        """Standard deviation of a student's accuracy about its trial's mean, pooled."""
        return float(np.sqrt(self.accuracies.var(1, ddof=1).mean()))

    def draw(self, rng: np.random.Generator, students: int) -> np.ndarray:
        """Return scores of new students, [trials, students]."""
        trials, seeds = self.scores.shape
        means = self.scores.mean(1, keepdims=True)
        places = rng.integers(trials, size=(trials, students)), rng.integers(seeds, size=(trials, students))
        return np.asarray(means + sqrt(seeds / (seeds - 1)) * (self.scores - means)[places])


def pairs(frame: pd.DataFrame, by: str) -> Iterator[Pair]:
    """Yield the pairs of a recording, scored by a column."""
    for (task, proxy), students in frame.groupby(["task", "proxy"], sort=False):
        tables = (students.pivot(index="trial", columns="seed", values=name).to_numpy() for name in (by, "accuracy"))
        scores, accuracies = tables
        yield Pair(f"{task}: {proxy}", scores, 100 * accuracies)


def best(students: np.ndarray) -> np.ndarray:
    """Return the repeated trials, the best first, of students [trials, 1 + repeats]; without repeats, all."""
    kept = number_repeated(len(students)) if students.shape[1] > 1 else len(students)
    top = np.argsort(-students[:, 0], kind="stable")[:kept]
    return np.asarray(top[np.argsort(-students[top].mean(1), kind="stable")])


def replayed(pair: Pair, repeats: int, rng: np.random.Generator, trials: int | None = None) -> dict[str, float]:
    """Return how often two sweeps choose alike, and the mean regret in points.

    Each sweep has so many of the recorded trials, drawn without repeats; None: all.
    """
    recorded, picks = np.arange(len(pair.scores)), []
    for _ in range(2 * SWEEPS):
        own = recorded if trials is None else rng.choice(recorded, trials, replace=False)
        picks.append(own[best(pair.draw(rng, 1 + repeats)[own])[0]])
    chosen = np.array(picks).reshape(2, -1)
    gaps = np.abs(np.subtract(*pair.truth[chosen]))
    return {
        "same weights": float((chosen[0] == chosen[1]).mean()),
        "same or within a standard error": float((gaps <= pair.error).mean()),
        "regret": float((pair.truth.max() - pair.truth[chosen]).mean()),
    }


def affordable(budget: float, repeats: int, share: float) -> int:
    """Return the most trials of which the best quarter can also be distilled again within a budget of trials' worth."""
    counts = range(1, int(budget) + 1)
    return max(count for count in counts if count + share * repeats * number_repeated(count) <= budget)


def chances(pair: Pair, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """Return rows of the chance that is stated of the first against the second, and whether it is ahead in score."""
    rows = []
    for _ in range(SWEEPS):
        students = pair.draw(rng, 1 + repeats)
        order = best(students)
        first, second = order[:2]
        again = students[order]
        means, freedom = again.mean(1), again.size - len(again)
        error = max(1e-12, sqrt(again.var(1, ddof=1).mean() * 2 / (1 + repeats)))
        truth = pair.scores.mean(1)
        rows.append((stats.t.cdf((means[0] - means[1]) / error, freedom), truth[first] > truth[second]))
    return np.array(rows, float)


def show(frame: pd.DataFrame) -> None:
    """Print the tables."""
    for by in SCORES:
        rng = np.random.default_rng(0)
        found = [
            {"pair": pair.name, "repeats": repeats, **replayed(pair, repeats, rng)}
            for pair in pairs(frame, by)
            for repeats in REPEATS
        ]
        table = pd.DataFrame(found)
        print(f"\nchosen by {SCORES[by]}")
        print(table.to_markdown(index=False, floatfmt=".2f"))
        print(table.drop(columns="pair").groupby("repeats").mean().to_markdown(floatfmt=".2f"))
        show_equal_cost(frame, by)
        for repeats in REPEATS[1:]:
            rows = np.concatenate([chances(pair, repeats, rng) for pair in pairs(frame, by)])
            stated = pd.DataFrame(rows, columns=["stated", "true"])
            stated["between"] = pd.cut(stated["stated"], CHANCES, include_lowest=True).astype(str)
            stated = stated.groupby("between").agg(["mean", "size"])
            print(f"\nwith {repeats} repeats, the chance that the first is ahead, stated and true")
            print(stated.to_markdown(floatfmt=".2f"))


def show_equal_cost(frame: pd.DataFrame, by: str) -> None:
    """Print what two further seeds bring beside as many more trials as they cost, over the pairs with enough trials."""
    rng, found = np.random.default_rng(0), []
    for pair in (pair for pair in pairs(frame, by) if len(pair.scores) >= max(BUDGETS)):
        for budget in BUDGETS:
            for share in SHARES:
                for repeats in (0, 2):
                    trials = affordable(budget, repeats, share)
                    about = {"budget": budget, "distillation": share, "repeats": repeats, "trials": trials}
                    found.append(about | replayed(pair, repeats, rng, trials))
    print("\nat equal cost, a budget in trials' worth and the share that distillation has of a trial")
    means = pd.DataFrame(found).groupby(["budget", "distillation", "repeats", "trials"], as_index=False).mean()
    print(means.to_markdown(index=False, floatfmt=("g", "g", "g", "g", ".2f", ".2f", ".2f")))


def main() -> None:
    """Print what was recorded, or record it first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="make the table of students from what `record` wrote")
    parser.add_argument("--work", type=Path, default=WORK, help="folder that `record` wrote")
    given = parser.parse_args()
    if given.record:
        record(given.work).to_parquet(FILE, index=False)
    show(pd.read_parquet(FILE))


if __name__ == "__main__":
    main()
