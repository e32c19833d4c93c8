"""What the user believes, where it is right and where it is wrong."""

import numpy as np
import pytest

from degan_search.search.space import file as space_file
from degan_search.search.space.schema import Range
from degan_search.search.suggest.box import Axis
from degan_search.search.suggest.priors import SHARES, Sources, around
from tests.search.space.made_spaces import read, refused
from tests.search.suggest.as_tune import run_all, searcher

AXES = {"x": Axis(Range.model_validate({"range": [0, 1]})), "name": Axis(["a", "b", "c"])}
PRIOR = around({"x": 0.2, "name": 1}, AXES, "medium")
RANGES = {"gan.lambda_e": {"zero_or_log": [0.01, 10]}, "gan.lambda_d": {"zero_or_log": [0.1, 50]}}


def ended(near, far):
    """Return trials, half of them where the prior draws and half elsewhere, with their scores."""
    trials = [({"x": 0.2 + 0.01 * n, "name": 1}, near - n / 100) for n in range(4)]
    return trials + [({"x": 0.9 - 0.01 * n, "name": 2}, far - n / 100) for n in range(4)]


def test_what_produced_better_trials_earns_its_share():
    before = Sources(PRIOR, AXES, [])
    right, wrong = (Sources(PRIOR, AXES, ended(*scores)) for scores in ((0.9, 0.1), (0.1, 0.9)))
    assert before.shares[0] == SHARES["medium"] == 0.5
    assert right.shares[0] > 0.5 > 0.2 > wrong.shares[0] > 0
    assert [right.shares.sum(), wrong.shares.sum()] == pytest.approx([1, 1])
    assert wrong.sources[1].middle == {"x": 0.9, "name": 2}  # around the best trial


def test_a_source_draws_around_its_middle():
    rng = np.random.default_rng(0)
    drawn = [PRIOR.draw(rng) for _ in range(200)]
    places = [box["x"] for box in drawn]
    assert 0 <= min(places) < max(places) <= 1
    assert np.mean([abs(at - 0.2) < 0.2 for at in places]) > 0.7
    assert {box["name"] for box in drawn} == {0, 1, 2}
    assert np.mean([box["name"] == 1 for box in drawn]) > 0.8
    assert PRIOR.density({"x": 0.2, "name": 1}) > 1 > PRIOR.density({"x": 0.9, "name": 1})
    assert PRIOR.density({}) == 1


@pytest.mark.parametrize("sampler", ["gp", "random"])
def test_the_middle_comes_first_and_once(sampler):
    prior = {"gan.lambda_e": 1, "gan.lambda_d": 5, "confidence": "high"}
    first = [{"gan.lambda_e": 0, "gan.lambda_d": 0}]
    given = searcher(parameters=RANGES, prior=prior, first=first, search={"trials": 5, "sampler": sampler})
    weights = [
        (job.config.gan.lambda_e, job.config.gan.lambda_d) for job in run_all(given) if job.config.proxy == "digits"
    ]
    assert weights[0] == (0, 0)
    assert weights[1] == pytest.approx((1, 5))
    assert len(set(weights)) == 5


def test_a_prior_may_name_some_parameters_and_is_read_back(tmp_path):
    space = read(tmp_path, parameters=RANGES, prior={"gan.lambda_d": "5e0"})
    assert space.prior.confidence == "low"
    assert space.prior.point == {"gan.lambda_d": 5.0}
    (tmp_path / "again.yaml").write_text(space_file.dump(space))
    assert space_file.load(tmp_path / "again.yaml") == space


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prior": {"gan.lambda_x": 1}}, "prior: 'gan.lambda_x' is none of the parameters"),
        (
            {"prior": {"gan.lambda_e": 1}, "search": {"objectives": ["score", "seconds"]}},
            "several objectives takes none",
        ),
        ({"search": {"objectives": ["score", "seconds"], "stop_when_flat": True}}, "looks at the score alone"),
        ({"prior": {"gan.lambda_e": 99}}, "prior: gan.lambda_e = 99 is outside its range"),
        ({"prior": {"gan.lambda_e": 1, "confidence": "sure"}}, "prior.confidence"),
        ({"prior": {"confidence": "low"}}, "prior: names no parameter"),
        ({"prior": {"gan.lambda_e": 1}, "search": {"sampler": "tpe"}}, "prior: search.sampler tpe takes none"),
    ],
)
def test_a_prior_that_cannot_be_is_refused(tmp_path, changes, says):
    refused(lambda: read(tmp_path, parameters=RANGES, **changes), says)
