"""What a figure may be given, made up from a run's trials, and what it shows as text."""

import math

import numpy as np
import pandas as pd

from analysis import figures
from analysis.tables.table import table

TIDY = pd.DataFrame(
    {
        "proxy": ["photos", "photos", "noise/uniform", "noise/uniform"],
        "method": ["proxy", "degan", "proxy", "degan"],
        "ours": [60.0, 72.0, 11.0, math.nan],
        "std": [1.0, 2.0, math.nan, math.nan],
        "teacher": [87.0, 87.0, 87.0, math.nan],
        "measured_on": "test",
    }
)
NAMES = ("ant", "bee", "cat")


def given(trials, curves):
    """What `Entry.needs` may ask for, from these trials."""
    proxies = list(dict.fromkeys(trials["config_proxy"]))
    cells = [(cell, name, share, 12) for cell in trials["cell"].unique() for name, share in (("a", 0.9), ("b", 0.1))]
    classes = np.arange(2 * len(trials)) % 3
    images = np.random.default_rng(0).integers(0, 256, (len(classes), 1, 8, 8), np.uint8)
    samples = (images, classes, images, classes, NAMES)
    return {
        "trials": trials,
        "curves": curves,
        "table": table(trials),
        "measures": pd.DataFrame({"proxy": proxies, "classes": range(1, len(proxies) + 1), "distance": 0.5}),
        "goals": ("score", "student_parameters"),
        "importances": pd.DataFrame(cells, columns=["cell", "parameter", "importance", "n"]),
        **dict(zip(figures.FIGURES["samples"].needs, samples, strict=True)),
    }


def texts(axes):
    return [text.get_text() for text in axes.texts]
