"""Score against GAN steps."""

import pandas as pd

from analysis import figures


class TestSteps:
    """Score against GAN steps."""

    def test_each_trial_ends_with_the_mark_of_its_state(self, curves):
        scored = curves[(curves["phase"] == "search") & curves["score"].notna()]
        figure = figures.steps(curves)
        assert len(figure.axes) == scored["cell"].nunique()
        ends = [line for axes in figure.axes for line in axes.get_lines() if len(line.get_xdata()) == 1]
        for marker, state in (("o", "COMPLETE"), ("x", "PRUNED"), ("v", "FAIL")):
            expected = scored[scored["state"] == state].groupby("trial_id").tail(1)
            found = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ends if line.get_marker() == marker]
            assert sorted(found) == sorted(zip(expected["budget"], expected["score"], strict=True))

    def test_rungs_are_dotted_lines(self, curves):
        axes = figures.steps(curves).axes[0]
        assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"] == [100, 200]

    def test_the_best_finished_trial_of_each_cell_is_thick(self, curves):
        done = curves[(curves["phase"] == "search") & (curves["stage"] == "done")]
        for axes, (_, own) in zip(figures.steps(curves).axes, done.groupby("cell", sort=False), strict=True):
            thick = [line for line in axes.get_lines() if line.get_linewidth() == 2.5]
            assert [line.get_ydata()[-1] for line in thick] == [own["score"].max()]

    def test_runs_do_not_mix(self, curves):
        longer = curves.assign(run="other", budget=2 * curves["budget"])
        panels = figures.steps(pd.concat([curves, longer])).axes
        assert len({axes.get_title() for axes in panels}) == len(panels) == 8
        assert all(axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 800 for axes in panels)
