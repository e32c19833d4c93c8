"""Traces and axes for the page's figures, and the names and colours that they share."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.style import COLOURS, GRAY, method_style
from analysis.report.data import plain
from degan_search.ledger.columns import State
from degan_search.settings.methods import METHODS

SYMBOLS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}
"""Plotly's names of the figures' marks."""
ACCURACY = {"oracle_accuracy": "held-out accuracy (%)", "test_accuracy": "test accuracy (%)", "score": "score"}
"""What a figure may show; the first that was measured is shown first."""
KINDS = {"old_accuracy": "accuracy on old classes (%)", "new_accuracy": "accuracy on new classes (%)"}
"""What is also shown of students that learned new classes."""
RANKS = [[0, COLOURS[5]], [0.5, GRAY], [1, COLOURS[0]]]
"""Colours from worst to best, readable on a light and on a dark background."""
LINES = 100
"""Largest number of the best trials, and of the latest ones, that are drawn as curves."""
SCALE = "Cividis"
"""Readable in gray and by the colour-blind."""
CROWDED = 200
"""Number of a method's points from which they are drawn small."""
AXES = 10
"""Parallel axes at most."""
CROSS = {"width": 2, "color": GRAY}
"""The line of the crosses of trials that were stopped or failed."""


def complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the finished trials."""
    return frame[frame["state"] == State.COMPLETE]


def method_names(frame: pd.DataFrame) -> list[str]:
    """Return the methods that were run, in the order of `METHODS`, then others."""
    present = list(frame["config_method"].dropna().unique())
    return [*(name for name in METHODS if name in present), *sorted(name for name in present if name not in METHODS)]


def as_text(value: Any) -> str:
    """Return text escaped for Plotly, which reads some HTML tags."""
    return html.escape(str(value), quote=False)


def scatter(
    name: str,
    x: pd.Series[Any],
    y: pd.Series[Any],
    trials: pd.Series[Any],
    mode: str = "markers",
    **style: Any,
) -> dict[str, Any]:
    """Return a trace of trials: points, or lines by `mode`, each named by its trial."""
    trace = {"type": "scatter", "mode": mode, "name": as_text(name), "x": plain(x), "y": plain(y)}
    hover = f"%{{customdata}}<br>%{{y:.4~g}}<extra>{as_text(name)}</extra>"
    return trace | {"customdata": plain(trials), "hovertemplate": hover} | style


def method_points(method: str, x: pd.Series[Any], y: pd.Series[Any], trials: pd.Series[Any]) -> dict[str, Any]:
    """Return a method's trials as points in its colour and mark, small where they are many."""
    return scatter(method, x, y, trials, marker=_marker(method) | {"size": 8 if len(x) < CROWDED else 5})


def _marker(method: str) -> dict[str, Any]:
    style = method_style(method)
    return {"color": style["color"], "symbol": SYMBOLS[style["marker"]]}


def method_lines(method: str, points: pd.DataFrame) -> dict[str, Any]:
    """Return a method's curves as one trace, with a gap after each trial: hundreds of traces would be slow."""
    x: list[Any] = []
    y: list[Any] = []
    trials: list[Any] = []
    for trial, curve in points.groupby("trial_id", sort=False):
        x += [*plain(curve["budget"]), None]
        y += [*plain(curve["score"]), None]
        trials += [trial] * (len(curve) + 1)
    marker = _marker(method)
    trace = scatter(method, pd.Series(dtype=float), pd.Series(dtype=float), pd.Series(dtype=str), "lines+markers")
    trace |= {"x": x, "y": y, "customdata": trials, "opacity": 0.7}
    return trace | {"marker": marker | {"size": 6}, "line": {"color": marker["color"], "width": 1.2}}


def weighted_points(
    name: str,
    trials: pd.DataFrame,
    x: pd.Series[Any],
    y: pd.Series[Any],
    marker: dict[str, Any],
    shown: list[Any] | None = None,
) -> dict[str, Any]:
    """Return trials over the two weights; the hover text names the weights and, if given, the value shown."""
    trace = scatter(name, x[trials.index], y[trials.index], trials["trial_id"], marker=marker)
    pairs = zip(trials["config_gan_lambda_e"], trials["config_gan_lambda_d"], strict=True)
    values = shown or [None] * len(trials)
    about = [
        f"({e:.3g}, {d:.3g})" + (f": {v:.4g}" if v is not None else "") for (e, d), v in zip(pairs, values, strict=True)
    ]
    return trace | {"text": about, "hovertemplate": f"%{{customdata}}<br>%{{text}}<extra>{name}</extra>"}


def log_axis(values: pd.Series[Any]) -> tuple[pd.Series[Any], dict[str, Any]]:
    """Return the values' places on a logarithmic axis, with 0 one step below the lowest decade, and the axis."""
    numbers = values.astype(float)
    positive = numbers[(numbers > 0) & np.isfinite(numbers)]
    low, high = (
        (int(np.floor(np.log10(positive.min()))), int(np.ceil(np.log10(positive.max())))) if len(positive) else (0, 0)
    )
    places = pd.Series(np.log10(numbers.where(numbers > 0, 10.0 ** (low - 1))), index=values.index)
    decades = list(range(low, max(high, low + 1) + 1))
    axis: dict[str, Any] = {
        "tickvals": [low - 1, *decades],
        "ticktext": ["0", *(f"{10.0**decade:g}" for decade in decades)],
        "range": [low - 1.4, decades[-1] + 0.3],
        "zeroline": False,
    }
    return places, axis


def parallel_axis(label: str, values: pd.Series[Any]) -> dict[str, Any] | None:
    """Return a parallel axis of numbers, or None where they do not vary."""
    known = values.dropna()
    return (
        {"label": as_text(label), "values": plain(values), "tickformat": ".3~g"}
        if len(known) and known.nunique() > 1
        else None
    )


def parallel_log_axis(label: str, values: pd.Series[Any]) -> dict[str, Any]:
    """Return a logarithmic parallel axis that has a place for 0."""
    places, axis = log_axis(values)
    return {
        "label": label,
        "values": plain(places),
        "tickvals": axis["tickvals"],
        "ticktext": axis["ticktext"],
        "range": [axis["tickvals"][0], axis["tickvals"][-1]],
    }


def parallel_categories(label: str, values: pd.Series[Any]) -> dict[str, Any] | None:
    """Return a parallel axis of names, or None where there is only one name."""
    names = list(values.unique())
    if len(names) < 2:
        return None
    places = [names.index(value) for value in values]
    ticks = {"tickvals": list(range(len(names))), "ticktext": [as_text(name) for name in names]}
    return {"label": label, "values": places, **ticks}


def pareto_front(seconds: pd.Series[Any], values: pd.Series[Any]) -> list[Any]:
    """Return the index of the trials that are better than every faster one, fastest first."""
    ordered = values[seconds.sort_values(kind="stable").index]
    return list(ordered.index[ordered > ordered.cummax().shift(fill_value=-np.inf)])
