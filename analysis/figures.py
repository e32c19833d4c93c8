"""Pictures of result tables, one look for all, readable in gray and by the colour-blind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's palette."""
MARKERS = "osD^vP"


def methods_by_proxy(tidy: pd.DataFrame) -> Figure:
    """Return each method's accuracy on each proxy: mean, sample standard deviation, and the teacher's as a line.

    Args:
        tidy: a `table2.table2`; cells without a figure are left out.
    """
    proxies, methods = list(tidy["proxy"].unique()), list(tidy["method"].unique())
    figure = Figure(figsize=(1.8 + 1.7 * len(proxies), 3.6), layout="constrained")
    axes = figure.add_subplot()
    for index, method in enumerate(methods):
        cells = tidy[tidy["method"] == method].set_index("proxy").reindex(proxies)
        places = np.arange(len(proxies)) + (index - (len(methods) - 1) / 2) * 0.18
        colour = COLOURS[index % len(COLOURS)]
        axes.errorbar(
            places,
            cells["ours"],
            yerr=cells["std"].fillna(0),
            fmt=MARKERS[index % len(MARKERS)],
            color=colour,
            capsize=3,
            label=method,
        )
        for place, value in zip(places, cells["ours"], strict=True):
            if np.isfinite(value):
                axes.annotate(
                    f"{value:.0f}", (place, value), (6, 0), textcoords="offset points", fontsize=8, va="center"
                )
    teacher = tidy["teacher"].dropna()
    if len(teacher):
        axes.axhline(teacher.iloc[0], color="black", linestyle=":", linewidth=1, label="teacher")
    axes.set_xticks(range(len(proxies)), proxies)
    axes.set_xlim(-0.5, len(proxies) - 0.5)
    axes.set_ylim(0, 100)
    axes.set_xlabel("proxy images")
    axes.set_ylabel("student accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, 150 dots an inch."""
    figure.savefig(path, dpi=150)
