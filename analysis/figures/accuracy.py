"""Accuracy by proxy and method, and by compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from analysis.agreement import AXIS, BANK, SEARCHED, without_true_data
from analysis.figures.style import (
    GRAY,
    accuracy_name,
    legend,
    mark,
    method_style,
    name_axes,
    panels,
    plain,
    proxy_names,
    spans_decades,
    with_accuracy,
)
from degan_search.ledger.columns import Phase
from degan_search.system.errors import UserError, close_matches

NAMED = 8
"""Largest number of proxies whose names stand level on an axis; more are written at an angle."""


def methods_by_proxy(tidy: pd.DataFrame) -> Figure:
    """Return each method's accuracy on each proxy: mean, sample standard deviation, and the teacher's as a line.

    Without true data it is the agreement with the teacher.

    For Table 3: each method's accuracy over all classes, on the old and on the new ones.

    Args:
        tidy: a `table.table`; cells, and proxies, without a figure are left out.
    """
    across, before = "proxy images", "teacher"
    if "proxy" not in tidy:
        tidy, across, before = _by_kind(tidy), "test or held-out images of", "before, on old classes"
    tidy = tidy[tidy["ours"].notna()]
    proxies, methods = list(tidy["proxy"].unique()), list(tidy["method"].unique())
    few = len(proxies) <= NAMED
    step = min(0.18, 0.85 / max(len(methods), 1))
    room = max(1.7, 0.42 * len(methods)) if few else max(0.7, 0.14 * len(methods))
    figure = Figure(figsize=(1.8 + room * len(proxies), 3.6 if few else 4.6), layout="constrained")
    axes = figure.add_subplot()
    for index, method in enumerate(methods):
        cells = tidy[tidy["method"] == method].set_index("proxy").reindex(proxies)
        places = np.arange(len(proxies)) + (index - (len(methods) - 1) / 2) * step
        spread = cells["std"].fillna(0)
        axes.errorbar(places, cells["ours"], spread, linestyle="", capsize=3, label=method, **method_style(method))
        for place, value in zip(places, cells["ours"], strict=True):
            if np.isfinite(value) and few:
                axes.annotate(
                    f"{value:.0f}", (place, value), (6, 0), textcoords="offset points", fontsize=8, va="center"
                )
    teacher = tidy["teacher"].dropna()
    if len(teacher):
        axes.axhline(teacher.iloc[0], color="black", linestyle=":", linewidth=1, label=before)
    if few:
        axes.set_xticks(range(len(proxies)), [str(proxy).replace("/", "/\n", 1) for proxy in proxies])
    else:
        axes.set_xticks(range(len(proxies)), proxies, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_xlim(-0.5, max(len(proxies), 1) - 0.5)
    axes.set_ylim(0, 100)
    axes.set_xlabel(across)
    axes.set_ylabel(AXIS if set(tidy["measured_on"]) & {BANK, SEARCHED} else "student accuracy (%)")
    plain(axes)
    if methods:
        figure.legend(loc="outside right upper", frameon=False)
    return figure


def _by_kind(tidy: pd.DataFrame) -> pd.DataFrame:
    """Return Table 3 with rows for all, old and new classes in place of one; only the first has a spread."""
    kinds = {"all classes": "ours", "old classes": "old", "new classes": "new"}
    parts = [
        tidy.assign(proxy=kind, ours=tidy[column].where(tidy["ours"].notna())).assign(
            **({} if column == "ours" else {"std": np.nan})
        )
        for kind, column in kinds.items()
    ]
    return pd.concat(parts)


def pareto(frame: pd.DataFrame, cost: str = "seconds") -> Figure:
    """Return accuracy in percent against a trial's compute, a panel for each proxy, with the front as a line.

    On the front no other trial on that proxy is as accurate at no more cost. Filled and hollow as in
    `relatedness`. Without true data it is the agreement with the teacher.

    Args:
        frame: from `ledger.load`.
        cost: `seconds` or `gan_steps` of a trial.

    Raises:
        UserError: another cost, or no trial with an accuracy.
    """
    costs = {"seconds": "seconds of a trial", "gan_steps": "GAN steps of a trial"}
    if cost not in costs:
        raise UserError(f"cost {cost!r} is unknown; {close_matches(cost, costs)}")
    trials = with_accuracy(frame).dropna(subset=cost)
    if trials.empty:
        raise UserError(f"no finished trial with an accuracy has its {cost} recorded")
    methods = list(dict.fromkeys(trials["config_method"]))
    parts = dict(list(trials.groupby(proxy_names(trials), sort=False)))
    figure, grid = panels(len(parts), sharex=True, sharey=True)
    for axes, (proxy, own) in zip(grid, parts.items(), strict=True):
        best = front(own[cost], own["accuracy"])
        # The line goes on to the right edge: more compute brought no more accuracy.
        edge = [*best[cost], trials[cost].max()], [*best["accuracy"], best["accuracy"].iloc[-1]]
        axes.step(*edge, where="post", color="black", linewidth=1, zorder=1)
        for method, part in own.groupby("config_method", sort=False):
            points(axes, part[cost], part, str(method))
        axes.set_title(str(proxy), fontsize=9)
        if spans_decades(trials[cost]) and (trials[cost] > 0).all():
            axes.set_xscale("log")
        plain(axes, "both")
    name_axes(grid, costs[cost], accuracy_name(frame))
    explain(figure, methods, trials, [mark("Pareto front", linestyle="-", linewidth=1)])
    return figure


def front(cost: pd.Series[float], accuracy: pd.Series[float]) -> pd.DataFrame:
    """Return the pairs that no other beats or equals in both (lower cost, higher accuracy), cheapest first."""
    pairs = pd.DataFrame({cost.name: cost, "accuracy": accuracy}).dropna()
    ordered = pairs.sort_values([str(cost.name), "accuracy"], ascending=[True, False], kind="stable")
    return ordered[ordered["accuracy"] > ordered["accuracy"].cummax().shift(fill_value=-np.inf)]


def points(axes: Axes, place: pd.Series[float], trials: pd.DataFrame, method: str, aside: float = 0) -> None:
    """Draw a method's trials, finals filled and the search's hollow, `aside` typographic points from their place."""
    style = method_style(method)
    final = trials["phase"] == Phase.FINAL
    crowded = len(trials) > 100
    # Finals are drawn over the search's trials, which are many.
    for which, face in ((~final, "none"), (final, style["color"])):
        marks = axes.scatter(
            place[which],
            trials["accuracy"][which],
            s=12 if crowded and face == "none" else 28,
            marker=style["marker"],
            facecolors=face,
            edgecolors=style["color"],
            linewidths=1,
            alpha=0.4 if crowded and face == "none" else 0.9,
            zorder=3 if face != "none" else 2,
        )
        if aside:  # afterwards, so that the axes' limits follow the unshifted places
            marks.set_offset_transform(axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans))


def explain(figure: Figure, methods: Sequence[str], trials: pd.DataFrame, more: Sequence[Line2D] = ()) -> None:
    """Put the legend of what `points` drew below the panels, and `more` entries after it."""
    entries = [mark(method, **method_style(method)) for method in methods]
    phases = trials["phase"] == Phase.FINAL
    images = ("comparison images",) * 2 if without_true_data(trials) else ("test images", "held-out images")
    if phases.any():
        entries.append(mark(f"final, {images[0]}", marker="o", color=GRAY))
    if not phases.all():
        entries.append(mark(f"search, {images[1]}", marker="o", color=GRAY, markerfacecolor="none"))
    legend(figure, [*entries, *more])
