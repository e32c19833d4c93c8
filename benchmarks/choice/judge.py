"""Judge criteria on the recorded bench: regret, rank correlation, and both beside chance and the noise of the truth.

`within`: the choice among the weights of one proxy; the person who has one proxy, whose bank then holds its held-out
images and the embedded sets that are no image of the teacher's classes. `across`: the choice among all trials of a
task, on all its proxies' images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from benchmarks.choice.criteria import CANDIDATES, Function, View
from benchmarks.choice.record import FOLDER, WORK
from benchmarks.choice.tasks import DEVELOPED_ON, TASKS
from degan_search.settings.criteria import CRITERIA, DATA_FREE
from degan_search.system.errors import UserError

EMBEDDED = ("photos", "noise/uniform")
GRIDS = ("cifar10", "fashion_mnist", "fashion_mnist_background_6")
"""Full grids that were recorded before the bench. Only two scores were kept, no network and no logits."""
DRAWS = 2000


@dataclass(frozen=True)
class Recorded:
    """A task's recording."""

    name: str
    table: pd.DataFrame
    teacher: torch.Tensor
    students: torch.Tensor
    sources: np.ndarray
    typicality: Mapping[str, torch.Tensor]
    """Of the first images, the held-out ones, as `probe` took it; higher is more typical."""
    pushed: Mapping[str, View]
    """By trial: what teacher and first student say of images pushed against this student, as `probe` made them."""

    def view(self, place: int, proxy: str | None, beside: tuple[str, ...] = EMBEDDED) -> View:
        """Return what may be seen of a student; `proxy`: by a person who has only this one, and the sets beside it."""
        row = self.table.iloc[place]
        parts = [View(self.teacher, self.students[place], self.sources)]
        if row["seed"] == 0 and row["trial"] in self.pushed:
            parts.append(self.pushed[row["trial"]])
        sources = np.concatenate([part.sources for part in parts])
        keep = sources != row["trial"]
        if proxy is not None:
            own = self.table.loc[self.table["proxy"] == proxy, "trial"]
            # Where pushed images began, or where others are from.
            origins = np.array([source.split(":")[-1] for source in sources])
            keep &= np.isin(origins, [proxy, *beside, *own])
        teacher, student = (torch.cat([getattr(part, who) for part in parts]) for who in ("teacher", "student"))
        typicality = {}
        for name, values in self.typicality.items():
            typicality[name] = torch.full((len(sources),), torch.nan)
            typicality[name][: len(values)] = values
        return View(teacher, student, sources, typicality).of(keep)


def recorded(name: str, work: Path) -> Recorded:
    """Read a task's recording."""
    arrays = np.load(work / f"{name}.npz")
    teacher, students = (torch.from_numpy(arrays[key]).float() for key in ("teacher", "students"))
    table = pd.read_parquet(FOLDER / f"choice_{name}.parquet")
    typicality, pushed = dict[str, torch.Tensor](), dict[str, View]()
    if (file := work / f"{name}_probe.npz").exists():
        probed = np.load(file)
        typicality = {
            "feature_norm": torch.from_numpy(probed["feature_norm"]),
            "norm_distance": -torch.from_numpy(probed["norm_distance"]),
        }
        by_teacher, by_student = (torch.from_numpy(probed[who]).float() for who in ("teacher", "students"))
        trials, sources = table.loc[table["seed"] == 0, "trial"], probed["sources"]
        pushed = {trial: View(by_teacher[i], by_student[i], sources) for i, trial in enumerate(trials)}
    return Recorded(name, table, teacher, students, arrays["sources"], typicality, pushed)


def scored(task: Recorded, across: bool, beside: tuple[str, ...] = EMBEDDED) -> pd.DataFrame:
    """Return a row a student: trial, proxy, seed, accuracies, and every criterion, higher is better."""
    rows = []
    for place in range(len(task.table)):
        row = task.table.iloc[place]
        view = task.view(place, None if across else str(row["proxy"]), beside)
        values = {name: _value(function, view) for name, function in CANDIDATES.items()}
        old = {
            name: float(row[name]) * (1 if CRITERIA[name].direction == "max" else -1)
            for name in DATA_FREE
            if name in row
        }
        rows.append(old | values)
    about = [
        "task",
        "trial",
        "proxy",
        "lambda_e",
        "lambda_d",
        "seed",
        "accuracy",
        "half_1",
        "half_2",
        "teacher_accuracy",
    ]
    kept = task.table[about]
    return pd.concat([kept.reset_index(drop=True), pd.DataFrame(rows)], axis="columns")


def grids() -> dict[str, pd.DataFrame]:
    """Return the recorded grids as `scored` gives a task, with the two criteria that they have."""
    columns = {
        "score": "balanced_soft_agreement",
        "oracle_accuracy": "accuracy",
        "oracle_half_1": "half_1",
        "oracle_half_2": "half_2",
    }
    return {
        name: pd.read_parquet(FOLDER / f"grid_{name}.parquet").rename(columns=columns).assign(proxy=name, seed=0)
        for name in GRIDS
    }


def _value(function: Function, view: View) -> float:
    try:
        return function(view)
    except UserError:  # its part of the images is empty
        return float("nan")


def regrets(trials: pd.DataFrame, by: str) -> float:
    """Return in points how far the choice by a measure lies below that by one half of the true images.

    Both are scored on the other half, in turn, so that no choice is flattered by its own images.
    """
    found = []
    chosen = trials.iloc[trials[by].argmax()]
    for choosing, judging in (("half_1", "half_2"), ("half_2", "half_1")):
        best = trials.iloc[trials[choosing].argmax()]
        found.append(100 * (best[judging] - chosen[judging]))
    return float(np.mean(found))


def random_regret(trials: pd.DataFrame) -> float:
    """Return the regret of a random trial."""
    best = np.mean([trials.iloc[trials[f"half_{a}"].argmax()][f"half_{b}"] for a, b in ((1, 2), (2, 1))])
    return float(100 * (best - trials["accuracy"].mean()))


def groups(frames: Mapping[str, pd.DataFrame], across: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield trials that compete, of the first student seed."""
    for name, frame in frames.items():
        first = frame[frame["seed"] == 0]
        if across:
            yield name, first
        else:
            yield from ((f"{name}: {proxy}", trials) for proxy, trials in first.groupby("proxy", sort=False))


def judged(frames: Mapping[str, pd.DataFrame], across: bool) -> pd.DataFrame:
    """Return a row a criterion: mean regret with its interval over groups, the worst, share of random's, rank corr.

    Over the groups of trials that have it: a teacher without BatchNorm, say, has no distance from its statistics.
    """
    competing = [trials for _, trials in groups(frames, across)]
    rows = []
    for name in [*DATA_FREE, *CANDIDATES]:
        given = [trials for trials in competing if name in trials and not trials[name].isna().any()]
        if given:
            lost, chance = (
                np.array([by(trials) for trials in given]) for by in (partial(regrets, by=name), random_regret)
            )
            rho = [stats.spearmanr(trials[name], trials["accuracy"]).statistic for trials in given]
            share = lost.sum() / chance.sum()
            rows.append((name, len(given), *mean_interval(lost), lost.max(), share, np.nanmean(rho)))
    chance = np.array([random_regret(trials) for trials in competing])
    rows.append(("a random trial", len(chance), *mean_interval(chance), chance.max(), 1.0, 0.0))
    columns = ["chosen by", "groups", "mean regret", "low", "high", "worst", "of random's", "rho"]
    return pd.DataFrame(rows, columns=columns).sort_values("mean regret", ignore_index=True)


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and its 95% interval, by drawing the values again."""
    draws = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(1), (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def noise(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return for each repeated pair what one student's true accuracy says of another student's, same generators."""
    rows = []
    for name, frame in frames.items():
        for proxy, trials in frame.groupby("proxy", sort=False):
            table = trials.pivot(index="trial", columns="seed", values="accuracy").dropna().to_numpy()
            if table.shape[1] < 3:
                continue
            found = [
                (100 * (second.max() - second[first.argmax()]), stats.spearmanr(first, second).statistic)
                for first, second in permutations(table.T, 2)
            ]
            spread = 100 * table.std(axis=1, ddof=1).mean()
            rows.append((f"{name}: {proxy}", *np.mean(found, axis=0), spread))
    return pd.DataFrame(rows, columns=["pair", "regret by another seed's accuracy", "rho", "deviation over seeds"])


def spreads(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return for each pair the quartiles of accuracy, and the best trial's, in percent."""
    rows = [
        (name, len(trials), *(100 * trials["accuracy"].quantile([0.25, 0.5, 0.75, 1.0])))
        for name, trials in groups(frames, across=False)
    ]
    return pd.DataFrame(rows, columns=["pair", "trials", "quarter", "half", "three quarters", "best"])


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="folder that `record` wrote")
    parser.add_argument("--part", choices=("developed", "held-out", "all", "grids"), default="developed")
    given = parser.parse_args()
    if given.part == "grids":
        print(spreads(grids()).to_markdown(index=False, floatfmt=".2f"))
        print(judged(grids(), across=False).to_markdown(index=False, floatfmt=".2f"))
        return
    wanted = {
        "developed": DEVELOPED_ON,
        "held-out": tuple(name for name in TASKS if name not in DEVELOPED_ON),
        "all": tuple(TASKS),
    }[given.part]
    tasks = [recorded(name, given.work) for name in wanted if (given.work / f"{name}.npz").exists()]
    torch.set_num_threads(1)
    frames = {across: {task.name: scored(task, across) for task in tasks} for across in (False, True)}
    print(spreads(frames[False]).to_markdown(index=False, floatfmt=".2f"))
    print("\nwithin a proxy, its own images alone")
    alone = {task.name: scored(task, across=False, beside=()) for task in tasks}
    print(judged(alone, across=False).to_markdown(index=False, floatfmt=".2f"))
    print(noise(frames[False]).to_markdown(index=False, floatfmt=".2f"))
    for across in (False, True):
        print("\nacross proxies" if across else "\nwithin a proxy, one proxy known")
        print(judged(frames[across], across).to_markdown(index=False, floatfmt=".2f"))
        if not across:
            print("\nwithin a proxy, all proxies known")
            print(judged(frames[True], across=False).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
