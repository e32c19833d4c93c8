"""What all figures share: colours, marks, panels, and how a figure becomes a file."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from analysis.agreement import AXIS, judged_by, without_true_data
from degan_search.ledger.columns import Phase, State
from degan_search.settings.methods import METHODS
from degan_search.system.colours import OKABE_ITO
from degan_search.system.errors import UserError, close_matches
from degan_search.system.whole_files import write_bytes

COLOURS = OKABE_ITO
MARKERS = "osD^vP"
FIRST = ("proxy", "dcgan", "degan", "proxy_matched", "true", "true_matched")
ORDER = (*FIRST, *(name for name in METHODS if name not in FIRST))
"""Methods by the number of their colour and mark, so that a method looks the same in every figure."""
STRONG, GRAY = "#d55e00", "#8c8c8c"
"""The colours of what matters most, and of what is only background."""

DPI = 150
LIMIT = 300_000
"""Bytes of a PNG, at most."""
SUFFIXES = (".png", ".svg", ".pdf")
LOG_SPAN = 20
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""


def method_style(method: str) -> dict[str, Any]:
    """Return a method's colour and mark as matplotlib's arguments; a gray cross for a method not in ORDER."""
    if method not in ORDER:
        return {"color": GRAY, "marker": "X"}
    turn, index = divmod(ORDER.index(method), len(COLOURS))
    return {"color": COLOURS[index], "marker": MARKERS[(index + turn) % len(MARKERS)]}


def with_accuracy(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the complete trials that have an accuracy, with it in percent in a column `accuracy`.

    It is that on the test images for finals, and that on the held-out 20% of the true training images for
    the search's trials, and for finals where there are no test images; where no trial has true data, the
    agreement with the teacher by `agreement.judged_by`.

    Raises:
        UserError: there is none.
    """
    final = frame["phase"] == Phase.FINAL
    if without_true_data(frame):
        accuracy = 100 * frame[judged_by(str(frame["config_objective"].iloc[0]))].astype(float)
    else:
        accuracy = 100 * frame["test_accuracy"].where(final).fillna(frame["oracle_accuracy"]).astype(float)
    kept = frame.assign(accuracy=accuracy)[(frame["state"] == State.COMPLETE) & accuracy.notna()]
    if kept.empty:
        raise UserError("no finished trial has an accuracy yet: `degan-search evaluate RUN` fills them in")
    return kept


def accuracy_name(frame: pd.DataFrame) -> str:
    """Return what the axis of `with_accuracy` is called."""
    return AXIS if without_true_data(frame) else "student accuracy (%)"


def proxy_names(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return each trial's proxy, with its true data set before it where there are several."""
    data = frame["config_teacher_dataset"].fillna("no true data")
    return data + ": " + frame["config_proxy"] if data.nunique() > 1 else frame["config_proxy"]


def panels(
    count: int, width: float = 3.4, height: float = 3.0, columns: int = 3, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels (inches each) in rows, and their axes, left to right."""
    across = min(columns, count) if count != 4 else min(columns, 2)
    down = math.ceil(count / across)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, **shared)
    for index in range(count, down * across):
        grid.flat[index].remove()
        # The panel above an empty place is its column's lowest.
        grid.flat[index - across].xaxis.set_tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def plain(axes: Axes, grid: str = "y") -> None:
    """Remove the upper and right frame, and draw a light grid along one axis or `both`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.3, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def name_axes(grid: list[Axes], across: str, up: str) -> None:
    """Name the axes that panels share: `across` below the lowest of each column, `up` beside the first of each row."""
    places = {axes: axes.get_subplotspec() for axes in grid}
    for axes, place in places.items():
        assert place is not None, "panels() makes them"
        if not any(o.colspan == place.colspan and o.rowspan.start > place.rowspan.start for o in places.values() if o):
            axes.set_xlabel(across)
        if place.is_first_col():
            axes.set_ylabel(up)


def mark(label: str, **options: Any) -> Line2D:
    """Return an entry of a legend: a mark, and a line if the options of `Line2D` say so."""
    return Line2D([], [], label=label, **{"linestyle": "", "color": "black", **options})


def legend(figure: Figure, entries: Iterable[Line2D]) -> None:
    """Put one legend below all panels, in as many columns as fit the figure's width."""
    entries = list(entries)
    inches = [0.65 + 0.06 * len(str(entry.get_label())) for entry in entries]
    width = figure.get_figwidth()
    columns = len(entries) if sum(inches) <= width else max(1, int(width / max(inches)))
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def short(labels: Iterable[str]) -> dict[str, str]:
    """Return cells' labels without the parts that all have: `proxy=photos method=degan` becomes `photos`."""
    labels = list(dict.fromkeys(labels))
    parts = {label: re.split(r" (?=\w[\w.]*=)", label) for label in labels}
    common = set.intersection(*map(set, parts.values())) if len(labels) > 1 else set()
    kept = {label: [part for part in own if part not in common] for label, own in parts.items()}
    names = {part.partition("=")[0] for own in kept.values() for part in own}
    return {label: " ".join(p.partition("=")[2] if len(names) == 1 else p for p in own) for label, own in kept.items()}


def spans_decades(values: pd.Series[Any] | np.ndarray) -> bool:
    """Return whether the positive values span so much that their axis should be logarithmic."""
    positive = np.asarray(values, float)
    positive = positive[positive > 0]
    return bool(len(positive)) and bool(positive.max() / positive.min() >= LOG_SPAN)


def save(figure: Figure, path: Path) -> None:
    """Write a figure, as its suffix says: .png below 300 kB (150 dots an inch, fewer if need be), .svg or .pdf.

    The same figure gives the same bytes.

    Raises:
        UserError: another suffix, or a name in it that is a broken formula.
        OSError: the folder cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path.name} must end in one of {', '.join(SUFFIXES)}; {close_matches(path.suffix, SUFFIXES)}")
    try:
        write_bytes(path, _png(figure) if path.suffix == ".png" else _vector(figure, path.suffix[1:]))
    except ValueError as error:  # a name from the data that begins a formula, such as $\x$
        raise UserError(f"{path.name} cannot be drawn: {error}") from None


def _vector(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "degan_search"}):
        figure.savefig(buffer, format=kind, metadata={"Date" if kind == "svg" else "CreationDate": None})
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    for dpi in (DPI, 120, 100, 80, 60, 45, 30):
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=dpi)
        if len(buffer.getvalue()) < LIMIT:
            break
        picture = Image.open(buffer).convert("RGB").quantize(256, kmeans=2)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        if len(buffer.getvalue()) < LIMIT:
            break
    return buffer.getvalue()
