"""What the choice of the weights without true data costs: its regret to the best that true data would have chosen."""

from __future__ import annotations

from math import nan
from typing import Any

import pandas as pd
from tabulate import tabulate

from degan_search.errors import UserError
from degan_search.records import Phase, State

CRITERIA = ("balanced_soft_agreement", "balanced_agreement", "soft_agreement", "agreement", "holdout_agreement")
"""Measures that need no true data; higher is better."""
FIXED = (0.0, 5.0)
"""(lambda_e, lambda_d) of the released code."""
COLUMNS = ["dataset", "proxy", "criterion", "trials", "accuracy", "regret", "rank_correlation"]


def regret(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each data set, proxy and criterion the accuracy of the trial it picks and its regret, in points.

    Over the search's finished trials of methods with weights to choose, all with one seed. Accuracy is on the
    held-out share of the true training images; regret is the best accuracy among the trials minus the
    picked one's, so a search that stopped its best trial early does not show here. Beside the criteria stand
    the released code's weights, where a trial had them, and a choice at random (the trials' mean).
    `rank_correlation` is Spearman's between criterion and accuracy.

    Args:
        frame: from `ledger.load`, with `oracle_accuracy` filled in.

    Raises:
        UserError: no finished trial with an accuracy.
    """
    done = frame[(frame["phase"] == Phase.SEARCH) & (frame["state"] == State.COMPLETE)]
    done = done[(done["config_method"] == "degan") & done["oracle_accuracy"].notna()]
    if done.empty:
        raise UserError("no finished search trial with an accuracy: there is no choice to judge")
    rows: list[list[Any]] = []
    for (dataset, proxy), trials in done.groupby(["config_teacher_dataset", "config_proxy"], sort=False):
        accuracy = trials["oracle_accuracy"] * 100
        picks: list[tuple[str, float, float]] = []

        for criterion in CRITERIA:
            if trials[criterion].notna().any():
                correlation = (
                    trials[criterion].corr(accuracy, method="spearman") if trials[criterion].nunique() > 1 else nan
                )
                picks.append((criterion, accuracy.iloc[int(trials[criterion].argmax())], correlation))
        weights = trials["config_gan_lambda_e"], trials["config_gan_lambda_d"]
        fixed = accuracy[(weights[0] == FIXED[0]) & (weights[1] == FIXED[1])]
        picks += [("fixed (0, 5)", fixed.mean(), nan), ("random", accuracy.mean(), nan)]
        rows += [
            [dataset, proxy, name, len(trials), picked, accuracy.max() - picked, rank] for name, picked, rank in picks
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def mean_regret(table: pd.DataFrame) -> pd.DataFrame:
    """Return each criterion's regret as a mean over the data sets and proxies where it has one, lowest first."""
    means = table.dropna(subset="regret").groupby("criterion")["regret"].agg(["mean", "count"])
    return means.sort_values("mean").reset_index().rename(columns={"mean": "mean_regret", "count": "proxies"})


def render(table: pd.DataFrame) -> str:
    """Return a `regret` or `mean_regret` table as Markdown."""
    table = table.astype(object).where(table.notna(), None)
    return str(tabulate(table.to_dict("list"), headers="keys", tablefmt="github", floatfmt=".1f", missingval="")) + "\n"
