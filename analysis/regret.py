"""What choosing without true data costs: the regret of each criterion to the choice with true data."""

from __future__ import annotations

from math import nan
from typing import Any

import pandas as pd
from tabulate import tabulate

from analysis.agreement import without_true_data
from analysis.statistics import interval
from degan_search.selection.choose import PROXY, finished
from degan_search.settings.criteria import CRITERIA, DATA_FREE, TRUE
from degan_search.system.errors import UserError

FIXED = (0.0, 5.0)
"""(lambda_e, lambda_d) of the released code."""
PLACE = ["run", "task", "dataset", "proxy", "count"]
COLUMNS = [*PLACE, "criterion", "trials", "accuracy", "regret", "rank_correlation"]


def regret(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each proxy and criterion the accuracy of the trial it picks and its regret, in percent points.

    Over the search's finished DeGAN trials, all with one seed. Accuracy is on the held-out 20% of the true
    training images; of students that learned new classes, on held-out images of old and new ones. Regret is the
    oracle's accuracy minus that of the picked trial; the oracle is cross-fitted, picking by one half of these
    images and scored on the other, both ways, so that it does not gain by picking and scoring on the same
    images; a lucky pick may therefore have a regret below 0. That a search stopped its best trial early
    cannot be seen here. Beside the criteria stand the released code's weights, where a trial had them, and a choice at
    random (the trials' mean). `rank_correlation` is Spearman's between criterion, its sign turned where less is
    better, and accuracy.

    Args:
        frame: from `ledger.load`, evaluated.

    Raises:
        UserError: no finished trial with an accuracy, or trials without true data.
    """
    if without_true_data(frame):
        raise UserError(
            "what a choice cost shows in accuracies on true images, and this run has none: it needs a labelled set in "
            "teacher.dataset"
        )
    done = finished(frame)
    done = done[(done["config_method"] == "degan") & done["oracle_half_1"].notna()]
    if done.empty:
        raise UserError("no finished search trial with an accuracy: `degan-search evaluate RUN` fills them in")
    rows: list[list[Any]] = []
    for group, trials in done.groupby(list(PROXY), sort=False, dropna=False):
        accuracy = trials[TRUE] * 100
        oracle = 100 * cross_fitted(trials)
        picks = [
            (criterion, *_judge(trials[criterion], accuracy, CRITERIA[criterion].direction == "min"))
            for criterion in DATA_FREE
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


def _judge(values: pd.Series[Any], accuracy: pd.Series[Any], less_is_better: bool) -> tuple[float, float]:
    """Return the accuracy of the trial that a criterion picks, and its rank correlation with accuracy."""
    better = -values if less_is_better else values
    picked = float(accuracy.iloc[int(better.argmax())])
    varied = better.nunique() > 1 and accuracy.nunique() > 1
    return picked, float(better.corr(accuracy, method="spearman")) if varied else nan
