"""A trial of method `combined`: a student of several generators' images."""

import pytest
import torch
from same_bits import bits

from degan_search.evaluation.networks import load_generator
from degan_search.settings.combine import Combine, CombineConfig, member
from degan_search.settings.methods import combined, normalised
from degan_search.storage import LocalPlace
from degan_search.system.errors import UserError
from degan_search.system.weights_file import read_tensors
from degan_search.training.loop import progress_of
from degan_search.training.resumable import read_state, state_bytes
from degan_search.trial import checks, outcome, run_here
from degan_search.trial.members import read_members
from degan_search.trial.trial import Trial, run

pytestmark = pytest.mark.usefixtures("few_images")
WEIGHTS = [(0, 5), (1, 5), (2, 1)]
GENERATOR, EARLY = "generator.safetensors", "early_generator.safetensors"
PLAIN = Combine(balance=False, share=0, early=False)


@pytest.fixture(scope="module")
def searched(tiny, prepare, tmp_path_factory):
    """Return the first trial's configuration, the inputs, the place of the files, the members, these half-trained."""
    folder, members, early = tmp_path_factory.mktemp("trials"), [], []
    for number, (lambda_e, lambda_d) in enumerate(WEIGHTS):
        config = tiny({"gan.lambda_e": lambda_e, "gan.lambda_d": lambda_d})
        inputs = prepare(config)
        name = f"search-{number:04d}"
        outcome.save(run(config, inputs), folder / name)
        members.append(member(name, (folder / name / GENERATOR).read_bytes()))
        early.append(member(name, (folder / name / EARLY).read_bytes()))
    return tiny({"gan.lambda_e": 0}), inputs, LocalPlace(folder), members, early


def started(searched, wanted=None, count=3, **changes):
    best, inputs, place, members, early = searched
    wanted = wanted or PLAIN
    config = combined(best, members[:count], early if wanted.early else (), wanted).model_copy(update=changes)
    return Trial(config, inputs, "cpu", read_members(place, config.combine))


def finished(trial):
    events = list(progress_of(trial))
    return events, trial.outcome


def test_it_learns_from_all_and_says_what_it_did(searched, tmp_path):
    trial = started(searched)
    events, made = finished(trial)
    assert {event.stage for event in events} == {"distill", "done"}
    assert (made.metrics["gan_steps"], made.metrics["distill_steps"]) == (0, 8)
    assert made.metrics["score"] == made.metrics["balanced_soft_agreement"]
    assert made.samples.shape == (64, 1, 32, 32)
    outcome.save(made, tmp_path / "trials" / "final-0000")
    again = load_generator(tmp_path, "final-0000", trial.common.config)
    z = torch.randn(7, 4)
    with torch.no_grad():
        assert torch.equal(again(z), made.generator(z))
        for place, (part, name) in enumerate(zip(again.members, searched[3], strict=True)):
            own = read_tensors(searched[2].at(name.partition("@")[0]).read(GENERATOR), name)
            assert all(torch.equal(part.state_dict()[key], value) for key, value in own.items())
            assert torch.allclose(again(z)[place::3], part(z[place::3]))
    assert again(z).std(0).mean() > 0


def test_one_generator_alone_gives_the_student_that_its_own_trial_has(searched):
    best, inputs, *_ = searched
    plain = run(best, inputs)
    _, made = finished(started(searched, count=1))
    assert torch.equal(made.samples, plain.samples)
    for key, value in plain.student.state_dict().items():
        torch.testing.assert_close(made.student.state_dict()[key], value)


def test_who_they_are_their_balance_share_and_seed_make_other_students(searched):
    kinds = [
        started(searched),
        started(searched, count=2),
        started(searched, Combine(share=0, early=False)),
        started(searched, Combine(balance=False, share=0.25, early=False)),
        started(searched, seed=1),
    ]
    assert len({bits(finished(trial)[1])[1] for trial in kinds}) == len(kinds)
    assert bits(finished(started(searched))[1]) == bits(finished(started(searched))[1])


def test_half_trained_generators_are_members_like_the_others(searched):
    _, plain = finished(started(searched, Combine(early=False)))
    best, inputs, place, members, early = searched
    states = read_members(place, CombineConfig(members=members, early=early))
    alike = combined(best, [*members, *early], (), Combine())
    _, every = finished(Trial(alike, inputs, "cpu", states))
    _, made = finished(started(searched, Combine()))
    assert bits(made) == bits(every) != bits(plain)
    assert len(made.generator.members) == 6


@pytest.mark.parametrize("wanted", [PLAIN, Combine(early=False), Combine()])
def test_cut_anywhere_it_goes_on_with_the_same_bits(searched, wanted):
    trial, states = started(searched, wanted), []
    while not trial.done:
        states.append(state_bytes(trial.state_dict()))
        trial.step()
    whole = bits(trial.outcome)
    for data in states:
        torch.rand(3)
        again = started(searched, wanted)
        again.load_state_dict(read_state(data, "the state"))
        assert bits(finished(again)[1]) == whole


def test_a_file_that_is_missing_or_another_is_refused(searched, tmp_path):
    _, _, place, members, early = searched
    assert read_members(place, CombineConfig()) == []
    with pytest.raises(UserError, match=r"search-0000/generator\.safetensors is missing"):
        read_members(LocalPlace(tmp_path), CombineConfig(members=members))
    with pytest.raises(UserError, match=r"search-0000/early_generator\.safetensors is missing"):
        read_members(LocalPlace(tmp_path), CombineConfig(early=early))
    LocalPlace(tmp_path).at("search-0000").write(GENERATOR, b"other")
    with pytest.raises(UserError, match="is not the file that was combined"):
        read_members(LocalPlace(tmp_path), CombineConfig(members=members))


def test_the_half_trained_generator_is_that_of_half_as_many_steps(searched, tiny):
    _, inputs, place, _, early = searched
    (state,) = read_members(place, CombineConfig(early=early[:1]))
    short = run(tiny({"gan.lambda_e": 0, "gan.lambda_d": 5, "gan.steps": 6}), inputs)
    for key, value in short.generator.state_dict().items():
        assert torch.equal(state[key], value)


def test_alone_it_is_refused_with_where_to_ask_for_it(tiny, tmp_path):
    config = normalised(tiny({"method": "combined"}))
    checks.check(config)
    with pytest.raises(UserError, match="learns from the generators of a finished search"):
        run_here.run(config, tmp_path / "out", tmp_path)
