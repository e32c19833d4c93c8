"""Choosing a configuration without true data, and what that costs: its regret to the choice with true data."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import pandas as pd
from tabulate import tabulate

from analysis.statistics import interval
from degan_search.errors import UserError, close_matches
from degan_search.records import METRICS, Phase, State

CRITERIA = (
    "balanced_soft_agreement",
    "balanced_agreement",
    "soft_agreement",
    "agreement",
    "holdout_agreement",
    "cross_soft_agreement",
    "cross_agreement",
    "own_agreement",
    "infomax",
    "snd",
    "mcc",
    "bn_distance",
)
"""Measures that need no true data; `records.METRICS` says which way is better."""
DEFAULT = "cross_soft_agreement"
"""What chooses after a search: of CRITERIA the one with the least regret in BENCHMARKS.md."""
TRUE = "oracle_accuracy"
"""The one measure to choose by that needs true data."""
PROXY = ("run", "config_task", "config_teacher_dataset", "config_proxy", "config_count")
"""What trials that compete for one choice share: the run, task, true data, proxy, and how many images of it. In the
task `incremental` the true data are the old classes and the proxy is the new ones: a class order."""
FIXED = (0.0, 5.0)
"""(lambda_e, lambda_d) of the released code."""
PLACE = ["run", "task", "dataset", "proxy", "count"]
COLUMNS = [*PLACE, "criterion", "trials", "accuracy", "regret", "rank_correlation"]


def best(
    frame: pd.DataFrame, by: str = "score", per: Sequence[str] = (*PROXY, "config_method"), top: int = 1
) -> pd.DataFrame:
    """Return the `top` finished search trials of each group by a criterion, the best first.

    Args:
        frame: from `ledger.load`.
        by: one of CRITERIA, `score` (what the search maximised), or `oracle_accuracy`, which needs true data.
        per: columns that make the groups; () for one group of all.
        top: trials of each group, 1 or more; fewer where a group has fewer.

    Raises:
        UserError: an unknown criterion or column, `top` below 1, or no finished trial that has the measure.
    """
    known = ("score", *CRITERIA, TRUE)
    if by not in known:
        raise UserError(f"criterion {by!r} is unknown; {close_matches(by, known)}")
    for column in per:
        if column not in frame:
            raise UserError(f"no column {column!r} to choose within; {close_matches(column, map(str, frame.columns))}")
    if top < 1:
        raise UserError(f"top = {top}: 1 or more is needed")
    done = _finished(frame).dropna(subset=by)
    if done.empty:
        raise UserError(f"no finished search trial has a value of {by!r}: there is nothing to choose from")
    # Stable: of equal trials the first run is taken.
    ordered = done.sort_values(by, ascending=METRICS[by] == "min", kind="stable")
    return ordered.groupby(list(per), sort=False, dropna=False).head(top) if per else ordered.head(top)


def chosen_by(trials: pd.DataFrame, by: str | None = None) -> str:
    """Return the measure that chooses among finished search trials of one objective.

    It is `by` if given; else `score` where the objective is the oracle's accuracy, as the user asked for true
    data, or where no trial has DEFAULT; else DEFAULT.
    """
    done = _finished(trials)
    without = (done["config_objective"] == TRUE).any() or done[DEFAULT].isna().all()
    return by or ("score" if without else DEFAULT)


def regret(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each proxy and criterion the accuracy of the trial it picks and its regret, in percent points.

    Over the search's finished DeGAN trials, all with one seed. Accuracy is on the held-out 20% of the true
    training images; of students that learned new classes, on held-out images of old and new ones. Regret is the
    oracle's accuracy minus that of the picked trial; the oracle is cross-fitted, picking by one half of these
    images and scored on the other, both ways, so that it does not gain by picking and scoring on the same
    images; a lucky pick may therefore have a regret below 0. A search that stopped its best trial early does
    not show here. Beside the criteria stand the released code's weights, where a trial had them, and a choice at
    random (the trials' mean). `rank_correlation` is Spearman's between criterion, its sign turned where less is
    better, and accuracy.

    Args:
        frame: from `ledger.load`, evaluated.

    Raises:
        UserError: no finished trial with an accuracy.
    """
    done = _finished(frame)
    done = done[(done["config_method"] == "degan") & done["oracle_half_1"].notna()]
    if done.empty:
        raise UserError("no finished search trial with an accuracy: `degan-search evaluate RUN` fills them in")
    rows: list[list[Any]] = []
    for group, trials in done.groupby(list(PROXY), sort=False, dropna=False):
        accuracy = trials[TRUE] * 100
        oracle = 100 * cross_fitted(trials)
        picks = [
            (criterion, *_judge(trials[criterion], accuracy, METRICS[criterion] == "min"))
            for criterion in CRITERIA
            if trials[criterion].notna().any()
        ]
        weights = trials["config_gan_lambda_e"], trials["config_gan_lambda_d"]
        fixed = accuracy[(weights[0] == FIXED[0]) & (weights[1] == FIXED[1])]
        picks += [("fixed (0, 5)", fixed.mean(), nan), ("random", accuracy.mean(), nan), ("oracle", oracle, nan)]
        rows += [[*group, name, len(trials), picked, oracle - picked, rank] for name, picked, rank in picks]
    return pd.DataFrame(rows, columns=COLUMNS)


def cross_fitted(trials: pd.DataFrame) -> float:
    """Return the best trial's accuracy in [0, 1]: picked by each half of the true images, scored on the other."""
    first, second = trials["oracle_half_1"], trials["oracle_half_2"]
    return float(second.iloc[first.argmax()] + first.iloc[second.argmax()]) / 2


def mean_regret(table: pd.DataFrame) -> pd.DataFrame:
    """Return each criterion's mean regret over the proxies where it has one, lowest first.

    With a bootstrap interval over the proxies, its share of a random choice's regret on the same proxies, its
    worst regret, and its mean rank correlation.
    """
    judged = table[table["criterion"] != "oracle"].dropna(subset="regret")
    random = judged[judged["criterion"] == "random"].set_index(PLACE)["regret"]
    rows = []
    for name, cells in judged.groupby("criterion", sort=False):
        mean = interval(cells["regret"])
        beside = random.reindex(pd.MultiIndex.from_frame(cells[PLACE])).mean()
        share = mean.mean / beside if beside > 0 else nan
        ranks = cells["rank_correlation"].mean()
        rows.append([name, mean.mean, mean.low, mean.high, share, cells["regret"].max(), ranks, len(cells)])
    columns = ["criterion", "mean_regret", "low", "high", "of_random", "worst", "rank_correlation", "proxies"]
    return pd.DataFrame(rows, columns=columns).sort_values("mean_regret", ignore_index=True, kind="stable")


def render(table: pd.DataFrame) -> str:
    """Return a `regret` or `mean_regret` table as Markdown, accuracies with one decimal and shares with two.

    A column that holds one run, task or count throughout is left out.
    """
    same = [name for name in ("run", "task", "count") if name in table and table[name].nunique() < 2]
    table = table.drop(columns=same)
    digits = [".2f" if name in ("rank_correlation", "of_random") else ".1f" for name in table]
    table = table.astype(object).where(table.notna(), None)
    return (
        str(tabulate(table.to_dict("list"), headers="keys", tablefmt="github", floatfmt=digits, missingval="")) + "\n"
    )


def _finished(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["phase"] == Phase.SEARCH) & (frame["state"] == State.COMPLETE)]


def _judge(values: pd.Series[Any], accuracy: pd.Series[Any], less_is_better: bool) -> tuple[float, float]:
    """Return the accuracy of the trial that a criterion picks, and its rank correlation with accuracy."""
    better = -values if less_is_better else values
    picked = float(accuracy.iloc[int(better.argmax())])
    varied = better.nunique() > 1 and accuracy.nunique() > 1
    return picked, float(better.corr(accuracy, method="spearman")) if varied else nan
