"""How a table of accuracies reads: its rows as text, Markdown, LaTeX or HTML, with a caption and notes."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import LATEX_ESCAPE_RULES, tabulate

from analysis.agreement import BANK, NO_ACCURACY, SEARCHED
from analysis.statistics import wilson
from analysis.tables.cells import HELD_OUT, MISSING, NO_TEST, STOPPED, grouped
from degan_search.ledger.cost import Money, in_words, together

WIDTH = 120
"""Characters in a line of the text table."""
NUMBERS = ("best", "gap", "old", "new", "paper", "diff.", "orders", "trials", "hours", "core-h", "GPU-h", "cost")
BEST = (
    "Best: each run's best epoch by the test images, as most published code reports it; "
    "gap: how far the student that was chosen without them is below that, on the same runs."
)
NO_FINALS = "the search's best trial by its score, no final trials"
STARRED = {
    HELD_OUT: ("*", NO_FINALS),
    SEARCHED: ("*", NO_FINALS),
    NO_TEST: ("**", "final trials, as the true data have no test images"),
}
"""What is marked: where it was measured, the mark, and what that means."""
LONG = ("proxy data", "lambdas")
"""Columns whose text may take several lines."""


@dataclass(frozen=True, eq=False)
class Page:
    """A table ready to be read."""

    tidy: pd.DataFrame
    caption: str
    shown: pd.DataFrame
    """Text in every cell."""
    notes: Sequence[str]


def number(cell: Mapping[Any, Any], name: str, how: str = ".2f") -> str:
    """Return a number of a table's row as text; blank where there is none."""
    return "" if isnan(cell[name]) else format(cell[name], how)


def result(cell: Mapping[Any, Any]) -> str:
    """Return `71.2* ± 0.8 (3)`: mean, its mark by STARRED, sample standard deviation, number of runs."""
    if cell["measured_on"] == MISSING:
        return absent(cell)
    star = STARRED[cell["measured_on"]][0] if cell["measured_on"] in STARRED else ""
    spread = f" ± {number(cell, 'std', '.1f')}" if number(cell, "std") else ""
    return f"{cell['ours']:.1f}{star}{spread} ({cell['n']})"


def absent(cell: Mapping[Any, Any]) -> str:
    """Return why a cell has no figure: all its trials were stopped early, or there are none that ended well."""
    return STOPPED if 0 < cell["trials"] == cell["pruned"] else MISSING


def bounds(cell: Mapping[Any, Any]) -> str:
    """Return the 95% interval as text; blank where there is none."""
    return f"[{cell['low']:.1f}, {cell['high']:.1f}]" if number(cell, "low") else ""


def checked(cell: Mapping[Any, Any]) -> str:
    """Return the accuracy on the labelled images of `teacher.check` with its interval; blank where there is none."""
    return f"{cell['check']:.1f} [{cell['check_low']:.1f}, {cell['check_high']:.1f}]" if number(cell, "check") else ""


def teacher_checked(tidy: pd.DataFrame) -> str:
    """Return what the columns of `checked` are, with the teacher's own accuracy; "" where there are no such images."""
    known = tidy.dropna(subset=["check", "teacher_check"])
    if known.empty:
        return ""
    of_teacher = wilson(known["teacher_check"].iloc[0] / 100, int(known["n_check"].iloc[0]))
    shown = f"{100 * of_teacher.mean:.1f} [{100 * of_teacher.low:.1f}, {100 * of_teacher.high:.1f}]"
    return (
        f"Accuracy: on the {of_teacher.n} labelled images of teacher.check, in %, with the 95% Wilson interval; "
        f"the teacher's: {shown}."
    )


def refereed(cell: Mapping[Any, Any]) -> dict[str, str]:
    """Return the columns of the runs' best epochs by the test images as text; blank where there was no referee."""
    return {"best": number(cell, "best_on_test", ".1f"), "gap": number(cell, "gap", ".1f")}


def effort(cell: Mapping[Any, Any]) -> dict[str, str]:
    """Return a row's trials, hours, and what they held, as text."""
    if not cell["trials"]:
        return dict.fromkeys(("trials", "hours", "core-h", "GPU-h", "cost"), "")
    return {
        "trials": str(cell["trials"]),
        "hours": number(cell, "hours"),
        "core-h": number(cell, "core_hours"),
        "GPU-h": number(cell, "gpu_hours") if cell["gpu_hours"] else "",
        "cost": str(Money(cell["money"], cell["currency"])) if number(cell, "money") else "",
    }


def without_needless(shown: pd.DataFrame) -> pd.DataFrame:
    """Return a page's columns but for those that are blank throughout, and for core-hours that are the hours."""
    needless = ["core-h"] if (shown["core-h"] == shown["hours"]).all() else []
    return shown.loc[:, (shown != "").any()].drop(columns=needless, errors="ignore")


def notes(tidy: pd.DataFrame, names: Sequence[str], images: Mapping[str, str], over: str) -> list[str]:
    """Return the lines below a table: where it was measured, how configurations were chosen, and what it cost.

    Args:
        tidy: the table.
        names: of its rows.
        images: what TEST and HELD_OUT images are, in words.
        over: what the intervals are over, such as seeds.
    """
    shown = tidy[tidy["measured_on"] != MISSING]
    used = list(shown["measured_on"].unique())
    places = dict.fromkeys(images[name] for name in used)
    lines = [f"Measured on {' or '.join(places) or 'nothing yet'}."]
    lines += [f"{star} Measured on {images[name]}: {why}." for name, (star, why) in STARRED.items() if name in used]
    if BANK in used or SEARCHED in used:
        lines.append(NO_ACCURACY)
    if check := teacher_checked(tidy) if "check" in tidy else "":
        lines.append(check)
    if shown["best_on_test"].notna().any():
        lines.append(BEST)
    if shown["low"].notna().any():
        lines.append(f"The interval is a bootstrap over {over}: with few {over.split(' ')[0]} it is too narrow.")
    for chosen_by, where in grouped(tidy, "chosen_by", names):
        lines.append(f"How the lambdas (lambda_e, lambda_d) were chosen: {chosen_by}{where}.")
    named = [f"{name}: {cell['extensions']}" for name, cell in zip(names, tidy.to_dict("records"), strict=True)]
    if on := [line for line, used in zip(named, tidy["extensions"].notna(), strict=True) if used]:
        lines.append(f"Not the paper's: {'; '.join(on)}.")
    counts = tidy[["trials", "pruned", "failed"]].sum()
    lines.append(
        f"{counts['trials']} trials, of which {counts['pruned']} pruned and {counts['failed']} failed; "
        f"{tidy['hours'].sum():.2f} hours of trials together: {in_words(together(tidy))}."
    )
    return lines


def teachers(tidy: pd.DataFrame, images: Mapping[str, str]) -> str:
    """Return the teachers' accuracies with what they were measured on, such as `80.0 on the test images`."""
    parts = []
    known = tidy[tidy["measured_on"] != MISSING].dropna(subset="teacher")
    for where, rows in known.groupby("measured_on", sort=False):
        values = dict.fromkeys(f"{teacher:.1f}" for teacher in rows["teacher"])
        parts.append(f"{' and '.join(values)} on {images[str(where)]}")
    return "; ".join(parts) or "not measured"


def csv(table: pd.DataFrame) -> str:
    """Return a table as CSV with every column; text that a spreadsheet would take for a formula gets a ' before it."""
    formula = re.compile(r"[=+\-@\t\r].", re.DOTALL)
    plain = table.map(lambda value: f"'{value}" if isinstance(value, str) and formula.match(value) else value)
    return str(plain.to_csv(index=False))


def _text(page: Page) -> str:
    rows = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in map(str, page.shown):
        rows.add_column(name, justify=_side(name), no_wrap=name not in LONG, overflow="fold")
    for cells in page.shown.itertuples(index=False):
        rows.add_row(*map(Text, cells))
    console = Console(width=WIDTH, file=io.StringIO(), color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(Text(page.caption), "", rows, "", *map(Text, page.notes), sep="\n")
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _markdown(page: Page) -> str:
    signs = str.maketrans({"*": r"\*", "|": r"\|"})  # Markdown reads * as a list or as italics, | as a cell's end
    shown = page.shown.map(lambda text: text.translate(signs))
    lines = [page.caption.translate(signs), _tabulate(shown, "github"), *(note.translate(signs) for note in page.notes)]
    return "\n\n".join(lines) + "\n"


def _latex(page: Page) -> str:
    signs = {ord(sign): command for sign, command in LATEX_ESCAPE_RULES.items()}  # tabulate does it in cells
    caption, *notes = (line.translate(signs) for line in (page.caption, *page.notes))
    rows = re.sub(r"(& *)-(?=\d)", r"\1$-$", _tabulate(page.shown, "latex_booktabs"))
    parts = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rows, r"\par\footnotesize", *notes]
    return "\n".join([*parts, r"\end{table}"]).replace("±", r"$\pm$") + "\n"


def _html(page: Page) -> str:
    lines = [f"<p>{html.escape(line)}</p>" for line in (page.caption, *page.notes)]
    return "\n".join([lines[0], _tabulate(page.shown, "html"), *lines[1:]]) + "\n"


STYLES: dict[str, Callable[[Page], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": lambda page: csv(page.tidy),
    "latex": _latex,
    "html": _html,
}


def _tabulate(shown: pd.DataFrame, style: str) -> str:
    values, sides = shown.to_dict("list"), [_side(name) for name in map(str, shown)]
    return str(tabulate(values, headers="keys", tablefmt=style, disable_numparse=True, colalign=sides))


def _side(name: str) -> Literal["left", "right"]:
    return "right" if name in NUMBERS else "left"
