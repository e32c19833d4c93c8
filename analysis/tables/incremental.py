"""The paper's Table 3 from finished trials: one row a method that learns new classes, ours beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tables import cells, styles
from analysis.tables.cells import HELD_OUT, LABELS, NO_TEST, ORDER, TEST, WEIGHTS
from degan_search.ledger.columns import Phase, State
from degan_search.settings.methods import TUNED
from degan_search.system.errors import UserError

COLUMNS = ["method", "ours", "std", "orders", "n", "low", "high", "old", "new", "measured_on", "paper", "difference"]
COLUMNS += ["lambda_e", "lambda_d", "lambdas", "extensions", "teacher", "chosen_by", "hours", "trials", "pruned"]
COLUMNS += ["failed", "old_classes", "new_classes", "network", "objective", *cells.REFEREED, *cells.HELD]
"""The columns of `table`; accuracies are in percent."""

CLASS_ORDER = ["config_teacher_dataset", "config_proxy"]
"""The columns of a class order: its old classes and its new ones."""
SETTING = (
    "config_teacher_network",
    "config_teacher_width",
    "config_teacher_count",
    "config_count",
    "config_objective",
)
"""Columns in which all trials of one table must agree; the number of classes must agree too."""
NUMBER = r"(?<=/order_)\d+(?=_)"
"""The number of a class order in a name such as `cifar100/order_1993_first_20`."""
PAPERS_CLASSES = ("cifar100/order_*_first_20", "cifar100/order_*_next_20")
SIZES_DIFFER = (
    "The paper's figures are of 20 old and 20 new classes of CIFAR-100: sizes differ, no difference is shown."
)
PAPER = Path(__file__).parents[1] / "paper" / "table3.csv"
IMAGES = {
    TEST: "the test images of old and new classes",
    **dict.fromkeys((HELD_OUT, NO_TEST), "the held-out training images of old and new classes"),
}
BEFORE = {TEST: "the test images", **dict.fromkeys((HELD_OUT, NO_TEST), "the held-out training images")}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each method, with accuracies in percent over old and new classes together.

    A method with complete final trials shows their mean over all runs, which are class orders x seeds, on the test
    images; any other one the search's best trial of each class order, on held-out training images. `std` is the
    sample standard deviation over the n runs, `low` and `high` the 95% bootstrap interval of their mean, NaN for
    fewer than two; `orders` is the number of class orders. `old` and `new` are the same runs' means on each kind's
    images. Where several configurations compete within a class order, the one with the best (mean) score counts;
    `chosen_by` says whether that choice needs true data. `best_on_test` and `gap` are as of Table 2.
    `teacher` is the initial network's accuracy on the old classes, on the same images.

    `lambda_e` and `lambda_d` are null where the method uses none, and where they differ from order to order;
    `lambdas` is both as text, with ranges. `extensions` names the extensions of the paper that are on. Trials, their
    `hours` and what they held (`cells.HELD`) count both phases and those pruned or failed. `paper` is the paper's
    figure; `difference`, ours minus it, is null unless the classes are the paper's, 20 + 20 of CIFAR-100. `old_classes`
    and `new_classes` are the names with `*` for an order's number, and with the number of images where not all are
    used.

    Rows are the run's methods and the paper's; one with no measure has `measured_on` "missing".

    Args:
        frame: from `ledger.load`.

    Raises:
        UserError: trials of more than one network, number of images or of classes, or objective.
    """
    cells.one_setting(frame, SETTING)
    if frame.empty:
        return pd.DataFrame(columns=COLUMNS)
    old_classes, new_classes = _classes(frame)
    objective = str(frame["config_objective"].iloc[0])
    about = {"old_classes": old_classes, "new_classes": new_classes, "objective": objective}
    network, width = frame[["config_teacher_network", "config_teacher_width"]].iloc[0]
    about["network"] = str(network) if pd.isna(width) else f"{network} of width {int(width)}"
    cited = pd.read_csv(PAPER)
    printed = dict(zip(cited["method"], cited["accuracy_percent"].astype(float), strict=True))
    comparable = (old_classes, new_classes) == PAPERS_CLASSES
    rows = []
    for method in cells.ordered({*frame["config_method"].dropna(), *printed}, ORDER):
        cell = _cell(frame[frame["config_method"] == method], method, objective)
        figure = printed.get(method, nan)
        compared = {"paper": figure, "difference": cell["ours"] - figure if comparable else nan}
        rows.append({"method": method} | about | cell | compared)
    return pd.DataFrame(rows, columns=COLUMNS)


def page(tidy: pd.DataFrame) -> styles.Page:
    """Return a `table` ready to be read, without columns that are blank throughout."""
    first = tidy.iloc[0]
    shown = pd.DataFrame([_row(cell) for cell in tidy.to_dict("records")])
    caption = (
        f"Accuracy in % over old and new classes, mean ± sample standard deviation (runs: class orders x seeds); "
        f"old classes: {first['old_classes']}; new classes: {first['new_classes']}; network: {first['network']}, "
        f"before on the old classes: {styles.teachers(tidy, BEFORE)}."
    )
    lines = styles.notes(tidy, list(tidy["method"].replace(LABELS)), IMAGES, "runs")
    if (first["old_classes"], first["new_classes"]) != PAPERS_CLASSES:
        lines.insert(0, SIZES_DIFFER)
    return styles.Page(tidy, caption, styles.without_needless(shown), lines)


def _classes(frame: pd.DataFrame) -> tuple[str, str]:
    """Return the names of old and new classes, those of all class orders as one.

    Raises:
        UserError: class orders of several sizes.
    """
    pairs = frame[CLASS_ORDER].replace(NUMBER, "*", regex=True).drop_duplicates()
    # Names of other sets do not say how many classes there are.
    if len(pairs) > 1 and pairs.map(lambda name: "/order_*_" in name).any(axis=None):
        shown = ", ".join(f"{old} with {new}" for old, new in pairs.itertuples(index=False))
        raise UserError(f"a table compares class orders of one size, but these are {shown}: keep the trials of one")
    counts = (frame[name].iloc[0] for name in ("config_teacher_count", "config_count"))
    names = [" or ".join(dict.fromkeys(pairs[name])) for name in CLASS_ORDER]
    used = ["" if pd.isna(count) else f" ({int(count)} images)" for count in counts]
    return names[0] + used[0], names[1] + used[1]


def _cell(trials: pd.DataFrame, method: str, objective: str) -> dict[str, Any]:
    """Choose a method's configuration in each class order, and read their accuracy."""
    finals = trials[(trials["state"] == State.COMPLETE) & (trials["phase"] == Phase.FINAL)]
    compared = finals if len(finals) else trials
    chosen = [cells.choose(own, objective) for _, own in compared.groupby(CLASS_ORDER, sort=False)]
    found = [choice for choice in chosen if len(choice.runs)]
    runs = pd.concat([choice.runs for choice in found]) if found else trials.head(0)
    measured_on = cells.measured_where(runs, TEST if len(finals) else HELD_OUT)
    known = runs.dropna(subset=cells.ACCURACY[measured_on])
    weights = [runs[f"config_gan_{name}"] for name in WEIGHTS] if method in TUNED else []
    same = [own.iloc[0] if own.nunique() == 1 else nan for own in weights] or [nan, nan]
    return {
        **cells.measured(runs, measured_on),
        **cells.refereed(runs),
        "orders": len(known.drop_duplicates(CLASS_ORDER)),
        **{kind: 100 * known[f"{kind}_accuracy"].mean() for kind in ("old", "new")},
        **dict(zip(WEIGHTS, same, strict=True)),
        "lambdas": ", ".join(cells.spread(own) for own in weights) if found and weights else None,
        "extensions": cells.extensions(runs, "config_incremental_profile"),
        "chosen_by": "; ".join(dict.fromkeys(choice.chosen_by for choice in found if choice.chosen_by)) or None,
        **cells.spent(trials),
    }


def _row(cell: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "method": LABELS.get(cell["method"], cell["method"]),
        "ours": styles.result(cell),
        "95% interval": styles.bounds(cell),
        **styles.refereed(cell),
        "old": styles.number(cell, "old", ".1f"),
        "new": styles.number(cell, "new", ".1f"),
        "paper": styles.number(cell, "paper"),
        "diff.": styles.number(cell, "difference", "+.1f"),
        "lambdas": "" if pd.isna(cell["lambdas"]) else cell["lambdas"],
        "orders": str(cell["orders"]) if cell["orders"] else "",
        **styles.effort(cell),
    }
