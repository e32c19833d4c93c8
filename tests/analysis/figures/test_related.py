"""Accuracy against how related the proxy is."""

import numpy as np
import pandas as pd
import pytest

from analysis import figures
from analysis.figures import style
from degan_search.system.errors import UserError
from tests.analysis.figures.made_parts import texts


class TestRelatedness:
    """Accuracy against relatedness."""

    def measures(self, trials):
        proxies = trials["config_proxy"].unique()
        return pd.DataFrame(
            {"proxy": proxies, "near": np.arange(len(proxies)) + 1.0, "far": 10.0 ** np.arange(len(proxies))}
        )

    def test_each_trial_stands_at_its_proxys_measure(self, trials):
        measures = self.measures(trials)
        near, far = figures.relatedness(trials, measures).axes
        accurate = style.with_accuracy(trials)
        for axes, name in ((near, "near"), (far, "far")):
            drawn = np.concatenate([marks.get_offsets() for marks in axes.collections])
            place = accurate["config_proxy"].map(measures.set_index("proxy")[name])
            expected = np.column_stack([place, accurate["accuracy"]])
            assert np.allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])
        assert (near.get_xscale(), far.get_xscale()) == ("linear", "log")

    def test_proxies_at_one_place_share_a_name(self, trials):
        measures = self.measures(trials).assign(near=[1, 1, 1.001, 2])
        (axes,) = figures.relatedness(trials, measures, ["near"]).axes
        first, last = (", ".join(measures["proxy"][part]) for part in (slice(0, 3), slice(3, 4)))
        assert texts(axes) == [first, last]

    def test_proxies_of_other_sizes_are_other_proxies(self, trials):
        measures = self.measures(trials).assign(count=10_000)
        smaller = measures.assign(count=50, near=-7.0)
        (axes,) = figures.relatedness(trials, pd.concat([measures, smaller]), ["near"]).axes
        drawn = np.concatenate([marks.get_offsets() for marks in axes.collections])
        assert drawn[:, 0].min() == 1
        assert len(drawn) == len(style.with_accuracy(trials))

    def test_what_it_refuses(self, trials):
        measures = self.measures(trials)
        with pytest.raises(UserError, match="degan-search relatedness"):
            figures.relatedness(trials, None)
        with pytest.raises(UserError, match="did you mean near"):
            figures.relatedness(trials, measures, ["neer"])
        with pytest.raises(UserError, match="no measures of the trials' proxies"):
            figures.relatedness(trials, measures.assign(proxy="other"))
        with pytest.raises(UserError, match="varies"):
            figures.relatedness(trials, measures.assign(near=1.0, far=2.0))
        other = trials.assign(config_teacher_dataset="digits")
        with pytest.raises(UserError, match=r"digits"):
            figures.relatedness(pd.concat([trials, other]), measures)
