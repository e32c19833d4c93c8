"""Judge values of several students of one generator together, and ranks by several criteria together.

Weights of ranks are fitted on the other tasks, so that no task is judged by weights that saw it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import optimize, stats

from benchmarks.choice.criteria import CANDIDATES
from benchmarks.choice.judge import GRIDS, grids, groups, mean_interval, random_regret, recorded, regrets, scored
from benchmarks.choice.record import WORK
from benchmarks.choice.tasks import DEVELOPED_ON, TASKS
from degan_search.settings.criteria import DATA_FREE

Frames = Mapping[str, pd.DataFrame]
Weights = Mapping[str, float]
MEASURED = ("mean regret", "low", "high", "worst", "of random's", "rho")
MOST = 3
"""Criteria whose ranks are combined, at most."""
SINGLE, ACROSS_TRIALS, BANK = "soft, held-out, sure 0.5", "cross_soft_agreement", "balanced_soft_agreement"
KINDS = (
    SINGLE,
    ACROSS_TRIALS,
    BANK,
    "infomax",
    "soft, held-out and generated, each source once",
    "soft, held-out, weighted by energy",
    "soft, cutmix",
    "soft, pushed",
    "soft, pushed against the student, own class, step 1, sure 0.5",
    "correlation, held-out, sure 0.8",
    "nuclear norm, held-out",
    "COT, held-out",
)
"""One criterion of each kind, to combine few that differ."""


def of_students(frames: Frames, name: str, students: int) -> np.ndarray:
    """Return the regrets in points of the choice by the mean value of so many students, of each pair with three.

    The truth is the mean accuracy of a generator's three students; the regret is a mean over all sets of students.
    """
    found = []
    for frame in frames.values():
        for _, trials in frame.groupby("proxy", sort=False):
            values = trials.pivot(index="trial", columns="seed", values=name)
            if values.shape[1] < 3:
                continue
            truth = trials.groupby("trial")[["accuracy", "half_1", "half_2"]].mean()
            means = (values[list(some)].mean(axis=1) for some in combinations(values.columns, students))
            found.append(np.mean([regrets(truth.assign(mean=mean), "mean") for mean in means]))
    return np.array(found)


def students_table(frames: Frames) -> pd.DataFrame:
    """Return a row a criterion: the mean regret of one student's value and of two's mean, and what the second saves."""
    rows = []
    for name in CANDIDATES:
        if all(name in frame and frame[name].notna().all() for frame in frames.values()):
            one, two = (of_students(frames, name, students) for students in (1, 2))
            saved, low, high = mean_interval(one - two)
            rows.append((name, len(one), one.mean(), two.mean(), two.max(), saved, low, high))
    columns = ["chosen by", "pairs", "one student", "two", "worst of two", "saved", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values("two", ignore_index=True)


def ranks(trials: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Return ranks of trials, [trials, names], from -1 to 1."""
    return np.asarray(2 * (stats.rankdata(trials[list(names)], axis=0) - 1) / (len(trials) - 1) - 1)


def fitted(competing: Sequence[pd.DataFrame], names: Sequence[str]) -> dict[str, float]:
    """Return non-negative weights of a few criteria, whose ranks together come closest to those of true accuracy.

    Criteria are added one at a time, each the one that helps most; every group of trials counts once.
    """
    scale = np.concatenate([np.full(len(trials), len(trials) ** -0.5) for trials in competing])
    given = np.concatenate([ranks(trials, names) for trials in competing]) * scale[:, None]
    truth = np.concatenate([ranks(trials, ["accuracy"])[:, 0] for trials in competing]) * scale
    chosen: list[int] = []
    for _ in range(min(MOST, len(names))):
        errors = {
            place: optimize.nnls(given[:, [*chosen, place]], truth)[1]
            for place in range(len(names))
            if place not in chosen
        }
        chosen.append(min(errors, key=lambda place: errors[place]))
    weights = optimize.nnls(given[:, chosen], truth)[0]
    return {names[place]: float(weight) for place, weight in zip(chosen, weights, strict=True) if weight > 1e-6}


@dataclass(frozen=True)
class Judged:
    """A group of trials of a task, of which weighted ranks choose one."""

    task: str
    trials: pd.DataFrame
    weights: Weights

    @property
    def together(self) -> np.ndarray:
        """The weighted ranks' sum, higher is better."""
        return np.asarray(ranks(self.trials, [*self.weights]) @ np.array([*self.weights.values()]))

    @property
    def regret(self) -> float:
        """In points."""
        return regrets(self.trials.assign(together=self.together), "together")

    @property
    def rho(self) -> float:
        """Rank correlation with true accuracy."""
        return float(stats.spearmanr(self.together, self.trials["accuracy"]).statistic)


def ranks_table(frames: Frames, across: bool, pool: Sequence[str]) -> pd.DataFrame:
    """Return a row a left-out task: weights of criteria of a pool, fitted on the others, and regrets.

    Then both halves, each task left out in turn, and the held-out half by weights fitted on the developed one. `SINGLE`
    alone, and the mean rank by it and by agreement across trials, stand beside. Criteria that a group of trials lacks
    are left out of the pool.
    """
    given = [
        name
        for name in pool
        if all(name in trials and trials[name].notna().all() for _, trials in groups(frames, across))
    ]
    held_out = [name for name in frames if name not in DEVELOPED_ON]
    weights, by_task = dict[str, Weights](), list[Judged]()
    for left_out in frames:
        weights[left_out] = fitted(_of(frames, across, [name for name in frames if name != left_out]), given)
        by_task += [Judged(left_out, trials, weights[left_out]) for trials in _of(frames, across, [left_out])]
    developed = fitted(_of(frames, across, DEVELOPED_ON), given)
    rows = [_summary(name, _text(weights[name]), [one for one in by_task if one.task == name]) for name in frames]
    for title, part in (("developed", DEVELOPED_ON), ("held-out", held_out)):
        rows.append(_summary(title, "each task's own", [one for one in by_task if one.task in part]))
        for fixed in (developed, {SINGLE: 1.0}, {SINGLE: 0.5, ACROSS_TRIALS: 0.5}):
            if fixed is not developed or part is held_out:
                rows.append(
                    _summary(title, _text(fixed), [Judged("", trials, fixed) for trials in _of(frames, across, part)])
                )
    return pd.DataFrame(rows, columns=["judged on", "weights", *MEASURED])


def grids_table(frames: Frames) -> pd.DataFrame:
    """Return regrets on the recorded grids, by the two criteria that they have, each alone and fitted on the bench."""
    competing = _of(grids(), False, GRIDS)
    weights = fitted(_of(frames, False, frames), (BANK, ACROSS_TRIALS))
    rows = [
        _summary("recorded grids", _text(by), [Judged("", trials, by) for trials in competing])
        for by in ({BANK: 1.0}, {ACROSS_TRIALS: 1.0}, weights)
    ]
    return pd.DataFrame(rows, columns=["judged on", "weights", *MEASURED])


def _of(frames: Frames, across: bool, names: Iterable[str]) -> list[pd.DataFrame]:
    return [trials for _, trials in groups({name: frames[name] for name in names}, across)]


def _text(weights: Weights) -> str:
    return " + ".join(f"{weight:.2f} {name}" for name, weight in weights.items())


def _summary(title: str, text: str, judged: Sequence[Judged]) -> tuple[str | float, ...]:
    lost, rho = (np.array([getattr(one, what) for one in judged]) for what in ("regret", "rho"))
    share = lost.sum() / sum(random_regret(one.trials) for one in judged)
    return title, text, *mean_interval(lost), float(lost.max()), float(share), float(rho.mean())


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="folder that `record` and `probe` wrote")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tasks = [recorded(name, given.work) for name in TASKS if (given.work / f"{name}.npz").exists()]
    for title, seen, across in (
        ("within a proxy, one proxy known", False, False),
        ("within a proxy, all proxies known", True, False),
        ("across proxies", True, True),
    ):
        frames = {task.name: scored(task, seen) for task in tasks}
        if not across:
            print(f"\n{title}: several students of a generator")
            print(students_table(frames).to_markdown(index=False, floatfmt=".2f"))
        for name, pool in (("a pool of one of each kind", KINDS), ("all criteria", (*DATA_FREE, *CANDIDATES))):
            print(f"\n{title}: ranks by several of {name}")
            print(ranks_table(frames, across, pool).to_markdown(index=False, floatfmt=".2f"))
        if not seen:
            print("\nrecorded grids: ranks by the two criteria that they have, weights fitted on the bench")
            print(grids_table(frames).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
