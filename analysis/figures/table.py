"""The table of all figures, with what each is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.figures.accuracy import methods_by_proxy, pareto
from analysis.figures.curves import steps
from analysis.figures.goals import goals
from analysis.figures.heat_map import weights
from analysis.figures.related import relatedness
from analysis.figures.samples import samples_by_class
from analysis.figures.settings import importances, parallel


@dataclass(frozen=True)
class Entry:
    """A figure's function, and the names of its arguments in order.

    Names: `trials` and `curves` from the ledger, `table` from `table.table`, `measures` of proxies from
    `degan-search relatedness`, `importances` from Optuna, the search's `goals`, and the parts of `samples.Samples`.
    """

    draw: Callable[..., Figure]
    needs: tuple[str, ...]


FIGURES: dict[str, Entry] = {
    "methods_by_proxy": Entry(methods_by_proxy, ("table",)),
    "relatedness": Entry(relatedness, ("trials", "measures")),
    "weights": Entry(weights, ("trials",)),
    "steps": Entry(steps, ("curves",)),
    "parallel": Entry(parallel, ("trials",)),
    "importances": Entry(importances, ("importances",)),
    "pareto": Entry(pareto, ("trials",)),
    "goals": Entry(goals, ("trials", "goals")),
    "samples": Entry(
        samples_by_class,
        ("generated", "generated_classes", "proxy_images", "proxy_classes", "class_names"),
    ),
}
"""Each figure by name; `draw` returns it, or raises a UserError that says what is missing."""
