"""The page's tables of results and of regret, as the template reads them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from analysis import regret
from analysis.agreement import NO_ACCURACY, SEARCHED, heading
from analysis.figures.style import short
from analysis.tables import cells
from analysis.tables.cells import HELD_OUT, LABELS, MISSING, NO_TEST
from analysis.tables.distillation import NO_PROXY
from analysis.tables.styles import absent, checked, result, teacher_checked
from analysis.tables.table import is_incremental
from degan_search.selection.pareto import front_table

FORMATS = {"rank_correlation": ".2f", "of_random": ".2f", "lambda_e": ".3g", "lambda_d": ".3g", "hours": ".3g"}
FORMATS |= {"core_hours": ".3g", "gpu_hours": ".3g", "money": ".2f"}
FORMATS |= {"score": ".4g", "student_parameters": ".0f", "multiply_adds": ".0f", "width": ".0f"}
"""Number formats by column; all other columns have one decimal."""
TEXT = 200_000
"""Largest number of characters of a text that is shown."""
KINDS = {"old and new classes": "ours", "old classes": "old", "new classes": "new"}
"""Rows of Table 3 on the page, and the table's columns that they show."""


def results(tidy: pd.DataFrame) -> dict[str, Any]:
    """Return a `table.table` for the template: the run's proxies by its methods, and all of its columns.

    For Table 3 the rows are old and new classes together, old ones, and new ones.
    """
    learns_classes = is_incremental(tidy)
    ran = tidy[tidy["trials"] > 0]
    ran = ran if learns_classes else ran[ran["proxy"] != NO_PROXY]
    methods = [*dict.fromkeys(ran["method"])]
    return {
        "corner": "accuracy on" if learns_classes else "proxy images",
        "methods": [LABELS.get(method, method) for method in methods],
        "rows": _by_kind(ran) if learns_classes else _by_proxy(ran, methods),
        "notes": _notes(ran, learns_classes),
        "all": plain_table(tidy),
    }


def by_class(frame: pd.DataFrame, names: Any) -> list[dict[str, Any]]:
    """Return for each teacher a table of its classes by cells: agreement of the cell's chosen configuration, in %.

    It is the mean over the configuration's seeds, blank where the teacher predicts no comparison image as the class.

    Args:
        frame: from `ledger.load`.
        names: of the classes by the teacher's hash, as `run.json` has them; classes without a name are numbered.
    """
    names, tables = names if isinstance(names, dict) else {}, []
    for teacher, trials in frame[frame["class_agreement"].notna()].groupby("teacher_hash", sort=False):
        columns = {}
        for cell, own in trials.groupby("cell", sort=False):
            runs = cells.choose(own, str(own["config_objective"].iloc[0])).runs
            if len(runs):
                columns[str(cell)] = [np.asarray(seed, float) for seed in runs["class_agreement"]]
        if not columns:
            continue
        means = pd.DataFrame({cell: pd.DataFrame(seeds).mean() for cell, seeds in columns.items()})
        known = names.get(teacher)
        called = dict(enumerate(map(str, known))) if isinstance(known, list) else {}
        labels = short(columns)
        tables.append(
            {
                "heads": [("class", False), *((labels[cell] or cell, True) for cell in columns)],
                "rows": [
                    [text(called.get(place, f"class {place}")), *("" if isnan(v) else f"{100 * v:.1f}" for v in row)]
                    for place, row in enumerate(means.to_numpy(float).tolist())
                ],
            }
        )
    return tables


def front(frame: pd.DataFrame, goals: Sequence[str]) -> dict[str, Any]:
    """Return the Pareto front of the search's goals; raises as `pareto.front`."""
    return plain_table(front_table(frame, goals).drop(columns="config"))


def regrets(table: pd.DataFrame) -> dict[str, Any]:
    """Return the regret tables, in percent points, as heads and rows."""
    means = regret.mean_regret(table)
    constant = [name for name in ("run", "task", "dataset", "count") if name in table and table[name].nunique() < 2]
    return {"means": plain_table(means), "each": plain_table(table.drop(columns=constant)), "notes": []}


def plain_table(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table's heads, each with whether it is of numbers, and its rows as text."""
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in table]
    return {
        "heads": list(zip((str(name).replace("_", " ") for name in table), numeric, strict=True)),
        "rows": [[_cell(str(name), value) for name, value in row.items()] for row in table.to_dict("records")],
    }


def text(value: Any) -> str:
    """Return a value as the page shows it; blank where there is none."""
    if value is None or pd.isna(value):
        return ""
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, pd.Timestamp) else str(value)[:TEXT]


def _by_proxy(ran: pd.DataFrame, methods: list[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    rows = []
    for proxy, own in ran.groupby("proxy", sort=False):
        own = own.set_index("method")
        best = own["ours"].idxmax() if own["ours"].notna().any() else None
        by_method = own.to_dict("index")
        rows.append((str(proxy), [_result(by_method.get(method)) | {"best": method == best} for method in methods]))
    return rows


def _by_kind(ran: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    rows = []
    for kind, column in KINDS.items():
        best = ran[column].max()
        shown_cells = []
        for cell in ran.to_dict("records"):
            shown = {"text": f"{cell[column]:.1f}", "details": []} if pd.notna(cell[column]) else _result(None)
            shown_cells.append((_result(cell) if column == "ours" else shown) | {"best": cell[column] == best})
        rows.append((kind, shown_cells))
    return rows


def _result(cell: dict[Any, Any] | None) -> dict[str, Any]:
    if cell is None or pd.isna(cell["ours"]):
        return {"text": MISSING if cell is None else absent(cell), "details": []}
    details = (
        ["the chosen proxy"] if pd.notna(cell.get("chosen_proxy")) and cell["chosen_proxy"] == cell["proxy"] else []
    )
    if pd.notna(cell["low"]):
        details.append(f"{cell['low']:.1f} to {cell['high']:.1f}")
    if pd.notna(cell.get("check")):
        details.append(f"accuracy {checked(cell)}")
    if pd.notna(cell["lambda_e"]):
        details.append(f"lambda_e {cell['lambda_e']:.3g}, lambda_d {cell['lambda_d']:.3g}")
    elif pd.notna(cell.get("lambdas")):
        details.append(f"lambda_e, lambda_d: {cell['lambdas']}")
    if pd.notna(cell["extensions"]):
        details.append(cell["extensions"])
    if pd.notna(cell["paper"]):
        details.append(f"paper {cell['paper']:.1f}")
    return {"text": result(cell), "details": details}


def _notes(ran: pd.DataFrame, learns_classes: bool) -> list[str]:
    over, best = ("runs (class orders x seeds)", "row") if learns_classes else ("seeds", "proxy")
    agreed = not learns_classes and bool(len(ran)) and ran["dataset"].isna().all()
    figures = heading(ran["objective"].iloc[0]) if agreed else "Student accuracy"
    notes = [
        f"{figures} in %, mean ± sample standard deviation, with the number of {over} in brackets. Below it the "
        f"95% bootstrap interval of the mean, the weights, and the paper's figure. Bold: the best of a {best}."
    ]
    if agreed:
        notes.append(NO_ACCURACY)
        notes += filter(None, [teacher_checked(ran)])
    where = "held-out training images" if learns_classes else "the held-out true training images"
    where = "the comparison images" if agreed else where
    if ran["measured_on"].isin((HELD_OUT, SEARCHED)).any():
        notes.append(f"* The search's best trial, measured on {where}: no final runs yet.")
    if (ran["measured_on"] == NO_TEST).any():
        notes.append(f"** Final runs, measured on {where}: the true data have no test images.")
    if chosen := ", ".join(name for name in dict.fromkeys(ran["chosen_by"].dropna()) if name != "unknown"):
        notes.append(f"How the weights were chosen: {chosen}.")
    return notes


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float) and pd.notna(value):
        shown = format(value, FORMATS.get(name, ".1f"))
        return shown if float(shown) else shown.lstrip("-")
    return text(value)
