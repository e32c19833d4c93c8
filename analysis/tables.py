"""The paper's Tables 1 and 2 from finished trials: one row a cell, ours beside the paper's."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import LATEX_ESCAPE_RULES, tabulate

from analysis import choice, figures
from analysis.statistics import interval
from degan_search.errors import UserError, close_matches
from degan_search.records import Phase, State

COLUMNS = ["proxy", "method", "ours", "std", "n", "low", "high", "measured_on", "paper", "difference"]
COLUMNS += ["lambda_e", "lambda_d", "chosen_by", "hours", "trials", "pruned", "failed"]
COLUMNS += ["dataset", "teacher", "objective"]

METHODS = ("teacher", "kimura", "zskd", "proxy", "dcgan", "degan")
"""The order of a proxy's rows; other methods follow."""
WEIGHTED = ("degan",)
"""Methods that use lambda_e and lambda_d."""
WEIGHTS = ("lambda_e", "lambda_d")
WITHOUT_PROXY = ("teacher", "kimura", "zskd", "true")
"""Methods whose figure in the paper belongs to no proxy."""
NO_PROXY = "none"
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
PAPERS = ("table1", "table2")
PAPER_PROXIES = {"noise": "noise/uniform"}
PAPER_METHODS = {"true_data": "true"}

TEST = "test"
HELD_OUT = "held-out 20%"
MISSING = "missing"
ACCURACY = {TEST: "test_accuracy", HELD_OUT: "oracle_accuracy"}
IMAGES = {TEST: "the test images", HELD_OUT: "the held-out 20% of the true training images"}
WIDTH = 120
"""Characters in a line of the text table."""
NUMBERS = ("paper", "diff.", "trials", "hours")


def table(frame: pd.DataFrame, paper: str = "table2") -> pd.DataFrame:
    """Return one row for each proxy and method, with accuracies in percent.

    A cell with complete final trials shows the mean, sample standard deviation and number of their seeds on
    the test images; any other cell the search's best trial on the held-out share of the true training
    images; `low` and `high` are the 95% bootstrap interval of the mean over seeds, NaN for fewer than two.
    Where several configurations compete, the one with the best (mean) `score` is shown. `chosen_by` says
    whether that choice needs true data; it is null where there is nothing to choose. `teacher` is measured
    on the same images. `paper` is the paper's figure, `difference` ours minus it. Weights are null where the
    method uses none. Trials, and the `hours` that they took, count both phases and those pruned or failed.

    Rows are the run's proxies by its methods, and what else the paper's table has for the true data set:
    a cell with no measure has `measured_on` "missing". Table 1's teacher is measured, too.

    Args:
        frame: from `ledger.load`.
        paper: `table1` or `table2`. Table 2 is of CIFAR-10 alone: other data sets stand beside Table 1.

    Raises:
        UserError: an unknown table; trials of more than one true data set, teacher network, student network,
            proxy size or objective.
    """
    if paper not in PAPERS:
        raise UserError(f"the paper's table {paper!r} is unknown; {close_matches(paper, PAPERS)}")
    _one_setting(frame)
    dataset, objective = (
        str(frame[name].iloc[0]) if len(frame) else "" for name in ("config_teacher_dataset", "config_objective")
    )
    printed = _printed(paper, dataset)
    without_proxy = {method: figure for (_, method), figure in printed.items() if method in WITHOUT_PROXY}
    rows = []
    for proxy, method in _cells(frame, printed):
        trials = frame[(frame["config_proxy"] == proxy) & (frame["config_method"] == method)]
        cell = _cell(trials, method in WEIGHTED, objective)
        if method == "teacher":
            cell |= _teacher(frame)
        figure = without_proxy.get(method, printed.get((proxy, method), nan))
        about = {"proxy": proxy, "method": method, "dataset": dataset, "objective": objective}
        rows.append(about | cell | {"paper": figure, "difference": cell["ours"] - figure})
    return pd.DataFrame(rows, columns=COLUMNS)


def render(tidy: pd.DataFrame, style: str = "text") -> str:
    r"""Return a `table` for reading, or as csv with every column.

    `71.2 ± 0.8 (3)` is mean, sample standard deviation and number of seeds; `*` marks the held-out 20%. Text
    lines have at most 120 characters; LaTeX is a `table` that needs \usepackage{booktabs}.

    Raises:
        UserError: a style that is not in STYLES.
    """
    if style not in STYLES:
        raise UserError(f"style {style!r} is unknown; {close_matches(style, STYLES)}")
    if tidy.empty and style != "csv":
        return "No trials yet.\n"
    return STYLES[style](tidy)


def save(tidy: pd.DataFrame, folder: Path) -> None:
    """Write a `table` as `table.csv` (every column), `table.md`, `table.tex` and `table.png` (cells with trials).

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        for ending, style in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
            (folder / f"table.{ending}").write_text(render(tidy, style), encoding="utf-8")
        if len(shown := tidy[tidy["trials"] > 0]):
            figures.save(figures.methods_by_proxy(shown), folder / "table.png")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None


def _cells(frame: pd.DataFrame, printed: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (proxy, method) of each row: the run's proxies by its methods, and the paper's other cells."""
    ours = set(product(frame["config_proxy"].dropna().unique(), methods := set(frame["config_method"].dropna())))
    # What belongs to no proxy is not missing where it ran beside one.
    cells = ours | {cell for cell in printed if cell[1] not in methods.intersection(WITHOUT_PROXY)}
    proxies = _ordered({proxy for proxy, _ in cells}, (proxy for proxy, _ in printed))
    methods_in_order = _ordered({method for _, method in cells}, METHODS)
    return [cell for cell in product(proxies, methods_in_order) if cell in cells]


def _cell(trials: pd.DataFrame, weighted: bool, objective: str) -> dict[str, Any]:
    """Choose a cell's configuration by score and read its accuracy."""
    complete = trials[trials["state"] == State.COMPLETE]
    finals = complete[complete["phase"] == Phase.FINAL]
    measure = choice.chosen_by(complete)
    chosen = _best_configuration(finals) if len(finals) else _best_trial(complete, measure)
    measured_on = TEST if len(finals) else HELD_OUT
    weights = [chosen[f"config_gan_{name}"].iloc[0] if weighted and len(chosen) else nan for name in WEIGHTS]
    return {
        **_accuracy(chosen[ACCURACY[measured_on]], measured_on),
        **dict(zip(WEIGHTS, weights, strict=True)),
        "teacher": 100 * chosen["teacher_" + ACCURACY[measured_on]].mean(),
        "chosen_by": _chosen_by(chosen, measure, objective),
        "hours": _seconds(trials).sum() / 3600,
        "trials": len(trials),
        "pruned": int((trials["state"] == State.PRUNED).sum()),
        "failed": int((trials["state"] == State.FAIL).sum()),
    }


def _accuracy(rates: pd.Series[Any], measured_on: str) -> dict[str, Any]:
    percent = 100 * rates.dropna()
    mean = interval(percent)
    return {
        "ours": mean.mean,
        "std": percent.std(),
        "n": mean.n,
        "low": mean.low,
        "high": mean.high,
        "measured_on": measured_on if mean.n else MISSING,
    }


def _teacher(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the accuracy of the run's teachers, on the test images if any final trial measured it there."""
    measured_on = TEST if frame["teacher_test_accuracy"].notna().any() else HELD_OUT
    column = "teacher_" + ACCURACY[measured_on]
    return _accuracy(frame.dropna(subset=column).drop_duplicates("teacher_hash")[column], measured_on)


def _seconds(trials: pd.DataFrame) -> pd.Series[Any]:
    """Return what each trial took; by the clock where it ended before it could say."""
    return trials["seconds"].fillna((trials["finished"] - trials["started"]).dt.total_seconds())


def _best_trial(complete: pd.DataFrame, measure: str) -> pd.DataFrame:
    if complete[measure].isna().all():
        return complete.head(0)
    return choice.best(complete, measure, per=())


def _best_configuration(finals: pd.DataFrame) -> pd.DataFrame:
    """Return the trials, one a seed, of the configuration with the best mean score."""
    settings = [str(name) for name in finals if str(name).startswith("config_") and name not in PER_SEED]
    # As text, for configurations hold lists.
    same = pd.Series(list(map(repr, finals[settings].to_numpy(dtype=object).tolist())), index=finals.index, dtype=str)
    means = finals["score"].groupby(same).mean()
    best = means.fillna(float("-inf")).idxmax()
    # A trial is a pure function of its configuration: one that two runs repeat counts once.
    return finals[same == best].drop_duplicates("config_seed")


def _chosen_by(chosen: pd.DataFrame, measure: str, objective: str) -> str | None:
    """Return what picked the configuration and whether it needs true data; null where there was nothing to pick."""
    if chosen.empty or not (chosen["config_method"].isin(WEIGHTED).all() or chosen["chosen_by"].notna().any()):
        return None
    finals = chosen["phase"].iloc[0] == Phase.FINAL
    # Rows of an older version do not say it: they were chosen by score.
    by = (chosen["chosen_by"].dropna().iloc[0] if chosen["chosen_by"].notna().any() else "score") if finals else measure
    return _needs(objective if by == "score" else by)


def _needs(measure: str) -> str:
    return f"oracle: {measure}" if measure == choice.TRUE else f"data-free: {measure}"


def _one_setting(frame: pd.DataFrame) -> None:
    for column in SETTING:
        values = frame[column].drop_duplicates()
        if len(values) > 1:
            shown = ", ".join(map(str, values))
            raise UserError(f"a table compares one setting, but {column} is {shown}: keep the trials of one")


def _printed(paper: str, dataset: str) -> dict[tuple[str, str], float]:
    """Return the paper's accuracies in percent by (proxy, method), in the paper's order."""
    if paper == "table2" and dataset == "cifar10":
        printed = pd.read_csv(PAPER / "table2.csv")
    else:
        printed = pd.read_csv(PAPER / "table1.csv").query("true_dataset == @dataset").fillna(NO_PROXY)
    printed = printed.replace({"proxy_dataset": PAPER_PROXIES, "method": PAPER_METHODS})
    keys = zip(printed["proxy_dataset"], printed["method"], strict=True)
    return dict(zip(keys, printed["student_accuracy_percent"].astype(float), strict=True))


def _ordered(names: set[str], first: Iterable[str]) -> list[str]:
    known = [name for name in dict.fromkeys(first) if name in names]
    return known + sorted(names.difference(known))


def _text(tidy: pd.DataFrame) -> str:
    shown, (caption, *notes) = _shown(tidy), _lines(tidy)
    rows = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in map(str, shown):
        # Only a proxy's name may be so long that it takes several lines.
        rows.add_column(name, justify=_side(name), no_wrap=name != "proxy data", overflow="fold")
    for cells in shown.itertuples(index=False):
        rows.add_row(*map(Text, cells))
    console = Console(width=WIDTH, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(Text(caption), "", rows, "", *map(Text, notes), sep="\n")
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _markdown(tidy: pd.DataFrame) -> str:
    signs = str.maketrans({"*": r"\*", "|": r"\|"})  # a bare * would begin a list or set text in italics
    caption, *notes = (line.translate(signs) for line in _lines(tidy))
    shown = _shown(tidy).map(lambda text: text.translate(signs))
    return "\n\n".join([caption, _tabulate(shown, "github"), *notes]) + "\n"


def _latex(tidy: pd.DataFrame) -> str:
    signs = {ord(sign): command for sign, command in LATEX_ESCAPE_RULES.items()}  # tabulate does it in cells
    caption, *notes = (line.translate(signs) for line in _lines(tidy))
    rows = re.sub(r"(& *)-(?=\d)", r"\1$-$", _tabulate(_shown(tidy), "latex_booktabs"))
    parts = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rows, r"\par\footnotesize", *notes]
    return "\n".join([*parts, r"\end{table}"]).replace("±", r"$\pm$") + "\n"


STYLES: dict[str, Callable[[pd.DataFrame], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": lambda tidy: tidy.to_csv(index=False),
    "latex": _latex,
}


def _tabulate(shown: pd.DataFrame, style: str) -> str:
    values, sides = shown.to_dict("list"), [_side(name) for name in map(str, shown)]
    return str(tabulate(values, headers="keys", tablefmt=style, disable_numparse=True, colalign=sides))


def _side(name: str) -> Literal["left", "right"]:
    return "right" if name in NUMBERS else "left"


def _shown(tidy: pd.DataFrame) -> pd.DataFrame:
    """Return the table as it is read: text in every cell, a proxy named once, no column that is all blank."""
    shown = pd.DataFrame([_row(cell) for cell in tidy.to_dict("records")])
    shown["proxy data"] = shown["proxy data"].mask(shown["proxy data"].duplicated(), "")
    return shown.loc[:, (shown != "").any()]


def _row(cell: Mapping[Any, Any]) -> dict[str, str]:
    def number(name: str, how: str = ".2f") -> str:
        return "" if isnan(cell[name]) else format(cell[name], how)

    mark = "*" if cell["measured_on"] == HELD_OUT else ""
    spread = f" ± {number('std', '.1f')}" if number("std") else ""
    missing = cell["measured_on"] == MISSING
    return {
        "proxy data": cell["proxy"],
        "method": cell["method"],
        "ours": MISSING if missing else f"{cell['ours']:.1f}{mark}{spread} ({cell['n']})",
        "95% interval": f"[{cell['low']:.1f}, {cell['high']:.1f}]" if number("low") else "",
        "paper": number("paper"),
        "diff.": number("difference", "+.1f"),
        "lambdas": ", ".join(filter(None, (number(name, ".3g") for name in WEIGHTS))),
        "trials": str(cell["trials"]) if cell["trials"] else "",
        "hours": number("hours") if cell["trials"] else "",
    }


def _lines(tidy: pd.DataFrame) -> list[str]:
    """Return the caption, then the notes."""
    shown = tidy[tidy["measured_on"] != MISSING]
    teachers = []
    for images, cells in shown.dropna(subset="teacher").groupby("measured_on", sort=False):
        values = dict.fromkeys(f"{teacher:.1f}" for teacher in cells["teacher"])
        teachers.append(f"{' and '.join(values)} on {IMAGES[str(images)]}")
    caption = f"Student accuracy in %, mean ± sample standard deviation (seeds); true data: {tidy['dataset'].iloc[0]}"
    lines = [f"{caption}; teacher: {'; '.join(teachers) or 'not measured'}."]
    used = list(shown["measured_on"].unique())
    lines.append(f"Measured on {' or '.join(map(IMAGES.__getitem__, used)) or 'nothing yet'}.")
    if HELD_OUT in used:
        lines.append(f"* Measured on {IMAGES[HELD_OUT]}: the search's best trial by its score, no final trials.")
    if shown["low"].notna().any():
        lines.append("The interval is a bootstrap over seeds: with few seeds it is too narrow.")
    lines += _choices(tidy)
    counts = tidy[["trials", "pruned", "failed"]].sum()
    spent = f"{tidy['hours'].sum():.2f} hours of trials together"
    lines.append(
        f"{counts['trials']} trials, of which {counts['pruned']} pruned and {counts['failed']} failed; {spent}."
    )
    return lines


def _choices(tidy: pd.DataFrame) -> list[str]:
    """Return how the configurations were chosen, with their cells where not all were chosen alike."""
    groups = list(tidy.dropna(subset="chosen_by").groupby("chosen_by", sort=False))
    lines = []
    for chosen_by, cells in groups:
        names = ", ".join(f"{cell.method} on {cell.proxy}" for cell in cells.itertuples())
        where = f" ({names})" if len(groups) > 1 else ""
        lines.append(f"How the lambdas (lambda_e, lambda_d) were chosen: {chosen_by}{where}.")
    return lines
