"""The page's interactive figures, as the plain values that Plotly draws."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.look import COLOURS, GRAY, method_look
from analysis.report.data import is_accuracy, plain
from degan_search.methods import METHODS, TUNED
from degan_search.records import Phase, State

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
"""What a figure may show, the first that was measured at first."""
KINDS = {"old_accuracy": "accuracy on old classes (%)", "new_accuracy": "accuracy on new classes (%)"}
"""What there is to show beside that of students that learned new classes."""
RANKS = [[0, COLOURS[5]], [0.5, GRAY], [1, COLOURS[0]]]
"""From worst to best, readable on light and dark ground."""
LINES = 100
"""Trials drawn as curves: so many of the best, and so many of the latest."""
SCALE = "Cividis"
"""Readable in gray and by the colour-blind."""
CROWDED = 200
"""Points of a method from which they are drawn small."""
AXES = 10
"""Parallel axes at most."""

View = dict[str, Any]


def figures(frame: pd.DataFrame, curves: pd.DataFrame, importances: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return each figure that has something to show: name, title, text, and views to choose from.

    A view has a label, and data and layout for `Plotly.newPlot`; a point's `customdata` names its trial.
    """
    made = [
        (
            "by-proxy",
            "Students by proxy and method",
            "Each point is a finished trial; point at it for its name, click it for its page.",
            by_proxy(frame),
        ),
        (
            "weights",
            "The two weights",
            "Trials of methods with weights by lambda_e and lambda_d. A cross was stopped early or failed.",
            weights(frame),
        ),
        (
            "steps",
            "Score against GAN steps",
            f"Search trials: rung scores, which come from a short distillation, and the finished student's score as "
            f"the last point; a cross was stopped early. The {LINES} best and the {LINES} latest trials at most.",
            steps(frame, curves),
        ),
        (
            "parallel",
            "Parallel coordinates",
            "Each line is a finished search trial, blue for the best scores on its proxy, orange for the worst. "
            "Drag along an axis to keep the lines that pass there.",
            parallel(frame),
        ),
        (
            "pareto",
            "Accuracy against time",
            "Finished trials; the line joins those that no faster trial beats.",
            pareto(frame),
        ),
        (
            "importances",
            "What mattered",
            "How much each searched setting had to do with reaching the best scores (PED-ANOVA); a cell's sum to 1.",
            important(importances),
        ),
    ]
    return [{"name": name, "title": title, "text": text, "views": list(views)} for name, title, text, views in made]


def by_proxy(frame: pd.DataFrame) -> Iterator[View]:
    """Yield finished trials' accuracies, and scores, by proxy and method."""
    done = _complete(frame)
    proxies, methods = list(done["config_proxy"].unique()), _methods(frame)
    step = min(0.22, 0.9 / max(len(methods), 1))
    for measure, label in (ACCURACY | KINDS).items():
        values = _measure(done, measure)
        if not values.notna().any():
            continue
        data = []
        for index, method in enumerate(methods):
            here = done[(done["config_method"] == method) & values.notna()]
            if here.empty:
                continue
            # Side by side, spread evenly so that points of one value stay apart.
            spread = 0.7 * step * ((here.groupby("config_proxy").cumcount() * 0.618) % 1 - 0.5)
            place = here["config_proxy"].map(proxies.index) + (index - (len(methods) - 1) / 2) * step + spread
            data.append(_points(method, place, values[here.index], here["trial_id"]))
        layout = {
            "xaxis": {
                "title": {"text": "proxy images"},
                "tickvals": list(range(len(proxies))),
                "ticktext": [_text(proxy) for proxy in proxies],
                "range": [-0.5, len(proxies) - 0.5],
                "showgrid": False,
                "zeroline": False,
            },
            "yaxis": {"title": {"text": label}, "zeroline": False},
        }
        yield {"label": label, "data": data, "layout": layout}


def weights(frame: pd.DataFrame) -> Iterator[View]:
    """Yield the weighted methods' search trials over lambda_e x lambda_d, coloured by accuracy, else by score."""
    search = frame[frame["config_method"].isin(TUNED) & (frame["phase"] == Phase.SEARCH)]
    for measure in ("oracle_accuracy", "score"):
        values = _measure(_complete(search), measure)
        if search.empty or not values.notna().any():
            continue
        # One scale for all proxies, with a place for 0.
        (x, xaxis), (y, yaxis) = (_log_axis(search[f"config_gan_{name}"]) for name in ("lambda_e", "lambda_d"))
        xaxis["title"], yaxis["title"] = {"text": "lambda_e"}, {"text": "lambda_d"}
        for proxy, here in search.groupby("config_proxy", sort=False):
            known = values.reindex(here.index).dropna()
            stopped = here.index.difference(known.index)
            bar = {"title": {"text": ACCURACY[measure], "side": "right"}, "thickness": 14, "outlinewidth": 0}
            marker = {"size": 13, "color": plain(known), "colorscale": SCALE, "colorbar": bar}
            marker["line"] = {"width": 1, "color": GRAY}  # the scale's dark end on dark ground
            data = [
                _weighted("not finished", here.loc[stopped], x, y, {"symbol": "x-thin", "size": 9, "line": _CROSS}),
                _weighted("finished", here.loc[known.index], x, y, marker, plain(known)),
            ]
            layout = {"xaxis": xaxis, "yaxis": yaxis, "showlegend": False}
            yield {"label": f"{proxy}: {ACCURACY[measure]}", "data": data, "layout": layout}


def steps(frame: pd.DataFrame, curves: pd.DataFrame) -> Iterator[View]:
    """Yield rung scores and the last score against GAN steps, one line a trial, a view for each proxy."""
    scored = curves[(curves["phase"] == Phase.SEARCH) & curves["score"].notna() & (curves["budget"] > 0)]
    drawn = frame[frame["trial_id"].isin(scored["trial_id"].unique())]
    best = drawn.sort_values("score", ascending=False, kind="stable").head(LINES)
    latest = drawn.sort_values("started", ascending=False, kind="stable").head(LINES)
    drawn = drawn[drawn["trial_id"].isin({*best["trial_id"], *latest["trial_id"]})]
    rows = scored.merge(drawn[["trial_id", "config_proxy", "config_method"]], on="trial_id")
    for proxy, here in rows.groupby("config_proxy", sort=False):
        data = []
        for method, points in here.groupby("config_method", sort=False):
            data.append(_lines(str(method), points))
        ends = here[here["state"] == State.PRUNED].drop_duplicates("trial_id", keep="last")
        cross = {"symbol": "x-thin", "size": 9, "line": _CROSS}
        data.append(_scatter("stopped early", ends["budget"], ends["score"], ends["trial_id"], marker=cross))
        axes = {"xaxis": {"title": {"text": "GAN steps"}, "rangemode": "tozero"}, "yaxis": {"title": {"text": "score"}}}
        yield {"label": str(proxy), "data": data, "layout": axes}


def parallel(frame: pd.DataFrame) -> Iterator[View]:
    """Yield the searched settings, what they cost and what they gave on parallel axes."""
    done = _complete(frame)
    done = done[(done["phase"] == Phase.SEARCH) & done["score"].notna()]
    if len(done) < 2:
        return
    axes: list[dict[str, Any] | None] = [
        _category("proxy", done["config_proxy"]),
        _category("method", done["config_method"]),
    ]
    for name in [name for name in done if str(name).startswith("config_")]:
        column = done[name]
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > 1 and name != "config_seed":
            label = str(name).removeprefix("config_").removeprefix("gan_")
            axes.append(_parallel_log(label, column) if "lambda" in label else _axis(label, column))
    axes = axes[: AXES - 3]
    axes += [_axis("seconds", done["seconds"]), _axis("score", done["score"])]
    axes.append(_axis("held-out %", _measure(done, "oracle_accuracy")))
    # Scores on different proxies do not compare, their ranks do.
    rank = done.groupby("config_proxy")["score"].rank(pct=True)
    line = {"color": plain(rank), "colorscale": RANKS, "cmin": 0, "cmax": 1, "showscale": False}
    data = [{"type": "parcoords", "line": line, "dimensions": [*filter(None, axes)]}]
    yield {
        "label": "search trials",
        "data": data,
        "layout": {"margin": {"t": 50, "r": 50, "b": 30, "l": 90}, "height": 400},
    }


def pareto(frame: pd.DataFrame) -> Iterator[View]:
    """Yield finished trials' accuracy, else score, against seconds, with the front of those that none beats."""
    done = _complete(frame)
    done = done[done["seconds"].notna()]
    for measure, label in ACCURACY.items():
        values = _measure(done, measure).dropna()
        if values.empty:
            continue
        proxies = list(done.loc[values.index, "config_proxy"].unique())
        for proxy in [None, *proxies] if len(proxies) > 1 else proxies:
            here = done.loc[values.index]
            here = here if proxy is None else here[here["config_proxy"] == proxy]
            front = _front(here["seconds"], values[here.index])
            line = {"shape": "hv", "width": 1.5, "dash": "dot", "color": GRAY}
            data = [
                _scatter("front", here.loc[front, "seconds"], values[front], here.loc[front, "trial_id"], "lines")
                | {"line": line, "hoverinfo": "skip", "hovertemplate": None}
            ]
            for method, points in here.groupby("config_method", sort=False):
                data.append(_points(str(method), points["seconds"], values[points.index], points["trial_id"]))
            axes = {
                "xaxis": {"title": {"text": "seconds, GAN and distillation"}, "rangemode": "tozero"},
                "yaxis": {"title": {"text": label}},
            }
            yield {"label": f"{proxy or 'all proxies'}: {label}", "data": data, "layout": axes}


def important(importances: pd.DataFrame | None) -> Iterator[View]:
    """Yield each cell's importances as bars."""
    if importances is None or importances.empty:
        return
    for cell, rows in importances.groupby("cell", sort=False):
        rows = rows.sort_values("importance")
        names = [_text(name) for name in rows["parameter"]]
        bars: View = {"type": "bar", "orientation": "h", "x": plain(rows["importance"]), "y": names}
        bars |= {"marker": {"color": COLOURS[0]}, "hovertemplate": "%{y}: %{x:.2f}<extra></extra>"}
        layout = {"xaxis": {"title": {"text": "importance"}, "range": [0, 1]}, "yaxis": {"type": "category"}}
        yield {"label": str(cell), "data": [bars], "layout": layout | {"height": 160 + 40 * len(names)}}


_CROSS = {"width": 2, "color": GRAY}


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["state"] == State.COMPLETE]


def _methods(frame: pd.DataFrame) -> list[str]:
    present = list(frame["config_method"].dropna().unique())
    return [*(name for name in METHODS if name in present), *sorted(name for name in present if name not in METHODS)]


def _measure(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    return frame[name].astype(float) * (100 if is_accuracy(name) else 1)


def _text(value: Any) -> str:
    """Return text as Plotly shows it, which reads some tags."""
    return html.escape(str(value), quote=False)


def _scatter(
    name: str,
    x: pd.Series[Any],
    y: pd.Series[Any],
    trials: pd.Series[Any],
    mode: str = "markers",
    **style: Any,
) -> dict[str, Any]:
    trace = {"type": "scatter", "mode": mode, "name": _text(name), "x": plain(x), "y": plain(y)}
    hover = f"%{{customdata}}<br>%{{y:.4~g}}<extra>{_text(name)}</extra>"
    return trace | {"customdata": plain(trials), "hovertemplate": hover} | style


def _points(method: str, x: pd.Series[Any], y: pd.Series[Any], trials: pd.Series[Any]) -> dict[str, Any]:
    return _scatter(method, x, y, trials, marker=_style(method) | {"size": 8 if len(x) < CROWDED else 5})


def _style(method: str) -> dict[str, Any]:
    look = method_look(method)
    return {"color": look["color"], "symbol": SYMBOLS[look["marker"]]}


def _lines(method: str, points: pd.DataFrame) -> dict[str, Any]:
    """Return a method's curves as one trace, with a gap after each trial: hundreds of traces would be slow."""
    x: list[Any] = []
    y: list[Any] = []
    trials: list[Any] = []
    for trial, curve in points.groupby("trial_id", sort=False):
        x += [*plain(curve["budget"]), None]
        y += [*plain(curve["score"]), None]
        trials += [trial] * (len(curve) + 1)
    style = _style(method)
    trace = _scatter(method, pd.Series(dtype=float), pd.Series(dtype=float), pd.Series(dtype=str), "lines+markers")
    trace |= {"x": x, "y": y, "customdata": trials, "opacity": 0.7}
    return trace | {"marker": style | {"size": 6}, "line": {"color": style["color"], "width": 1.2}}


def _weighted(
    name: str,
    trials: pd.DataFrame,
    x: pd.Series[Any],
    y: pd.Series[Any],
    marker: dict[str, Any],
    shown: list[Any] | None = None,
) -> dict[str, Any]:
    trace = _scatter(name, x[trials.index], y[trials.index], trials["trial_id"], marker=marker)
    pairs = zip(trials["config_gan_lambda_e"], trials["config_gan_lambda_d"], strict=True)
    values = shown or [None] * len(trials)
    about = [
        f"({e:.3g}, {d:.3g})" + (f": {v:.4g}" if v is not None else "") for (e, d), v in zip(pairs, values, strict=True)
    ]
    return trace | {"text": about, "hovertemplate": f"%{{customdata}}<br>%{{text}}<extra>{name}</extra>"}


def _log_axis(values: pd.Series[Any]) -> tuple[pd.Series[Any], dict[str, Any]]:
    """Return places on a logarithmic axis that has a place for 0, one step below its lowest decade."""
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


def _axis(label: str, values: pd.Series[Any]) -> dict[str, Any] | None:
    known = values.dropna()
    return (
        {"label": _text(label), "values": plain(values), "tickformat": ".3~g"}
        if len(known) and known.nunique() > 1
        else None
    )


def _parallel_log(label: str, values: pd.Series[Any]) -> dict[str, Any]:
    places, axis = _log_axis(values)
    return {
        "label": label,
        "values": plain(places),
        "tickvals": axis["tickvals"],
        "ticktext": axis["ticktext"],
        "range": [axis["tickvals"][0], axis["tickvals"][-1]],
    }


def _category(label: str, values: pd.Series[Any]) -> dict[str, Any] | None:
    names = list(values.unique())
    if len(names) < 2:
        return None
    places = [names.index(value) for value in values]
    ticks = {"tickvals": list(range(len(names))), "ticktext": [_text(name) for name in names]}
    return {"label": label, "values": places, **ticks}


def _front(seconds: pd.Series[Any], values: pd.Series[Any]) -> list[Any]:
    """Return the trials that are better than every faster one, fastest first."""
    ordered = values[seconds.sort_values(kind="stable").index]
    return list(ordered.index[ordered > ordered.cummax().shift(fill_value=-np.inf)])
