"""Parallel coordinates, and which settings matter."""

import math

import numpy as np
import pandas as pd

from analysis import figures
from tests.analysis.figures.made_parts import texts


class TestSettings:
    """Parallel coordinates and importances."""

    def test_axes_are_what_varies_and_lines_the_finished_trials(self, trials):
        (axes,) = figures.parallel(trials).axes
        names = [label.get_text() for label in axes.get_xticklabels()]
        assert names == ["proxy", "lambda_e", "lambda_d", "score", "held-out accuracy (%)"]
        done = trials[(trials["phase"] == "search") & (trials["state"] == "COMPLETE")]
        strong = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) == len(names)]
        lines = np.array([*strong, *(segment[:, 1] for segment in axes.collections[0].get_segments())])
        assert len(lines) == len(done)
        assert np.allclose(lines[:, 1:].min(axis=0), 0)
        assert np.allclose(lines[:, 1:].max(axis=0), 1)
        # 0 lies below the others on a logarithmic axis.
        assert (lines[:, 1] == 0).sum() == (done["config_gan_lambda_e"] == 0).sum()
        assert ((lines[:, 1] > 0) & (lines[:, 1] < 0.11)).sum() == 0

    def test_the_best_on_each_proxy_are_strong(self, trials):
        (axes,) = figures.parallel(trials).axes
        done = trials[(trials["phase"] == "search") & (trials["state"] == "COMPLETE")]
        strong = [line for line in axes.get_lines() if line.get_linewidth() > 1]
        assert len(strong) == sum(math.ceil(len(part) / 10) for _, part in done.groupby("config_proxy"))
        assert len({line.get_color() for line in strong}) == len({line.get_linestyle() for line in strong}) == 4

    def test_bars_are_the_importances(self):
        table = pd.DataFrame({"cell": ["proxy=a", "proxy=a"], "parameter": ["x", "y"], "importance": [0.25, 0.75]})
        (axes,) = figures.importances(table).axes
        assert sorted(bar.get_width() for bar in axes.patches) == [0.25, 0.75]
        assert texts(axes) == ["0.25", "0.75"]
