"""The figure that a notebook shows while trials run: scores as trials finish, with each cell's best so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from degan_search.system.colours import OKABE_ITO
from degan_search.system.errors import visible

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 30
"""Pixels beside the drawing: for the numbers, and for the axis's name."""

Finished = Mapping[str, Sequence[tuple[int, float, str]]]
"""By cell, its finished trials in the order in which they ended: how many trials had ended then, score, name."""


def live_figure(finished: Finished, total: int) -> str:
    """Return the figure as HTML: an SVG and its legend; "" where no trial has finished. `total`: trials of the phase.

    It is drawn by hand, as the search needs no plotting.
    """
    scores = [score for points in finished.values() for _, score, _ in points]
    if not scores:
        return ""
    low, high = min(scores), max(scores)
    last = max(total, *(place for points in finished.values() for place, _, _ in points))
    room = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(place: float, score: float) -> tuple[float, float]:
        upwards = (score - low) / (high - low) if high > low else 0.5
        return LEFT + room[0] * place / max(1, last), TOP + room[1] * (1 - upwards)

    parts, legend = [_axes(low, high, last)], []
    for number, (cell, points) in enumerate(finished.items()):
        colour = OKABE_ITO[number % len(OKABE_ITO)]  # a seventh cell begins again
        parts.append(f'<path d="{_best(points, at)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for place, score, trial in points:
            x, y = at(place, score)
            about = escape(visible(f"{trial}: {score:.3f}"))
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{about}</title></circle>')
        legend.append(f'<span style="color:{colour}">●</span> {escape(visible(cell))}')
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">{"".join(parts)}</svg><div>{" ".join(legend)}</div>'


def _best(points: Sequence[tuple[int, float, str]], at: Callable[[float, float], tuple[float, float]]) -> str:
    """Return the path of the best score so far, in steps."""
    best, path = points[0][1], "M{:.1f} {:.1f}".format(*at(points[0][0], points[0][1]))
    for place, score, _ in points[1:]:
        best = max(best, score)
        x, y = at(place, best)
        path += f"H{x:.1f}V{y:.1f}"
    return path


def _axes(low: float, high: float, last: int) -> str:
    words = 'fill="currentColor" font-size="11"'
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    values = [(TOP, high), (bottom, low)] if high > low else [((TOP + bottom) / 2, low)]
    numbers = "".join(
        f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end" {words}>{value:.3f}</text>' for y, value in values
    )
    return (
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor"/>{numbers}'
        f'<text x="{right}" y="{HEIGHT - 10}" text-anchor="end" {words}>trials that ended, of {last}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 10}" {words}>score; the line: best so far</text>'
    )
