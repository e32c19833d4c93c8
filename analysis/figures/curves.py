"""Score against GAN steps."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, GRAY, STRONG, legend, mark, name_axes, panels, plain, short
from degan_search.ledger.columns import Phase, State
from degan_search.system.errors import UserError

CROWDED = 40
"""Number of trials in a panel from which lines are drawn thin."""
ENDS: dict[State, dict[str, Any]] = {
    State.COMPLETE: {"marker": "o", "color": COLOURS[0]},
    State.PRUNED: {"marker": "x", "color": GRAY},
    State.FAIL: {"marker": "v", "color": STRONG, "markerfacecolor": "none"},
}
ENDINGS = {State.COMPLETE: "finished student", State.PRUNED: "stopped early", State.FAIL: "failed"}


def steps(curves: pd.DataFrame) -> Figure:
    """Return each search trial's score against GAN steps, a panel for each cell; its end says how it ended.

    Scores at rungs (dotted lines) are those of a short distillation from the half-trained generator, the last
    that of the finished student. The trial with the best final score is drawn thick.

    Args:
        curves: from `ledger.curves`.

    Raises:
        UserError: no search trial has reported a score.
    """
    scored = curves[(curves["phase"] == Phase.SEARCH) & curves["score"].notna()]
    if scored.empty:
        raise UserError("no search trial has reported a score yet: finals and proxy images have no curve")
    if scored["run"].nunique() > 1:
        scored = scored.assign(cell=scored["run"] + ": " + scored["cell"])
    names = short(scored["cell"])
    figure, grid = panels(len(names), sharex=True, sharey=True)
    for axes, (cell, title) in zip(grid, names.items(), strict=True):
        _cell(axes, scored[scored["cell"] == cell])
        axes.set_title(title, fontsize=9)
    grid[0].set_xlim(left=0)  # the panels share it, and what is drawn later would not change it
    name_axes(grid, "GAN steps", "score")
    states = [state for state in ENDS if (scored["state"] == state).any()]
    entries = [mark(ENDINGS[state], **ENDS[state]) for state in states]
    if State.COMPLETE in states:
        entries.append(mark("best of its cell", linestyle="-", linewidth=2.5, color=COLOURS[0]))
    if (scored["stage"] != "done").any():
        entries.append(mark("rung", linestyle=":", color=GRAY, linewidth=1))
    legend(figure, entries)
    return figure


def _cell(axes: Axes, scored: pd.DataFrame) -> None:
    done = scored[scored["stage"] == "done"]
    best = done.nlargest(1, "score")[["run", "trial_id"]].to_numpy().tolist()
    trials = scored.groupby(["run", "trial_id"], sort=False)
    crowded = trials.ngroups > CROWDED
    for key, points in trials:
        state = State(points["state"].iloc[0])
        strong = list(key) in best
        axes.plot(
            points["budget"],
            points["score"],
            color=ENDS[state]["color"],
            linewidth=2.5 if strong else 0.5 if crowded else 1,
            alpha=1 if strong else 0.3 if crowded else 0.8,
            zorder=3 if strong else 2,
        )
        axes.plot(
            points["budget"].iloc[-1:],
            points["score"].iloc[-1:],
            **ENDS[state],
            alpha=0.4 if crowded and not strong else 1,
            markersize=7 if strong else 3 if crowded else 5,
            zorder=4 if strong else 3,
        )
    for rung in sorted(set(scored.loc[scored["stage"] != "done", "budget"])):
        axes.axvline(rung, color=GRAY, linestyle=":", linewidth=1, zorder=1)
    plain(axes)
