"""The page's interactive figures, as the values that Plotly draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from analysis.figures.style import COLOURS, GRAY
from analysis.report.axes import (
    ACCURACY,
    AXES,
    CROSS,
    KINDS,
    LINES,
    RANKS,
    SCALE,
    as_text,
    complete,
    log_axis,
    method_lines,
    method_names,
    method_points,
    parallel_axis,
    parallel_categories,
    parallel_log_axis,
    pareto_front,
    scatter,
    weighted_points,
)
from analysis.report.data import in_percent, plain
from degan_search.ledger.columns import Phase, State
from degan_search.selection.choose import finished, grouping
from degan_search.selection.pareto import front
from degan_search.settings.goals import GOALS, SCORE
from degan_search.settings.methods import TUNED

View = dict[str, Any]


def figures(
    frame: pd.DataFrame, curves: pd.DataFrame, importances: pd.DataFrame | None, goals: Sequence[str] = (SCORE,)
) -> list[dict[str, Any]]:
    """Return each figure that has something to show: name, title, text, and views to choose from.

    `goals`: of the search.
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
            "Each line is a finished search trial, blue for the best scores on its images, orange for the worst. "
            "Drag along an axis to keep the lines that pass there.",
            parallel(frame),
        ),
        (
            "pareto",
            "Accuracy, or score, against time",
            "Finished trials; the line joins those that no faster trial beats.",
            pareto(frame),
        ),
        (
            "front",
            "Pareto front",
            "Finished search trials by the search's objectives; the dark ones no other of their method beats in all.",
            fronts(frame, goals),
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
    done = complete(frame)
    proxies, methods = list(done["config_proxy"].unique()), method_names(frame)
    step = min(0.22, 0.9 / max(len(methods), 1))
    for measure, label in (ACCURACY | KINDS).items():
        values = in_percent(done, measure)
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
            data.append(method_points(method, place, values[here.index], here["trial_id"]))
        layout = {
            "xaxis": {
                "title": {"text": "proxy images"},
                "tickvals": list(range(len(proxies))),
                "ticktext": [as_text(proxy) for proxy in proxies],
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
        values = in_percent(complete(search), measure)
        if search.empty or not values.notna().any():
            continue
        # One scale for all proxies, with a place for 0.
        (x, xaxis), (y, yaxis) = (log_axis(search[f"config_gan_{name}"]) for name in ("lambda_e", "lambda_d"))
        xaxis["title"], yaxis["title"] = {"text": "lambda_e"}, {"text": "lambda_d"}
        for proxy, here in search.groupby("config_proxy", sort=False):
            known = values.reindex(here.index).dropna()
            stopped = here.index.difference(known.index)
            bar = {"title": {"text": ACCURACY[measure], "side": "right"}, "thickness": 14, "outlinewidth": 0}
            marker = {"size": 13, "color": plain(known), "colorscale": SCALE, "colorbar": bar}
            marker["line"] = {"width": 1, "color": GRAY}  # the scale's dark end on dark ground
            data = [
                weighted_points(
                    "not finished", here.loc[stopped], x, y, {"symbol": "x-thin", "size": 9, "line": CROSS}
                ),
                weighted_points("finished", here.loc[known.index], x, y, marker, plain(known)),
            ]
            layout = {"xaxis": xaxis, "yaxis": yaxis, "showlegend": False}
            yield {"label": f"{proxy}: {ACCURACY[measure]}", "data": data, "layout": layout}


def steps(frame: pd.DataFrame, curves: pd.DataFrame) -> Iterator[View]:
    """Yield rung scores and the last score against GAN steps, one line a trial, a view for each proxy."""
    scored = curves[(curves["phase"] == Phase.SEARCH) & curves["score"].notna()]
    scored = scored[(scored["budget"] > 0) | (scored["stage"] != "done")]  # those without a GAN have no steps
    drawn = frame[frame["trial_id"].isin(scored["trial_id"].unique())]
    best = drawn.sort_values("score", ascending=False, kind="stable").head(LINES)
    latest = drawn.sort_values("started", ascending=False, kind="stable").head(LINES)
    drawn = drawn[drawn["trial_id"].isin({*best["trial_id"], *latest["trial_id"]})]
    rows = scored.merge(drawn[["trial_id", "config_proxy", "config_method"]], on="trial_id")
    for proxy, here in rows.groupby("config_proxy", sort=False):
        data = []
        for method, points in here.groupby("config_method", sort=False):
            data.append(method_lines(str(method), points))
        ends = here[here["state"] == State.PRUNED].drop_duplicates("trial_id", keep="last")
        cross = {"symbol": "x-thin", "size": 9, "line": CROSS}
        data.append(scatter("stopped early", ends["budget"], ends["score"], ends["trial_id"], marker=cross))
        axes = {"xaxis": {"title": {"text": "GAN steps"}, "rangemode": "tozero"}, "yaxis": {"title": {"text": "score"}}}
        yield {"label": str(proxy), "data": data, "layout": axes}


def parallel(frame: pd.DataFrame) -> Iterator[View]:
    """Yield the searched settings, what they cost and what they gave on parallel axes."""
    done = complete(frame)
    done = done[(done["phase"] == Phase.SEARCH) & done["score"].notna()]
    if len(done) < 2:
        return
    axes: list[dict[str, Any] | None] = [
        parallel_categories("proxy", done["config_proxy"]),
        parallel_categories("method", done["config_method"]),
    ]
    for name in [name for name in done if str(name).startswith("config_")]:
        column = done[name]
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > 1 and name != "config_seed":
            label = str(name).removeprefix("config_").removeprefix("gan_")
            axes.append(parallel_log_axis(label, column) if "lambda" in label else parallel_axis(label, column))
    axes = axes[: AXES - 3]
    axes += [parallel_axis("seconds", done["seconds"]), parallel_axis("score", done["score"])]
    axes.append(parallel_axis("held-out %", in_percent(done, "oracle_accuracy")))
    # Scores on different images do not compare, their ranks do.
    rank = done.groupby("compared_on")["score"].rank(pct=True)
    line = {"color": plain(rank), "colorscale": RANKS, "cmin": 0, "cmax": 1, "showscale": False}
    data = [{"type": "parcoords", "line": line, "dimensions": [*filter(None, axes)]}]
    yield {
        "label": "search trials",
        "data": data,
        "layout": {"margin": {"t": 50, "r": 50, "b": 30, "l": 90}, "height": 400},
    }


def pareto(frame: pd.DataFrame) -> Iterator[View]:
    """Yield finished trials' accuracy, else score, against seconds, with the front of those that none beats."""
    done = complete(frame)
    done = done[done["seconds"].notna()]
    for measure, label in ACCURACY.items():
        values = in_percent(done, measure).dropna()
        if values.empty:
            continue
        proxies = list(done.loc[values.index, "config_proxy"].unique())
        for proxy in [None, *proxies] if len(proxies) > 1 else proxies:
            here = done.loc[values.index]
            here = here if proxy is None else here[here["config_proxy"] == proxy]
            front = pareto_front(here["seconds"], values[here.index])
            line = {"shape": "hv", "width": 1.5, "dash": "dot", "color": GRAY}
            data = [
                scatter("front", here.loc[front, "seconds"], values[front], here.loc[front, "trial_id"], "lines")
                | {"line": line, "hoverinfo": "skip", "hovertemplate": None}
            ]
            for method, points in here.groupby("config_method", sort=False):
                data.append(method_points(str(method), points["seconds"], values[points.index], points["trial_id"]))
            axes = {
                "xaxis": {"title": {"text": "seconds, GAN and distillation"}, "rangemode": "tozero"},
                "yaxis": {"title": {"text": label}},
            }
            yield {"label": f"{proxy or 'all proxies'}: {label}", "data": data, "layout": axes}


def fronts(frame: pd.DataFrame, goals: Sequence[str]) -> Iterator[View]:
    """Yield the first goal against each other one, a view for each proxy; nothing for one goal alone."""
    done = finished(frame).dropna(subset=[*goals])
    if len(goals) < 2 or done.empty:
        return
    best = front(frame, goals, grouping("method")).index
    for proxy, here in done.groupby("config_proxy", sort=False):
        for goal in goals[1:]:
            data = []
            for method, trials in here.groupby("config_method", sort=False):
                trace = method_points(str(method), trials[goal], trials[goals[0]], trials["trial_id"])
                trace["marker"] |= {"opacity": [1.0 if one in best else 0.25 for one in trials.index]}
                data.append(trace)
            axes = {"xaxis": {"title": {"text": GOALS[goal].help}}, "yaxis": {"title": {"text": goals[0]}}}
            yield {"label": f"{proxy}: {goal.replace('_', ' ')}", "data": data, "layout": axes}


def important(importances: pd.DataFrame | None) -> Iterator[View]:
    """Yield each cell's importances as bars."""
    if importances is None or importances.empty:
        return
    for cell, rows in importances.groupby("cell", sort=False):
        rows = rows.sort_values("importance")
        names = [as_text(name) for name in rows["parameter"]]
        bars: View = {"type": "bar", "orientation": "h", "x": plain(rows["importance"]), "y": names}
        bars |= {"marker": {"color": COLOURS[0]}, "hovertemplate": "%{y}: %{x:.2f}<extra></extra>"}
        layout = {"xaxis": {"title": {"text": "importance"}, "range": [0, 1]}, "yaxis": {"type": "category"}}
        yield {"label": str(cell), "data": [bars], "layout": layout | {"height": 160 + 40 * len(names)}}
