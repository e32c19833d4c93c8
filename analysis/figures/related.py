"""Accuracy against how related the proxy is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.accuracy import NAMED, explain, points
from analysis.figures.style import accuracy_name, name_axes, panels, plain, spans_decades, with_accuracy
from degan_search.system.errors import UserError, close_matches

SIZES = ["count", "images"]
"""Columns of the table of measures that are no measures."""
NEAR = 0.06
"""Share of an axis within which two names would overlap."""
ASIDE = 6
"""Typographic points between two methods' marks at one place."""


def relatedness(frame: pd.DataFrame, measures: pd.DataFrame | None, names: Sequence[str] = ()) -> Figure:
    """Return accuracy in percent against how related the proxy is: a panel for each measure, a point for each trial.

    Filled marks are finals, on the test images; hollow ones the search's trials, on the held-out 20% of the
    true training images; without true data both show the agreement with the teacher. Methods stand side by side at
    their proxy's place. Proxies without measures are left out.

    Args:
        frame: from `ledger.load`.
        measures: a row for each proxy: its name in `proxy`, and measures as columns.
        names: the measures to show, from the columns; () for all of numbers that vary.

    Raises:
        UserError: no measures, unknown ones, none of the trials' proxies among them, several true data sets, or no
            accuracy yet.
    """
    if measures is None or measures.empty:
        raise UserError(
            "no measures of the proxies: `degan-search relatedness` writes them, --relatedness FILE.csv reads them"
        )
    trials = with_accuracy(frame)
    datasets = list(trials["config_teacher_dataset"].unique())
    if len(datasets) > 1:
        raise UserError(f"proxies are related to one true data set, but there are {', '.join(map(str, datasets))}")
    if "proxy" not in measures:
        raise UserError(f"measures of relatedness need a column 'proxy'; there are {', '.join(map(str, measures))}")
    for name in names:
        if name not in measures:
            raise UserError(f"no measure {name!r}; {close_matches(name, map(str, measures.columns))}")
    trials, table = _measured(trials, measures)
    numbers = table.select_dtypes("number").drop(columns=SIZES, errors="ignore")
    names = list(names) or [str(name) for name in numbers if numbers[name].nunique() > 1]
    if not names:
        raise UserError("no measure of relatedness varies over the trials' proxies: measure at least two proxies")
    figure, grid = panels(len(names), sharey=True)
    methods = list(dict.fromkeys(trials["config_method"]))
    for axes, name in zip(grid, names, strict=True):
        place = trials[name].astype(float)
        if spans_decades(place) and not (place <= 0).any():
            axes.set_xscale("log")
        for index, method in enumerate(methods):
            own = trials["config_method"] == method
            points(axes, place[own], trials[own], method, ASIDE * (index - (len(methods) - 1) / 2))
        if len(table) <= NAMED:
            _name(axes, table.set_index("proxy")[name].dropna())
        axes.margins(x=0.12)
        plain(axes)
    name_axes(grid, "", accuracy_name(frame))
    for axes, name in zip(grid, names, strict=True):
        axes.set_xlabel(name.replace("_", " "))
    explain(figure, methods, trials)
    return figure


def _measured(trials: pd.DataFrame, measures: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the trials whose proxy is measured, with its measures, and the measures that have trials.

    Where the measures have a column `count`, the number of images must be the same too.
    """
    keys = ["proxy", "count"] if "count" in measures else ["proxy"]
    here = trials.assign(proxy=trials["config_proxy"], count=trials["config_count"])
    for table in (here, measures := measures.copy()):
        if "count" in table:
            table["count"] = table["count"].astype(float)
    measures = measures.drop_duplicates(keys)
    others = [name for name in measures if name not in keys]
    joined = here.drop(columns=others, errors="ignore").merge(measures, on=keys)
    if joined.empty:
        known = ", ".join(map(str, trials["config_proxy"].unique()))
        raise UserError(f"no measures of the trials' proxies, {known}, of as many images")
    return joined, measures.merge(here[keys].drop_duplicates(), on=keys)


def _name(axes: Axes, places: pd.Series[float]) -> None:
    """Write proxies' names above the panel at their places; names too near each other are joined at one place."""
    ordered = places.sort_values()
    scaled = np.log(ordered) if axes.get_xscale() == "log" else ordered
    share = (scaled - scaled.min()) / ((scaled.max() - scaled.min()) or 1)
    first: list[float] = []
    for place in share:
        first.append(first[-1] if first and place - first[-1] < NEAR else place)
    for _, near in ordered.groupby(np.array(first)):
        axes.annotate(
            ", ".join(map(str, near.index)),
            (near.iloc[0], 1),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=35,
            fontsize=7,
            color="#444444",
        )
