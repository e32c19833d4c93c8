"""Figures of results as files; `FIGURES` lists them. They are readable in gray and by the colour-blind."""

from analysis.figures.accuracy import methods_by_proxy, pareto
from analysis.figures.curves import steps
from analysis.figures.heat_map import weights
from analysis.figures.related import relatedness
from analysis.figures.samples import samples_by_class
from analysis.figures.settings import importances, parallel
from analysis.figures.style import COLOURS, MARKERS, save
from analysis.figures.table import FIGURES, Entry

__all__ = [
    "COLOURS",
    "FIGURES",
    "MARKERS",
    "Entry",
    "importances",
    "methods_by_proxy",
    "parallel",
    "pareto",
    "relatedness",
    "samples_by_class",
    "save",
    "steps",
    "weights",
]
