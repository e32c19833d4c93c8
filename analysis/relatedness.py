"""Whether measures of how related a proxy is predict the accuracy of students distilled from it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd
from tabulate import tabulate

from analysis.regret import FIXED
from analysis.statistics import rank_correlation
from degan_search.ledger.columns import Phase, State
from degan_search.system.errors import UserError

OUTCOMES = {
    "proxy_images": "proxy images",
    "dcgan": "DCGAN",
    "degan": "DeGAN, best score",
    "degan_fixed": "DeGAN (0, 5)",
    "gain": "gain, best score",
    "gain_fixed": "gain, (0, 5)",
}
"""What a measure should predict: accuracies in percent, and DeGAN's gain over DCGAN in points."""
ACCURACY = {Phase.SEARCH: "oracle_accuracy", Phase.FINAL: "test_accuracy"}
IMAGES = {
    Phase.SEARCH: "search trials on the held-out share of the true training images",
    Phase.FINAL: "final trials on the test images",
}
CELL = ["proxy", "count"]
NO_MEASURE = [*CELL, "images"]
WEIGHTS = ["config_gan_lambda_e", "config_gan_lambda_d"]
SCORE = "score_of_proxy_images"
"""A measure that takes a short training: the score, without true data, of the student of the proxy images, as at the
search's first rung (`probe.at: [0]`)."""
COLUMNS = ["phase", "count", "measure", "outcome", "rho", "low", "high", "p", "n"]


def cells(frame: pd.DataFrame) -> list[tuple[str, int | None]]:
    """Return each proxy with each count of its images (None: all) that trials of a frame used, in its order."""
    pairs = frame[["config_proxy", "config_count"]].drop_duplicates().itertuples(index=False)
    return [(str(proxy), None if pd.isna(count) else int(count)) for proxy, count in pairs]


def outcomes(frame: pd.DataFrame, phase: Phase = Phase.SEARCH) -> pd.DataFrame:
    """Return one row for each proxy and count of images: proxy, count, then OUTCOMES; NaN where nothing is measured.

    Over finished trials of one phase: of the search by accuracy on the held-out share of the true training
    images, of finals by test accuracy. DCGAN is the method `dcgan`, and `degan` with both weights 0. DeGAN is
    the trial with the best score (of finals the weights with the best mean over seeds), and apart from that
    the trials at the released code's weights. Several such trials count as their mean.

    Args:
        frame: from `ledger.load`, trials with one teacher.
        phase: which trials.

    Raises:
        UserError: no such trial with an accuracy, or trials of several teachers.
    """
    accuracy = ACCURACY[phase]
    done = frame[(frame["phase"] == phase) & (frame["state"] == State.COMPLETE) & frame[accuracy].notna()]
    if done.empty and frame["config_teacher_dataset"].isna().all():
        raise UserError("correlations are with accuracies on true images, and these trials have no teacher.dataset")
    if done.empty:
        raise UserError(f"no finished {phase} trial with {accuracy}: there is nothing to correlate with")
    if done["teacher_hash"].nunique() > 1:
        raise UserError(f"trials of {done['teacher_hash'].nunique()} teachers: a proxy is related to one")
    rows: list[dict[str, Any]] = []
    for (proxy, count), trials in done.groupby(["config_proxy", "config_count"], dropna=False, sort=False):
        percent, method = 100 * trials[accuracy], trials["config_method"]
        degan = method == "degan"
        zero, fixed = ((trials[WEIGHTS] == list(weights)).all(axis=1) for weights in ((0.0, 0.0), FIXED))
        row = {
            "proxy_images": percent[method == "proxy"].mean(),
            "dcgan": percent[(method == "dcgan") | (degan & zero)].mean(),
            "degan": percent[_best(trials[degan], phase)].mean(),
            "degan_fixed": percent[degan & fixed].mean(),
        }
        gains = {"gain": row["degan"] - row["dcgan"], "gain_fixed": row["degan_fixed"] - row["dcgan"]}
        rows.append({"proxy": proxy, "count": count} | row | gains)
    return pd.DataFrame(rows).astype({"count": "Int64"})


def correlations(frame: pd.DataFrame, measures: pd.DataFrame, phase: Phase = Phase.SEARCH) -> pd.DataFrame:
    """Return Spearman's rho of each measure and outcome over proxies, with interval, permutation p and their number.

    For each count of images by itself: proxies of equal count differ in their classes alone, and a proxy with two
    counts is still one proxy. NaN for fewer than three proxies, or where one side does not vary. SCORE is one of the
    measures where all of a count's students were compared on one bank, as `bank.proxies` makes it.

    Args:
        frame: as for `outcomes`.
        measures: one row for each proxy and count, as `degan_search.evaluation.relatedness.relatedness` gives it.
        phase: which trials.

    Raises:
        UserError: as `outcomes`; or no cell has both trials and measures.
    """
    both = outcomes(frame, phase).merge(measures, on=CELL, validate="one_to_one")
    if both.empty:
        raise UserError("no proxy has both measures and finished trials with the same count of images")
    both = both.merge(_scores_of_proxy_images(frame, phase), how="left", on=CELL)
    names = [*(name for name in measures if name not in NO_MEASURE), *({SCORE} & set(both.dropna(axis=1, how="all")))]
    rows = [
        {"phase": phase, "count": count, "measure": measure, "outcome": outcome}
        | asdict(rank_correlation(arm[measure], arm[outcome]))
        for count, arm in both.groupby("count", dropna=False)
        for measure in names
        for outcome in OUTCOMES
    ]
    return pd.DataFrame(rows)[COLUMNS]


def render(table: pd.DataFrame) -> str:
    """Return `correlations` as Markdown, one table for each count: measures by outcomes.

    A cell reads `0.62 [0.31, 0.80], p 0.001, n 31`.
    """
    phase = Phase(table["phase"].iloc[0])
    parts = [
        f"Spearman's rho with 95% bootstrap interval, permutation p (not corrected for the number of measures) and "
        f"number of proxies n. Accuracy of {IMAGES[phase]}; gain: DeGAN's over DCGAN. Of distances and entropy, low "
        f"means related: rho below 0 is then what one hopes for."
    ]
    for _, arm in table.groupby("count", dropna=False, sort=False):
        count = arm["count"].iloc[0]
        parts.append(f"**{'All' if pd.isna(count) else format(count, ',')} images of each proxy**")
        text = arm.assign(text=[_cell(row) for _, row in arm.iterrows()])
        wide = text.pivot(index="measure", columns="outcome", values="text")
        wide = wide.loc[list(arm["measure"].unique()), list(OUTCOMES)].rename(columns=OUTCOMES).reset_index()
        parts.append(str(tabulate(wide.to_dict("list"), headers="keys", tablefmt="github", disable_numparse=True)))
    return "\n\n".join(parts) + "\n"


def _scores_of_proxy_images(frame: pd.DataFrame, phase: Phase) -> pd.DataFrame:
    """Return SCORE of each proxy and count, mean over seeds; no row of a count whose students had several banks."""
    trials = frame[(frame["phase"] == phase) & (frame["state"] == State.COMPLETE)]
    one_bank = trials.groupby("config_count", dropna=False)["compared_on"].transform("nunique") == 1
    students = trials[one_bank & (trials["config_method"] == "proxy")]
    means = students.groupby(["config_proxy", "config_count"], dropna=False)["score"].mean()
    return means.rename(SCORE).rename_axis(CELL).reset_index().astype({"count": "Int64"})


def _best(trials: pd.DataFrame, phase: Phase) -> pd.Index:
    """Return the rows of the trial with the best score; of finals those of the weights with the best mean."""
    score = trials["score"] if phase == Phase.SEARCH else trials.groupby(WEIGHTS)["score"].transform("mean")
    best: pd.Index = trials.index[score == score.max()]
    return best if phase == Phase.FINAL else best[:1]


def _cell(row: pd.Series) -> str:
    if pd.isna(row["rho"]):
        return f"n {row['n']}"
    return f"{row['rho']:.2f} [{row['low']:.2f}, {row['high']:.2f}], p {row['p']:.3f}, n {row['n']}"
