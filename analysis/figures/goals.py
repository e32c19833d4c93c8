"""The Pareto front of a search with several goals."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import (
    legend,
    mark,
    method_style,
    name_axes,
    panels,
    plain,
    proxy_names,
    spans_decades,
)
from degan_search.selection.choose import finished, grouping
from degan_search.selection.pareto import front
from degan_search.settings.goals import GOALS


def goals(frame: pd.DataFrame, pursued: Sequence[str]) -> Figure:
    """Return the first goal against each other one, a panel for each proxy: on the front filled, all else hollow.

    A line joins a method's front where there are two goals.

    Args:
        frame: from `ledger.load`.
        pursued: two or more names in GOALS, the one that goes upwards first.

    Raises:
        UserError: one goal alone, or no finished search trial that has them all.
    """
    best = front(frame, pursued, grouping("method"))
    done = finished(frame).dropna(subset=[*pursued])
    upwards, *others = pursued
    parts = [(proxy, own, goal) for proxy, own in done.groupby(proxy_names(done), sort=False) for goal in others]
    figure, grid = panels(len(parts), sharex=len(others) == 1, sharey=True)
    for axes, (proxy, own, goal) in zip(grid, parts, strict=True):
        for method, trials in own.groupby("config_method", sort=False):
            style = method_style(str(method))
            on_front = trials.index.isin(best.index)
            for which, face in ((~on_front, "none"), (on_front, style["color"])):
                axes.scatter(
                    trials.loc[which, goal],
                    trials.loc[which, upwards],
                    s=28,
                    marker=style["marker"],
                    facecolors=face,
                    edgecolors=style["color"],
                    zorder=3 if face != "none" else 2,
                )
            if len(others) == 1:
                line = trials[on_front].sort_values(goal, kind="stable")
                axes.plot(line[goal], line[upwards], color=style["color"], linewidth=1, zorder=1)
        axes.set_title(f"{proxy}: {GOALS[goal].help}" if len(others) > 1 else str(proxy), fontsize=9)
        if spans_decades(done[goal]) and (done[goal] > 0).all():
            axes.set_xscale("log")
        plain(axes, "both")
    name_axes(grid, GOALS[others[0]].help if len(others) == 1 else "", upwards)
    methods = [str(method) for method in dict.fromkeys(done["config_method"])]
    legend(figure, [*(mark(f"{method}, on the front", **method_style(method)) for method in methods)])
    return figure
