"""The paper's Tables 1 and 2 from finished trials: one row a proxy and method, ours beside the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.agreement import BANK, SEARCHED, heading
from analysis.tables import cells, styles
from analysis.tables.cells import ACCURACY, HELD_OUT, LABELS, NO_TEST, ORDER, TEST, WEIGHTS
from degan_search.ledger.columns import Phase
from degan_search.settings import methods
from degan_search.settings.methods import METHODS, TUNED

COLUMNS = ["proxy", "method", "chosen_proxy", "ours", "std", "n", "low", "high", "measured_on", "paper", "difference"]
COLUMNS += ["lambda_e", "lambda_d", "extensions", "chosen_by", "hours", "trials", "pruned", "failed"]
COLUMNS += ["dataset", "teacher", "objective", *cells.CHECK, *cells.REFEREED, *cells.HELD]
"""The columns of `table`; accuracies are in percent."""

WITHOUT_PROXY = ("teacher", "kimura", *methods.WITHOUT_PROXY)
"""Methods that use no proxy: the paper gives their accuracy once, and no proxy's row lacks it."""
NO_PROXY = "none"
SETTING = (
    "config_teacher_dataset",
    "config_teacher_network",
    "config_student_network",
    "config_objective",
)
"""Columns in which all trials of one table must agree, as accuracies are not comparable otherwise."""

PAPER = Path(__file__).parents[1] / "paper"
PAPER_PROXIES = {"noise": "noise/uniform"}
PAPER_METHODS = {"true_data": "true"}
IMAGES = {TEST: "the test images"}
IMAGES |= dict.fromkeys((HELD_OUT, NO_TEST), "the held-out 20% of the true training images")
IMAGES |= dict.fromkeys((BANK, SEARCHED), "the comparison images")


def table(frame: pd.DataFrame, paper: str) -> pd.DataFrame:
    """Return one row for each proxy and method, with accuracies in percent.

    A cell with complete final trials shows the mean, sample standard deviation and number of their seeds on
    the test images, or on the held-out share of the true training images where there are no test images; any other
    cell the search's best trial on that held-out share; `low` and `high` are the 95% bootstrap interval of the mean
    over seeds, NaN for fewer than two.
    Without true data (`dataset` is null) the figures are agreement with the teacher, by `agreement.judged_by`;
    `check` is the accuracy on the labelled images of `teacher.check`, null where there are none, with its interval.
    Where several configurations compete, the one with the best (mean) `score` is shown. `chosen_by` says
    whether that choice needs true data; it is null where there is nothing to choose. `best_on_test` is the mean of
    each run's best epoch by the test images, as the field reports it, and `gap` how far ours is below that, both null
    without `finals.referee`.
    `teacher` is measured on the same images. `paper` is the paper's figure, `difference` ours minus it. Weights are
    null where the method uses none; `extensions` names the extensions of the paper that are on, and is null where none
    is. Trials, the `hours` that they took and what they held (`cells.HELD`) count both phases and those pruned or
    failed.

    Rows are the run's proxies by its methods (of trials on a bank of several proxies those that ran), and what else
    the paper's table has for the true data set; where trials differ in the number of proxy images, each number has rows
    of its own. A cell with no measure has `measured_on` "missing". A method that uses
    no proxy stands where it ran, beside the paper's figure of no proxy. Table 1's teacher is measured, too. Where
    trials of a method on several proxies were compared on one bank, `chosen_proxy` is the one that is the best there,
    in the row of each; else it is null.

    Args:
        frame: from `ledger.load`.
        paper: `table1` or `table2`. Table 2 is of CIFAR-10 alone: other data sets stand beside Table 1.

    Raises:
        UserError: trials of more than one true data set, teacher network, student network or objective;
            but a search may choose the student's network.
    """
    drawn = frame.groupby(["run", "cell"])["config_student_network"].nunique()
    searched = ("config_student_network",) if (drawn > 1).any() else ()
    cells.one_setting(frame, [name for name in SETTING if name not in searched])
    frame = _with_counts(frame)
    first = frame.iloc[0] if len(frame) else {"config_teacher_dataset": "", "config_objective": ""}
    dataset, objective = first["config_teacher_dataset"], str(first["config_objective"])
    dataset = None if pd.isna(dataset) else str(dataset)
    printed = _printed(paper, dataset or "")
    without_proxy = {method: figure for (_, method), figure in printed.items() if method in WITHOUT_PROXY}
    rows = []
    chosen = _chosen_proxies(frame, objective)
    for proxy, method in _cells(frame, printed):
        trials = frame[(frame["config_proxy"] == proxy) & (frame["config_method"] == method)]
        cell = _cell(trials, method, objective, dataset is None)
        if method == "teacher":
            cell |= _teacher(frame)
        figure = without_proxy.get(method, printed.get((proxy, method), nan))
        about = {"proxy": proxy, "method": method, "dataset": dataset, "objective": objective}
        about["chosen_proxy"] = chosen.get((proxy, method))
        rows.append(about | cell | {"paper": figure, "difference": cell["ours"] - figure})
    return pd.DataFrame(rows, columns=COLUMNS)


def _with_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the trials with their number of images in the proxy's name, if they differ in it."""
    counts = frame["config_count"]
    if counts.nunique(dropna=False) < 2:
        return frame
    shown = counts.map(lambda count: "all images" if pd.isna(count) else f"{count:,.0f} images")
    return frame.assign(config_proxy=frame["config_proxy"] + ", " + shown)


def page(tidy: pd.DataFrame) -> styles.Page:
    """Return a `table` ready to be read: each proxy named once, and no column that is blank throughout."""
    rows = tidy.to_dict("records")
    shown = pd.DataFrame([_row(cell) for cell in rows])
    shown["proxy data"] = shown["proxy data"].mask(shown["proxy data"].duplicated(), "")
    names = [f"{LABELS.get(cell['method'], cell['method'])} on {cell['proxy']}" for cell in rows]
    return styles.Page(
        tidy,
        caption(tidy),
        styles.without_needless(shown),
        styles.notes(tidy, names, IMAGES, "seeds"),
    )


def caption(tidy: pd.DataFrame) -> str:
    """Return what a `table`'s figures are, in a sentence."""
    mean, dataset = "mean ± sample standard deviation (seeds)", tidy["dataset"].iloc[0]
    if pd.isna(dataset):
        return f"{heading(tidy['objective'].iloc[0])} in %, {mean}."
    return f"Student accuracy in %, {mean}; true data: {dataset}; teacher: {styles.teachers(tidy, IMAGES)}."


def _cells(frame: pd.DataFrame, printed: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (proxy, method) of each row: the run's proxies by its methods, and the paper's other cells."""
    ran = set(frame[["config_proxy", "config_method"]].dropna().itertuples(index=False, name=None))
    ran_methods = {method for _, method in ran}
    alone = frame[frame["compared_on"] == frame["config_proxy"]]  # of a searched proxy nobody asked for every method
    crossed = set(product(alone["config_proxy"].unique(), set(alone["config_method"]).difference(WITHOUT_PROXY)))
    # A method that uses no proxy ran beside one of them: the paper's row of it is then not missing.
    found = ran | crossed | {cell for cell in printed if cell[1] not in ran_methods.intersection(WITHOUT_PROXY)}
    proxies = cells.ordered({proxy for proxy, _ in found}, (proxy for proxy, _ in printed))
    in_order = product(proxies, cells.ordered({method for _, method in found}, ORDER))
    return [cell for cell in in_order if cell in found]


def _chosen_proxies(frame: pd.DataFrame, objective: str) -> dict[tuple[str, str], str]:
    """Return by proxy and method which proxy is chosen of several that were compared on one bank."""
    chosen: dict[tuple[str, str], str] = {}
    for (_, method), trials in frame.groupby(["compared_on", "config_method"], sort=False):
        runs, names = cells.choose(trials, objective).runs, trials["config_proxy"].unique()
        if len(names) > 1 and len(runs):
            chosen |= {(str(name), str(method)): str(runs["config_proxy"].iloc[0]) for name in names}
    return chosen


def _cell(trials: pd.DataFrame, method: str, objective: str, without_true_data: bool) -> dict[str, Any]:
    """Choose a cell's configuration by score and read its accuracy, or its agreement with the teacher."""
    chosen = cells.choose(trials, objective)
    runs = chosen.runs
    weighted = method in TUNED and len(runs)
    by_steps = method in METHODS and (METHODS[method].from_generators or METHODS[method].matched)
    measured_on = chosen.measured_on
    return {
        **(cells.agreed(runs, measured_on, objective) if without_true_data else cells.measured(runs, measured_on)),
        **cells.checked(runs),
        **cells.refereed(runs),
        **{name: runs[f"config_gan_{name}"].iloc[0] if weighted else nan for name in WEIGHTS},
        "extensions": cells.extensions(runs, f"config_distill{'' if by_steps else '_images'}_profile"),
        "chosen_by": chosen.chosen_by,
        **cells.spent(trials),
    }


def _teacher(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the accuracy of the run's teachers, on the test images if any final trial measured it there."""
    finals = frame.loc[frame["phase"] == Phase.FINAL, ["teacher_test_accuracy", "teacher_oracle_accuracy"]]
    tested, evaluated = finals.notna().any()
    measured_on = TEST if tested else NO_TEST if evaluated else HELD_OUT
    column = "teacher_" + ACCURACY[measured_on]
    return cells.accuracy(frame.dropna(subset=column).drop_duplicates("teacher_hash")[column], measured_on)


def _printed(paper: str, dataset: str) -> dict[tuple[str, str], float]:
    """Return the paper's accuracies in percent by (proxy, method), in the paper's order."""
    if paper == "table2" and dataset == "cifar10":
        printed = pd.read_csv(PAPER / "table2.csv")
    else:
        printed = pd.read_csv(PAPER / "table1.csv").query("true_dataset == @dataset").fillna(NO_PROXY)
    printed = printed.replace({"proxy_dataset": PAPER_PROXIES, "method": PAPER_METHODS})
    keys = zip(printed["proxy_dataset"], printed["method"], strict=True)
    return dict(zip(keys, printed["student_accuracy_percent"].astype(float), strict=True))


def _row(cell: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "proxy data": cell["proxy"],
        "method": LABELS.get(cell["method"], cell["method"]) + " (chosen)" * (cell["chosen_proxy"] == cell["proxy"]),
        "agreement" if pd.isna(cell["dataset"]) else "ours": styles.result(cell),
        "95% interval": styles.bounds(cell),
        **styles.refereed(cell),
        "accuracy": styles.checked(cell),
        "paper": styles.number(cell, "paper"),
        "diff.": styles.number(cell, "difference", "+.1f"),
        "lambdas": ", ".join(filter(None, (styles.number(cell, name, ".3g") for name in WEIGHTS))),
        **styles.effort(cell),
    }
