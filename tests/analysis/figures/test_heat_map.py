"""The heat map over the two weights."""

import math

import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex

from analysis import figures
from degan_search.system.errors import UserError
from tests.analysis.figures.made_parts import texts


class TestWeights:
    """The heat map."""

    ROWS = (
        # lambda_e, lambda_d, state, score, accuracy
        (0.0, 0.0, "COMPLETE", 0.1, 0.20),
        (0.0, 5.0, "COMPLETE", 0.9, 0.40),
        (0.0, 9.0, "COMPLETE", 0.2, 0.60),
        (0.5, 0.0, "PRUNED", 0.95, math.nan),
        (0.5, 20.0, "COMPLETE", 0.3, 0.70),
    )

    def frame(self, trials):
        names = ["config_gan_lambda_e", "config_gan_lambda_d", "state", "score", "oracle_accuracy"]
        row = trials[(trials["config_method"] == "degan") & (trials["phase"] == "search")].iloc[[0] * len(self.ROWS)]
        return row.assign(**dict(zip(names, zip(*self.ROWS, strict=True), strict=True))).reset_index(drop=True)

    def test_cells_hold_mean_and_number_and_zero_has_its_own(self, trials):
        axes = figures.weights(self.frame(trials)).axes[0]
        found = {(round(t.get_position()[0]), round(t.get_position()[1]), t.get_text()) for t in axes.texts}
        # Across 0, 3 to 10, 10 to 30; up 0, 0.3 to 1.
        assert found == {
            (0, 0, "20"),
            (0, 0, "n=1"),
            (1, 0, "50"),
            (1, 0, "n=2"),
            (0, 1, "–"),
            (2, 1, "70"),
            (2, 1, "n=1"),
        }
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "3", "10", "30"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.3", "1"]

    def test_the_choice_is_the_finished_trial_of_the_best_score(self, trials):
        (outline,) = [p for p in figures.weights(self.frame(trials)).axes[0].patches if not p.get_fill()]
        assert (outline.get_x(), outline.get_y()) == (0.5, -0.5)

    def test_the_best_cell_of_each_panel_has_one_colour(self, trials):
        frame = self.frame(trials)
        other = frame.assign(config_proxy="other", oracle_accuracy=frame["oracle_accuracy"] / 2)
        panels = figures.weights(pd.concat([frame, other])).axes[:2]
        best = [
            {to_hex(p.get_facecolor()) for p in axes.patches if p.get_fill() and p.get_x() == 1.5} for axes in panels
        ]
        assert best[0] == best[1] == {to_hex(colormaps["cividis"](1.0))}

    def test_scores_where_no_accuracy_is_measured(self, trials):
        frame = self.frame(trials).assign(oracle_accuracy=math.nan)
        assert "0.90" not in texts(figures.weights(frame).axes[0])
        assert "0.55" in texts(figures.weights(frame).axes[0])
        with pytest.raises(UserError, match="oracle_accuracy"):
            figures.weights(frame, "oracle_accuracy")
        with pytest.raises(UserError, match="did you mean score"):
            figures.weights(frame, "scores")
