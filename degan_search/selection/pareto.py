"""The Pareto front of a search with several goals: trials that no other beats in every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from degan_search.ledger.columns import config_of
from degan_search.selection.asked import asked
from degan_search.selection.choose import finished, grouping
from degan_search.settings.goals import GOALS, SCORE
from degan_search.system.errors import UserError


def ranks(values: Float64[np.ndarray, "n k"], goals: Sequence[str]) -> Int64[np.ndarray, " n"]:
    """Return each row's rank of non-domination: 0 on the front, 1 on the front of the rest, and so on.

    A row dominates another that is worse in some goal and better in none; equal rows share a rank. A value that is
    not known counts as the worst (Deb et al. 2002).

    Args:
        values: a column for each goal.
        goals: names in GOALS.
    """
    signs = np.array([-1.0 if GOALS[goal].direction == "max" else 1.0 for goal in goals])
    costs = np.nan_to_num(values * signs, nan=np.inf, posinf=np.inf, neginf=-np.inf)
    no_worse = (costs[:, None] <= costs[None]).all(-1)
    dominates = no_worse & ~no_worse.T
    found, left, rank = np.zeros(len(costs), np.int64), np.ones(len(costs), bool), 0
    while left.any():
        first = left & ~dominates[left].any(0)
        found[first], left, rank = rank, left & ~first, rank + 1
    return found


def front(frame: pd.DataFrame, goals: Sequence[str], per: Sequence[str]) -> pd.DataFrame:
    """Return the finished search trials on the front of each group, a group's best score first.

    Args:
        frame: from `ledger.load`.
        goals: two or more names in GOALS.
        per: columns that make the groups: trials that were compared on different images never compete.

    Raises:
        UserError: fewer than two goals, or no finished trial that has them all.
    """
    if len(goals) < 2:
        raise UserError(f"a Pareto front needs two goals or more, of {', '.join(GOALS)}; search.objectives names them")
    done = finished(frame).dropna(subset=[*goals])
    if done.empty:
        raise UserError(f"no finished search trial has {' and '.join(goals)}: there is no front")
    parts: list[pd.DataFrame] = []
    for _, group in done.groupby(list(per), sort=False, dropna=False):
        best = group[ranks(group[[*goals]].to_numpy(float), goals) == 0]
        parts.append(best.sort_values(goals[0], ascending=GOALS[goals[0]].direction == "min", kind="stable"))
    return pd.concat(parts)


def front_table(frame: pd.DataFrame, goals: Sequence[str], per: str = "method") -> pd.DataFrame:
    """Return the front as it is shown: run, trial, cell, proxy, student, width, weights, the goals, and config.

    Args:
        frame: from `ledger.load`.
        goals: as of `front`.
        per: one of `choose.PER`: a front within each of these.

    Raises:
        UserError: as `front` and `choose.grouping`.
    """
    names = {"run": "run", "trial_id": "trial", "cell": "cell", "config_proxy": "proxy"}
    names |= {"config_student_network": "student", "config_student_width": "width"}
    names |= {f"config_gan_{name}": name for name in ("lambda_e", "lambda_d")} | {goal: goal for goal in goals}
    rows = front(frame, goals, grouping(per))
    found = rows[[*names]].rename(columns=names).reset_index(drop=True)
    found = found.drop(columns=[] if found["width"].notna().any() else ["width"])
    configs = [config_of(row).model_dump(mode="json") for _, row in rows.iterrows()]
    shown: pd.DataFrame = found.assign(config=pd.Series(configs, dtype=object))
    return shown


def goals_of(*runs: Path) -> tuple[str, ...]:
    """Return what the searches of runs pursued, by their space files; the score where one cannot be read.

    Raises:
        UserError: the runs' searches had different goals.
    """
    found = {run: _goals(run) for run in runs}
    if len(set(found.values())) > 1:
        said = "; ".join(f"{run.name}: {', '.join(goals)}" for run, goals in found.items())
        raise UserError(f"the runs' searches had different objectives ({said}): give runs of the same ones")
    return next(iter(found.values()))


def _goals(run: Path) -> tuple[str, ...]:
    given = asked(run, "objectives")
    named = tuple(goal for goal in given if goal in GOALS) if isinstance(given, list) else ()
    return named or (SCORE,)
