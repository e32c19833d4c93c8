"""The trials and their curves as JSON values for the page's script, by columns so that the page stays small."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.report.samples import Grid
from degan_search.ledger.columns import METRICS, REPORT_COLUMNS
from degan_search.settings.methods import TUNED
from degan_search.settings.resolve import flatten

POINTS = 40_000
"""About the largest number of points of all curves together; more are thinned, but rung scores stay."""
CURVES = [name for name in REPORT_COLUMNS if name not in ("stage", "seconds")]
WEIGHTS = ("gan.lambda_e", "gan.lambda_d")
"""Settings that are left blank for methods without weights."""
ELSEWHERE = ("method", "proxy", "seed", "probe.at")
"""Settings that have a column of their own, and `probe.at`, which follows from the phase."""
ABOUT = {
    "trial_id": "trial",
    "phase": "phase",
    "state": "state",
    "config_proxy": "proxy",
    "config_method": "method",
    "config_seed": "seed",
}
MEASURES = {
    "score": "score",
    "oracle_accuracy": "held-out accuracy, %",
    "test_accuracy": "test accuracy, %",
    "gan_steps": "GAN steps",
    "seconds": "seconds",
}
"""Measures shown at first, and their labels; all others are shown on demand, by their column's name."""
MORE = [name for name in METRICS if name not in MEASURES]
OF_NEW_CLASSES = ("old_accuracy", "new_accuracy")
"""Columns of MORE that are shown at first where they were measured."""


def trials(frame: pd.DataFrame, grids: list[Grid]) -> dict[str, Any]:
    """Return the table of trials: `columns` (name, label, kind, first, measure), and `values` for each of them.

    Beside them each trial's `cell`, `reason` and `samples`, and its configuration: `same` holds the settings that
    all trials share, `varied` those of each trial that differ. Accuracies are in percent.
    """
    configs = [_config(text) for text in frame["config_json"]]
    same, varied = _split(configs)
    shown = [*WEIGHTS, *(name for name in varied if name not in (*WEIGHTS, *ELSEWHERE))]
    columns: list[dict[str, Any]] = []
    values: list[list[Any]] = []

    def add(name: str, label: str, kind: str, first: bool, column: list[Any]) -> None:
        if name in ABOUT or name in MEASURES or any(value is not None for value in column):
            measure = name in MEASURES or name in MORE
            columns.append({"name": name, "label": label, "kind": kind, "first": first, "measure": measure})
            values.append(column)

    for name, label in ABOUT.items():
        add(name, label, "number" if name == "config_seed" else "text", True, plain(frame[name]))
    for name in shown:
        column = [_setting(name, config) for config in configs]
        numbers = all(value is None or isinstance(value, int | float) for value in column)
        add(name, name.removeprefix("gan."), "number" if numbers else "text", True, column)
    for name, label in MEASURES.items():
        add(name, label, "number", True, plain(in_percent(frame, name)))
    for name in MORE:
        label = name.replace("_", " ") + (", %" if is_accuracy(name) else "")
        add(name, label, "number", name in OF_NEW_CLASSES, plain(in_percent(frame, name)))
    add("started", "started", "time", False, _moments(frame["started"]))
    return {
        "columns": columns,
        "values": values,
        "cell": plain(frame["cell"]),
        "reason": plain(frame["reason"]),
        "same": same,
        "varied": [{name: config[name] for name in varied if name in config} for config in configs],
        "samples": {grid.trial_id: {"link": grid.link, "held": grid.picture is not None} for grid in grids},
    }


def curves(frame: pd.DataFrame) -> dict[str, Any]:
    """Return `every` (1: no curve is thinned) and `trials`: each trial's reports, column by column."""
    every = max(1, -(-len(frame) // POINTS))
    place = frame.groupby("trial_id", sort=False).cumcount()
    kept = frame[(place % every == 0) | frame["score"].notna()] if every > 1 else frame
    columns = {name: plain(kept[name], digits=4) for name in CURVES}
    trials: dict[str, dict[str, list[Any]]] = {}
    for trial_id, rows in kept.groupby("trial_id", sort=False).indices.items():
        taken = {name: [column[row] for row in rows] for name, column in columns.items()}
        trials[str(trial_id)] = {name: column for name, column in taken.items() if any(v is not None for v in column)}
    return {"every": every, "trials": trials}


def plain(values: Any, digits: int = 6) -> list[Any]:
    """Return a column as JSON values: numbers to so many digits, null for what is missing or not finite."""
    column = pd.Series(values)
    if pd.api.types.is_integer_dtype(column):
        return [int(value) for value in column]
    if pd.api.types.is_float_dtype(column):
        shown = [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in column.to_numpy(float)]
        # Whole numbers are written without their ".0".
        return [int(value) if value is not None and value.is_integer() else value for value in shown]
    return [None if pd.isna(value) else _scalar(value, digits) for value in column]


def is_accuracy(name: str) -> bool:
    """Return whether a column is shown in percent."""
    return "accuracy" in name or name.startswith("oracle_half")


def in_percent(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a column as it is shown: accuracies in percent."""
    return frame[name].astype(float) * (100 if is_accuracy(name) else 1)


def _scalar(value: Any, digits: int) -> Any:
    if isinstance(value, bool | str):
        return value
    return plain([float(value)], digits)[0]


def _moments(column: pd.Series[Any]) -> list[str | None]:
    return [None if pd.isna(moment) else f"{moment:%Y-%m-%d %H:%M:%S}" for moment in column]


def _config(text: Any) -> dict[str, Any]:
    """Return a configuration's settings by dotted name, lists as text; none where a row has no JSON object."""

    def finite(number: str) -> Any:
        return float(number) if np.isfinite(float(number)) else number  # the page's JSON has no infinity

    try:
        settings = dict(flatten(json.loads(text, parse_constant=str, parse_float=finite)))
        return {name: json.dumps(value) if isinstance(value, list) else value for name, value in settings.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _split(configs: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Return what all configurations share, and the names of what differs, in the order of the first."""
    known = [config for config in configs if config]
    names = list(dict.fromkeys(name for config in known for name in config))
    varied = [name for name in names if any(config.get(name) != known[0].get(name) for config in known)]
    return {name: known[0].get(name) for name in names if name not in varied}, varied


def _setting(name: str, config: dict[str, Any]) -> Any:
    if name in WEIGHTS and config.get("method") not in TUNED:
        return None
    return config.get(name)
