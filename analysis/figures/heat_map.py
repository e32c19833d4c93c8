"""A heat map over the two weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.style import GRAY, STRONG, legend, mark, name_axes, panels, proxy_names
from degan_search.ledger.columns import Phase, State
from degan_search.system.errors import UserError, close_matches

WEIGHTS = ("config_gan_lambda_d", "config_gan_lambda_e")
"""Of the axis across, and of the axis up."""
VALUES = {"oracle_accuracy": "points of held-out accuracy", "score": "score"}
EDGES = np.array([float(f"{digit}e{power}") for power in range(-6, 7) for digit in (1, 3)])
"""Of the bins of positive weights; 0 has a bin of its own."""
SCALE = colormaps["cividis"]


def weights(frame: pd.DataFrame, value: str = "") -> Figure:
    """Return a heat map over lambda_d (across) and lambda_e (up), a panel for each proxy.

    A cell shows the mean over the search's finished DeGAN trials in its range of weights, and their number;
    where none finished, a dash. Colour is the distance to the panel's best cell. An outline
    marks where the trial with the best score lies: the search's choice.

    Args:
        frame: from `ledger.load`.
        value: `oracle_accuracy` (in percent) or `score`; "" for accuracy where it is measured.

    Raises:
        UserError: another value, or no finished DeGAN trial that has it.
    """
    trials = frame[(frame["phase"] == Phase.SEARCH) & (frame["config_method"] == "degan")]
    value = value or ("oracle_accuracy" if trials["oracle_accuracy"].notna().any() else "score")
    if value not in VALUES:
        raise UserError(f"value {value!r} is unknown; {close_matches(value, VALUES)}")
    if not ((trials["state"] == State.COMPLETE) & trials[value].notna()).any():
        raise UserError(f"no finished search trial of DeGAN has its {value}: there are no weights to compare")
    edges = [_edges(trials[name]) for name in WEIGHTS]
    x, y = (_bins(trials[name], own) for name, own in zip(WEIGHTS, edges, strict=True))
    trials = trials.assign(x=x, y=y, shown=trials[value] * (100 if value == "oracle_accuracy" else 1))
    maps = {str(proxy): part for proxy, part in trials.groupby(proxy_names(trials), sort=False)}
    cells = {proxy: _cells(part) for proxy, part in maps.items()}
    spread = max(np.ptp(own["mean"].dropna()) if own["mean"].notna().any() else 0.0 for own in cells.values())
    norm = Normalize(-float(spread) or -1.0, 0)
    width, height = (0.46 * len(own) for own in edges)
    figure, grid = panels(len(maps), width + 0.6, max(2.6, height + 0.9), sharex=True, sharey=True)
    for axes, (proxy, part) in zip(grid, maps.items(), strict=True):
        _map(axes, cells[proxy], norm, ".0f" if value == "oracle_accuracy" else ".2f")
        _outline(axes, part)
        _ticks(axes, *edges)
        axes.set_title(proxy, fontsize=9)
    name_axes(grid, "lambda_d (diversity)", "lambda_e (entropy)")
    bar = figure.colorbar(ScalarMappable(norm, SCALE), ax=grid, shrink=0.8, pad=0.02, aspect=25)
    bar.set_label(f"{VALUES[value]}\nbelow the panel's best", fontsize=8)
    bar.ax.yaxis.set_major_formatter(lambda tick, _: f"{abs(tick):g}")
    bar.ax.tick_params(labelsize=8)
    choice = mark("the search's choice", marker="s", markersize=11, markerfacecolor="none", color=STRONG)
    legend(figure, [choice, mark("mean, number of trials; –: none finished")])
    return figure


def _edges(values: pd.Series[float]) -> np.ndarray:
    """Return the edges around all positive values; two at least."""
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    first, last = np.searchsorted(EDGES, [low, high], side="right")
    return EDGES[max(first - 1, 0) : last + 1]


def _bins(values: pd.Series[float], edges: np.ndarray) -> np.ndarray:
    """Return 0 for 0, and from 1 the number of the range between two edges."""
    return np.where(values > 0, np.searchsorted(edges, values, side="right"), 0)


def _cells(trials: pd.DataFrame) -> pd.DataFrame:
    """Return for each cell with trials the finished ones' mean and number."""
    shown = trials["shown"].where(trials["state"] == State.COMPLETE)
    return shown.groupby([trials["x"], trials["y"]]).agg(["mean", "count"]).reset_index()


def _map(axes: Axes, cells: pd.DataFrame, norm: Normalize, style: str) -> None:
    best = cells["mean"].max()
    for x, y, mean, count in cells[["x", "y", "mean", "count"]].itertuples(index=False):
        if not count:
            axes.text(x, y, "–", ha="center", va="center", color=GRAY)
            continue
        colour = SCALE(norm(mean - best))
        dark = np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5
        text: dict[str, Any] = {"ha": "center", "color": "white" if dark else "black"}
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, linewidth=0))
        axes.text(x, y + 0.02, f"{mean:{style}}", va="bottom", fontsize=9, **text)
        axes.text(x, y - 0.08, f"n={count}", va="top", fontsize=6, **text)


def _outline(axes: Axes, trials: pd.DataFrame) -> None:
    done = trials[trials["state"] == State.COMPLETE].dropna(subset="score")
    for x, y in done.nlargest(1, "score")[["x", "y"]].to_numpy():
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=STRONG, linewidth=2.5, zorder=3))


def _ticks(axes: Axes, across: np.ndarray, up: np.ndarray) -> None:
    """Name the bin of 0 at its middle, and the others' edges."""
    for axis, edges in ((axes.xaxis, across), (axes.yaxis, up)):
        axis.set_ticks([0, *(np.arange(len(edges)) + 0.5)], ["0", *(f"{edge:g}" for edge in edges)], fontsize=7)
    axes.set_xlim(-0.5, len(across) - 0.5)
    axes.set_ylim(-0.5, len(up) - 0.5)
    for line in (axes.axvline, axes.axhline):
        line(0.5, color=GRAY, linewidth=0.8, zorder=0)
    axes.spines[:].set_color(GRAY)
