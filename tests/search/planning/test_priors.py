"""What is expected of trials by timed steps, before any was measured."""

import math

import pytest

from degan_search.search.planning import timed_steps
from degan_search.search.planning.cost_model import Prior
from degan_search.search.space import cell as spaces
from degan_search.search.space import schema
from tests.search.planning.made_up_steps import steps_take
from tests.search.planning.two_cells import SPACE


class TestEstimate:
    """Timed steps, scaled to trials."""

    @pytest.fixture(autouse=True)
    def image(self, monkeypatch):
        """A GAN step takes 2 s an image, a distillation step 1 s."""
        steps_take(monkeypatch, 2.0, 1.0)

    def test_stretches_from_rung_to_rung(self, tiny):
        config = tiny({"probe.at": [4, 10, 99]})  # 12 steps of 8 images, so the last is never reached
        probe, distil = 4 * 8, 8 * 8
        seconds = (4 * 16 + probe, 6 * 16 + probe, 2 * 16 + distil)
        assert timed_steps.prior(config, None) == Prior(seconds, (4, 10))
        assert timed_steps.trial_seconds(config, None) == (sum(seconds), sum(seconds))
        assert timed_steps.prior(tiny({"method": "proxy_matched"}), None) == Prior((distil,))

    def test_what_a_trial_takes_once_is_longer_beside_other_programs(self, tiny, monkeypatch):
        plain = timed_steps.trial_seconds(tiny(), None)[0]
        monkeypatch.setattr(timed_steps, "ONCE", 0.5)
        monkeypatch.setattr(timed_steps, "share_of_cpu", lambda: 0.25)
        assert timed_steps.trial_seconds(tiny(), None)[0] == plain + 2

    def test_between_fewest_and_most_where_patience_decides(self, tiny):
        config = tiny({"method": "proxy_matched", "distill": {"steps": None, "patience": 2, "epochs": 8}})
        fewest, most = 2 * 2 * 4 * 8, 2 * 8 * 4 * 8
        assert timed_steps.trial_seconds(config, None) == (fewest, most)
        assert timed_steps.prior(config, None).seconds == (math.sqrt(fewest * most),)

    def test_a_space(self):
        trial = {**SPACE["trial"], "probe": {"at": [100]}, "gan": {"batch_size": 32, "batch_of": "used"}}
        space = schema.Space.model_validate(SPACE | {"trial": trial})
        made = timed_steps.cost_model(space, None)
        kinds = [(phase, cell.label) for cell in spaces.cells(space) for phase in ("search", "final")]
        assert list(made.stretches.priors) == kinds
        rungs = {kind: prior.rungs for kind, prior in made.stretches.priors.items() if prior.rungs}
        assert rungs == {("search", f"proxy={name} method=degan"): (100,) for name in ("digits", "photos")}
        assert made.after == [kind for kind in kinds if kind[0] == "final"] * 2
        assert made.reduction_factor == space.asha.reduction_factor
