"""Which configurations run in the finals, at which lengths, and requests that are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from degan_search import ledger
from degan_search.search.finals.lineup import Request, check, entrants, final_config
from degan_search.search.finals.log import fresh_seeds
from degan_search.settings.combine import Combine, trial_of
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError
from tests.search.finals.made_runs import searched, write

NOWHERE = Path("nowhere")


class TestEntrants:
    """Who runs."""

    @pytest.fixture
    def frame(self, tmp_path, tiny):
        return ledger.load(searched(tmp_path / "run", tiny))

    def test_the_best_with_their_baselines(self, frame):
        lineup = entrants(frame, Request(top=2), NOWHERE)
        assert [entrant.source for entrant in lineup] == ["search-0001", "search-0000", None, None, None]
        assert [entrant.config.method for entrant in lineup[2:]] == ["dcgan", "proxy_matched", "proxy"]
        assert all(entrant.config.gan.lambda_d == 0 for entrant in lineup[2:])
        assert {entrant.config.gan.steps for entrant in lineup} == {12}

    def test_methods_without_weights_are_not_chosen(self, frame, tmp_path, tiny):
        write(tmp_path / "run", "search-0009", tiny({"method": "proxy"}), 0.99)
        assert entrants(ledger.load(tmp_path / "run"), Request(), NOWHERE)[0].source == "search-0001"

    def test_without_a_finished_search(self, frame):
        with pytest.raises(UserError, match="no finished search trial"):
            entrants(frame[frame["phase"] == "final"], Request(), NOWHERE)

    def test_the_papers_budget_keeps_networks_data_and_weights(self, tiny):
        config = tiny({"gan.lambda_e": 3, "probe.at": [6]})
        paper, final = TrialConfig(), final_config(config, Request(lengths="paper", changes={"distill.steps": 9}))
        kept = {"lambda_e": 3.0, "lambda_d": 5.0, "width": 2, "latent": 4}
        assert final.gan == paper.gan.model_copy(update=kept)
        assert final.distill == paper.distill.model_copy(update={"steps": 9})
        assert final.distill_images == paper.distill_images
        for name in ("proxy", "count", "teacher", "student", "bank"):
            assert getattr(final, name) == getattr(config, name)
        assert final.probe.at == ()

    def test_a_student_of_several_generators_beside_them(self, frame, tmp_path):
        for name in ("search-0000", "search-0001", "search-0002"):
            (tmp_path / "run" / "trials" / name).mkdir(parents=True)
            (tmp_path / "run" / "trials" / name / "generator.safetensors").write_bytes(name.encode())
        request = Request(combine=Combine(members=2, share=0.25), changes={"distill.steps": 3}, baselines=())
        best, together = entrants(frame, request, tmp_path / "run")
        assert (together.source, together.by, together.cell) == (None, "score", "proxy=digits method=combined")
        assert list(map(trial_of, together.config.combine.members)) == ["search-0001", "search-0000"]
        assert together.label == "generators of search-0001, search-0000: digits, combined"
        assert together.config.distill == best.config.distill.model_copy(update={"mix_proxy": 0.25})
        assert together.config.distill.steps == 3
        assert request.saved()["combine"] == {"members": 2, "balance": True, "share": 0.25, "early": True}

    def test_without_generators_to_combine(self, frame, tmp_path):
        with pytest.raises(
            UserError, match=r"--combine 4: of the search trials on digits \(search-0000, .*fewer than two"
        ):
            entrants(frame, Request(must_combine=True), tmp_path / "run")

    def test_unknown_settings(self, frame):
        with pytest.raises(UserError, match=r"gan\.step'"):
            entrants(frame, Request(changes={"gan.step": 3}), NOWHERE)

    def test_a_referee_needs_test_images(self, tmp_path, tiny):
        own = tmp_path / "own.npz"
        np.savez(own, images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4) % 2)
        write(tmp_path / "run", "search-0000", tiny({"teacher.dataset": f"npz:{own}"}), 0.5)
        frame = ledger.load(tmp_path / "run")
        assert entrants(frame, Request(baselines=()), NOWHERE)
        with pytest.raises(UserError, match=r"--referee needs test images, and 'npz:.*', your own images, has none"):
            entrants(frame, Request(baselines=(), referee=True), NOWHERE)

    def test_fresh_seeds_are_in_no_row(self, frame):
        assert fresh_seeds(frame, 3) == [2, 3, 4]
        assert fresh_seeds(frame[frame["phase"] == "search"], 3) == [1, 2, 3]


def test_a_request_in_the_log_has_the_names_of_its_options():
    names = ["top", "per", "seeds", "by", "budget", "changes", "baselines", "combine", "referee"]
    assert list(Request().saved()) == names


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"top": 0}, "--top 0"),
        ({"seeds": 0}, "--seeds 0"),
        ({"lengths": "papr"}, "as-is or paper"),
        ({"baselines": ("dcgam",)}, "did you mean dcgan"),
        ({"baselines": ("degan",)}, "no baseline"),
        ({"baselines": ("combined",)}, "no baseline"),
        ({"changes": {"seed": 3}}, "--seeds"),
    ],
)
def test_wrong_requests(change, says):
    with pytest.raises(UserError, match=says):
        check(replace(Request(), **change))
