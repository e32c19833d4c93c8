"""The paper's Table 2, proxies by methods, from finished trials and with the paper's figures beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from analysis import figures
from degan_search.errors import UserError
from degan_search.records import Phase, State

COLUMNS = ["proxy", "method", "ours", "std", "n", "measured_on", "lambda_e", "lambda_d", "paper", "difference"]
COLUMNS += ["trials", "pruned", "failed", "dataset", "teacher", "objective"]

METHODS = ("proxy", "dcgan", "degan")
"""The paper's columns; other methods follow them."""
WEIGHTED = ("degan",)
"""Methods that use lambda_e and lambda_d."""
SETTING = (
    "config_teacher_dataset",
    "config_teacher_network",
    "config_student_network",
    "config_count",
    "config_objective",
)
"""What all trials of one table share, as figures are not comparable otherwise."""

PER_SEED = ("config_seed", "config_hash", "config_json")
"""Columns in which the seeds of one configuration differ."""

PAPER = Path(__file__).parent / "paper"
PAPER_PROXIES = {"noise": "noise/uniform"}
PAPER_METHODS = {"true_data": "true"}

TEST = "test"
HELD_OUT = "held-out 20%"
ACCURACY = {TEST: "test_accuracy", HELD_OUT: "oracle_accuracy"}
MISSING = "missing"

Paper = Literal["table1", "table2"]
Style = Literal["text", "markdown", "csv"]


def table2(frame: pd.DataFrame, paper: Paper = "table2") -> pd.DataFrame:
    """Return one row for each proxy and method of a frame from `ledger.load`, accuracies in percent.

    A cell with complete final trials shows the mean, sample standard deviation and number of their seeds on
    the test images; any other cell the search's best trial on the held-out share of the true training
    images. Where several configurations compete, the one with the best (mean) `score` is shown: the
    search's objective, which needs no true data unless the user asked for one that does. `teacher` is measured
    on the same images. `paper` is the paper's figure: of Table 2 for CIFAR-10, of Table 1 for other data sets or
    if asked for. Weights are null where the method uses none, `ours` where nothing is measured; trials are
    counted over both phases.

    Raises:
        UserError: trials of more than one true data set, teacher network, student network, proxy size or
            objective.
    """
    _one_setting(frame)
    dataset, objective = (
        str(frame[name].iloc[0]) if len(frame) else "" for name in ("config_teacher_dataset", "config_objective")
    )
    figures = _figures(paper, dataset)
    proxies = _ordered(frame["config_proxy"], (proxy for proxy, _ in figures))
    methods = _ordered(frame["config_method"], METHODS)
    rows = []
    for proxy in proxies:
        for method in methods:
            trials = frame[(frame["config_proxy"] == proxy) & (frame["config_method"] == method)]
            cell = _cell(trials, method in WEIGHTED)
            # True images are no proxy: the trial's proxy says nothing about them.
            figure = figures.get((dataset if method == "true" else proxy, method), float("nan"))
            known = {"proxy": proxy, "method": method, "paper": figure, "dataset": dataset, "objective": objective}
            rows.append(known | cell | {"difference": cell["ours"] - figure})
    return pd.DataFrame(rows, columns=COLUMNS)


def render(tidy: pd.DataFrame, style: Style = "text") -> str:
    """Return a `table2` as proxies by methods, with what was measured on which images in lines around it.

    A cell reads `71.2 ± 0.8 (3)`: mean, sample standard deviation and number of seeds; `*` marks the held-out
    20%. As csv the lines around the table begin with `#`.

    Raises:
        UserError: an unknown style.
    """
    if style not in ("text", "markdown", "csv"):
        raise UserError(f"style {style!r} is unknown: one of text, markdown, csv is needed")
    if tidy.empty:
        return "No trials yet.\n"
    wide, lines = _wide(tidy), _lines(tidy)
    if style == "csv":
        return "".join(f"# {line}\n" for line in lines) + wide.to_csv(index=False)
    if style == "markdown":
        # A bare * would begin a list or set text in italics.
        wide, lines = wide.map(_escape), [_escape(line) for line in lines]
        table = tabulate(wide.to_dict("list"), headers="keys", tablefmt="github", disable_numparse=True)
        return "\n\n".join([lines[0], table, *lines[1:]]) + "\n"
    table = tabulate(wide.to_dict("list"), headers="keys", tablefmt="simple", disable_numparse=True)
    return "\n".join([lines[0], "", table, "", *lines[1:]]) + "\n"


def save(tidy: pd.DataFrame, folder: Path) -> None:
    """Write a `table2` as `table2.csv` (one row a cell, every column), `table2.md` and `table2.png`.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        tidy.to_csv(folder / "table2.csv", index=False)
        (folder / "table2.md").write_text(render(tidy, "markdown"))
        figures.save(figures.methods_by_proxy(tidy), folder / "table2.png")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None


def _cell(trials: pd.DataFrame, weighted: bool) -> dict[str, Any]:
    """Choose a cell's configuration by score and read its accuracy."""
    counts = {
        "trials": len(trials),
        "pruned": int((trials["state"] == State.PRUNED).sum()),
        "failed": int((trials["state"] == State.FAIL).sum()),
    }
    nan = float("nan")
    cell: dict[str, Any] = counts | {"ours": nan, "std": nan, "n": 0, "measured_on": None, "teacher": nan}
    cell |= {"lambda_e": nan, "lambda_d": nan}
    complete = trials[trials["state"] == State.COMPLETE]
    finals = complete[complete["phase"] == Phase.FINAL]
    chosen = _best_configuration(finals) if len(finals) else _best_trial(complete)
    if chosen.empty:
        return cell
    measured_on = TEST if len(finals) else HELD_OUT
    accuracy = 100 * chosen[ACCURACY[measured_on]].dropna()
    cell |= {
        "ours": accuracy.mean(),
        "std": accuracy.std(),
        "n": len(accuracy),
        "measured_on": measured_on,
        "teacher": 100 * chosen["teacher_" + ACCURACY[measured_on]].mean(),
    }
    if weighted:
        cell |= {name: chosen[f"config_gan_{name}"].iloc[0] for name in ("lambda_e", "lambda_d")}
    return cell


def _best_trial(complete: pd.DataFrame) -> pd.DataFrame:
    return complete.dropna(subset="score").nlargest(1, "score")


def _best_configuration(finals: pd.DataFrame) -> pd.DataFrame:
    """Return the trials, one a seed, of the configuration with the best mean score."""
    settings = [name for name in finals if str(name).startswith("config_") and name not in PER_SEED]
    # As text, for configurations hold lists.
    same = pd.Series(list(map(repr, finals[settings].to_numpy(dtype=object).tolist())), index=finals.index)
    means = finals["score"].groupby(same).mean()
    best = means.fillna(float("-inf")).idxmax()
    # A trial is a pure function of its configuration: one that two runs repeat counts once.
    return finals[same == best].drop_duplicates("config_seed")


def _one_setting(frame: pd.DataFrame) -> None:
    for column in SETTING:
        values = frame[column].drop_duplicates()
        if len(values) > 1:
            shown = ", ".join(map(str, values))
            raise UserError(f"a table compares one setting, but {column} is {shown}: keep the trials of one")


def _figures(paper: Paper, dataset: str) -> dict[tuple[str, str], float]:
    """Return the paper's accuracies in percent by (proxy, method), in the paper's order."""
    if paper == "table2" and dataset == "cifar10":
        printed = pd.read_csv(PAPER / "table2.csv")
    else:
        printed = pd.read_csv(PAPER / "table1.csv").query("true_dataset == @dataset").dropna()
    printed = printed.replace({"proxy_dataset": PAPER_PROXIES, "method": PAPER_METHODS})
    keys = zip(printed["proxy_dataset"], printed["method"], strict=True)
    return dict(zip(keys, printed["student_accuracy_percent"].astype(float), strict=True))


def _ordered(present: pd.Series[Any], first: Iterable[str]) -> list[str]:
    names = set(present.dropna())
    known = [name for name in dict.fromkeys(first) if name in names]
    return known + sorted(names.difference(known))


def _wide(tidy: pd.DataFrame) -> pd.DataFrame:
    published = set(tidy.loc[tidy["paper"].notna(), "method"])
    rows = []
    for proxy, cells in tidy.groupby("proxy", sort=False):
        row = {"proxy data": str(proxy)}  # a method is called "proxy"
        for cell in cells.to_dict("records"):
            method = cell["method"]
            row[method] = _accuracy(cell)
            if method in published:
                row[f"{method}, paper"] = "" if isnan(cell["paper"]) else f"{cell['paper']:.2f}"
            if method in WEIGHTED:
                weights = [cell["lambda_e"], cell["lambda_d"]]
                row["lambda_e, lambda_d"] = "" if isnan(weights[0]) else ", ".join(f"{w:.3g}" for w in weights)
        rows.append(row)
    return pd.DataFrame(rows)


def _accuracy(cell: Mapping[Any, Any]) -> str:
    if isnan(cell["ours"]):
        return MISSING
    mark = "*" if cell["measured_on"] == HELD_OUT else ""
    spread = "" if isnan(cell["std"]) else f" ± {cell['std']:.1f}"
    return f"{cell['ours']:.1f}{mark}{spread} ({cell['n']})"


def _lines(tidy: pd.DataFrame) -> list[str]:
    """Return the caption, then the notes."""
    shown = tidy[tidy["ours"].notna()]
    teachers = []
    for images, cells in shown.dropna(subset="teacher").groupby("measured_on", sort=False):
        values = dict.fromkeys(f"{teacher:.1f}" for teacher in cells["teacher"])
        teachers.append(f"{' and '.join(values)} on {_images(str(images))}")
    caption = f"Student accuracy in %, mean ± sample standard deviation (seeds); true data: {tidy['dataset'].iloc[0]}"
    lines = [f"{caption}; teacher: {'; '.join(teachers) or 'not measured'}."]
    used = list(shown["measured_on"].unique())
    lines.append(f"Measured on {' or '.join(map(_images, used)) or 'nothing yet'}.")
    lines.append(f"Chosen by {tidy['objective'].iloc[0]}, the search's objective.")
    if HELD_OUT in used:
        lines.append(f"* Measured on {_images(HELD_OUT)}: the search's best trial by its score, no final trials.")
    counts = tidy[["trials", "pruned", "failed"]].sum()
    lines.append(f"{counts['trials']} trials, of which {counts['pruned']} pruned and {counts['failed']} failed.")
    return lines


def _images(measured_on: str) -> str:
    return {TEST: "the test images", HELD_OUT: "the held-out 20% of the true training images"}[measured_on]


def _escape(text: str) -> str:
    return text.replace("*", r"\*")
