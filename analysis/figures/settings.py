"""Parallel coordinates of the settings that vary and the score, and how important each setting is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import (
    COLOURS,
    GRAY,
    legend,
    mark,
    name_axes,
    panels,
    plain,
    proxy_names,
    short,
    spans_decades,
)
from degan_search.ledger.columns import Phase, State
from degan_search.system.errors import UserError

BEST, MOST = 0.1, 5
"""The share of a proxy's finished trials that is drawn in colour (at least one), and their largest number."""
NO_SETTING = ("config_hash", "config_json")
ZERO = 0.12
"""Share of a logarithmic axis below its smallest positive value, for 0."""


def parallel(frame: pd.DataFrame) -> Figure:
    """Return parallel coordinates: a line for each finished search trial through its settings to its score.

    Axes are the settings that vary, the score, and the accuracy on held-out true images where measured. On each
    proxy the best tenth by score, `MOST` at most, are drawn in colour, as scores on different proxies cannot be
    compared.

    Args:
        frame: from `ledger.load`.

    Raises:
        UserError: no finished search trial, or no setting that varies.
    """
    done = frame[(frame["phase"] == Phase.SEARCH) & (frame["state"] == State.COMPLETE) & frame["score"].notna()]
    if done.empty:
        raise UserError("no finished search trial with a score: there is nothing to set side by side")
    columns = [str(name) for name in done if str(name).startswith("config_") and name not in NO_SETTING]
    settings = done[columns].map(lambda value: str(list(value)) if isinstance(value, np.ndarray) else value)
    settings = settings.loc[:, settings.nunique(dropna=False) > 1]
    if settings.empty:
        raise UserError("no setting varies over the finished search trials")
    table = settings.assign(score=done["score"])
    if done["oracle_accuracy"].notna().any():
        table["held-out accuracy (%)"] = 100 * done["oracle_accuracy"]
    figure = Figure(figsize=(1.9 * len(table.columns) + 0.8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    places = np.column_stack([_axis(axes, index, table[name]) for index, name in enumerate(table)])
    names = proxy_names(done)
    proxies = list(dict.fromkeys(names))
    rank = done.groupby(names)["score"].rank(ascending=False, method="first")
    sizes = done.groupby(names)["score"].transform("size")
    best = (rank <= np.ceil(BEST * sizes).clip(1, MOST)).to_numpy()
    many = len(done) > 100
    others = np.stack([np.broadcast_to(np.arange(places.shape[1]), places.shape), places], axis=2)[~best]
    widths, alpha = (0.4, 0.25) if many else (0.8, 0.6)
    axes.add_collection(LineCollection(list(others), colors=GRAY, linewidths=widths, alpha=alpha, zorder=1))
    styles = {proxy: _line_style(index) for index, proxy in enumerate(proxies)}
    for line, proxy in zip(places[best], names[best], strict=True):
        axes.plot(line, linewidth=1.5 if many else 2, zorder=2, **styles[proxy])
    axes.set_xlim(-0.3, len(table.columns) - 0.7)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(range(len(table.columns)), [_title(str(name)) for name in table], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    few = proxies if len(proxies) <= len(COLOURS) else []
    entries = [mark(f"best on {proxy}", **{"linewidth": 2, **styles[proxy]}) for proxy in few]
    legend(figure, [*entries, mark("other finished trials", linestyle="-", color=GRAY, linewidth=0.8)])
    return figure


def importances(table: pd.DataFrame) -> Figure:
    """Return how much each parameter has to do with the best scores, as bars, a panel for each cell.

    Args:
        table: columns cell, parameter, importance (they sum to 1 in a cell), and n, its finished trials.

    Raises:
        UserError: no importances, as where too few trials have finished.
    """
    if table.empty:
        raise UserError("too few search trials of any cell have finished")
    names = short(table["cell"])
    order = list(table.groupby("parameter")["importance"].mean().sort_values().index)
    figure, grid = panels(len(names), 3.2, 0.7 + 0.32 * len(order), sharex=True, sharey=True)
    for axes, (cell, title) in zip(grid, names.items(), strict=True):
        own = table[table["cell"] == cell]
        values = own.set_index("parameter")["importance"].reindex(order)
        axes.barh(order, values, color=COLOURS[0], height=0.6)
        for place, value in enumerate(values):
            if np.isfinite(value):
                axes.annotate(
                    f"{value:.2f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8
                )
        finished = f", {own['n'].iloc[0]} finished trials" if "n" in own else ""
        axes.set_title(f"{title}{finished}", fontsize=9)
        axes.set_xlim(0, max(0.01, table["importance"].max()) * 1.15)
        plain(axes, "x")
    name_axes(grid, "importance", "")
    return figure


def _axis(axes: Axes, index: int, values: pd.Series[float]) -> np.ndarray:
    """Draw one upright axis with its ticks, and return the values' places on it, 0 to 1."""
    axes.axvline(index, color="black", linewidth=0.8, zorder=3)
    numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if not numbers or (numbers and values.isna().all()):
        texts = values.astype(object).where(values.notna(), "none").astype(str)
        kinds = list(dict.fromkeys(texts))
        place = {kind: 1 - number / max(1, len(kinds) - 1) for number, kind in enumerate(kinds)}
        _ticks(axes, index, place)
        return texts.map(place).to_numpy(float)
    given = values.to_numpy(float)
    if spans_decades(given):
        low, high = np.log10(given[given > 0].min()), np.log10(given.max())
        floor = ZERO if (given == 0).any() else 0.0
        decades = [10.0**power for power in range(int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9)) + 1)]

        def scaled(value: np.ndarray) -> np.ndarray:
            with np.errstate(divide="ignore"):
                return np.where(value > 0, floor + (1 - floor) * (np.log10(value) - low) / (high - low), 0.0)

        _ticks(
            axes, index, {f"{tick:g}": float(scaled(np.array(tick))) for tick in [*([0.0] if floor else []), *decades]}
        )
        return scaled(given)
    low, high = float(np.nanmin(given)), float(np.nanmax(given))
    span = (high - low) or 1.0
    ticks = [
        tick for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low - 1e-9 <= tick <= high + 1e-9
    ]
    _ticks(axes, index, {f"{tick:g}": (tick - low) / span for tick in ticks})
    return (given - low) / span


def _ticks(axes: Axes, index: int, places: dict[str, float]) -> None:
    for text, place in places.items():
        axes.annotate(
            text,
            (index, place),
            (-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )
        axes.plot([index - 0.015, index + 0.015], [place, place], color="black", linewidth=0.8, zorder=3)


def _line_style(index: int) -> dict[str, Any]:
    """Return a proxy's colour and kind of line: lines differ in gray too."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": ("-", "--", "-.", ":")[index % 4]}


def _title(column: str) -> str:
    return column.removeprefix("config_").replace("gan_lambda", "lambda")
