"""A repeat: a further student of a finished trial's generator, with another seed."""

import pytest
import torch

from degan_search.evaluation.networks import load_generator
from degan_search.search.remaining import repeat
from degan_search.settings.combine import member
from degan_search.settings.methods import normalised, trains_generator
from degan_search.settings.trial import ProbeConfig
from degan_search.storage import LocalPlace
from degan_search.system.errors import UserError
from degan_search.system.weights_file import tensors_bytes as bits
from degan_search.training.loop import progress_of
from degan_search.training.resumable import read_state, state_bytes
from degan_search.trial import checks, outcome
from degan_search.trial.members import read_members
from degan_search.trial.trial import Trial, run

pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture(scope="module")
def first(tiny, prepare, tmp_path_factory):
    """A finished trial: its configuration, inputs, outcome, the place of its files, and its generator's name."""
    folder = tmp_path_factory.mktemp("run") / "trials"
    config = tiny({"gan.lambda_e": 1, "gan.lambda_d": 5})
    inputs = prepare(config)
    made = run(config, inputs)
    outcome.save(made, folder / "search-0000")
    name = member("search-0000", (folder / "search-0000" / "generator.safetensors").read_bytes())
    return config, inputs, made, LocalPlace(folder), name


def again(first, number=1, **changes):
    config, inputs, _, place, name = first
    wanted = repeat(config, name, number).model_copy(update=changes)
    return Trial(wanted, inputs, "cpu", read_members(place, wanted.combine))


def finished(trial):
    events = list(progress_of(trial))
    return events, trial.outcome


def test_with_the_trials_own_seed_it_is_the_trials_own_student(first):
    events, made = finished(again(first, seed=first[0].seed))
    assert {event.stage for event in events} == {"distill", "done"}
    assert bits(made.student.state_dict()) == bits(first[2].student.state_dict())
    assert bits(made.generator.state_dict()) == bits(first[2].generator.state_dict())
    assert (made.metrics["score"], made.metrics["gan_steps"]) == (first[2].metrics["score"], 0)


def test_each_repeat_has_a_student_of_its_own_and_the_same_each_time(first):
    students = [bits(finished(again(first, number))[1].student.state_dict()) for number in (1, 1, 2)]
    assert students[0] == students[1] != students[2]
    assert students[0] != bits(first[2].student.state_dict())


def test_its_settings_are_the_trials(first):
    config, name = first[0], first[4]
    wanted = repeat(config, name, 1)
    assert wanted.combine.members == (name,) and wanted.seed != config.seed
    assert wanted.model_copy(
        update={"seed": config.seed, "combine": config.combine, "probe": config.probe}
    ) == normalised(config)
    assert wanted.probe == ProbeConfig()
    assert not trains_generator(wanted) and trains_generator(config)
    assert normalised(wanted) == wanted
    other = config.model_copy(update={"gan": config.gan.model_copy(update={"lambda_e": 2.0})})
    assert repeat(other, name, 1).seed == wanted.seed
    with pytest.raises(UserError, match=r"combine\.members: a sweep sets it itself"):
        checks.check_alone(wanted)


@pytest.mark.parametrize("cut", [0, 3])
def test_cut_after_any_step_it_goes_on_with_the_same_bits(first, cut):
    whole = finished(again(first))[1]
    trial = again(first)
    for _ in range(cut):
        trial.step()
    state = read_state(state_bytes(trial.state_dict()), "state")
    on = again(first)
    on.load_state_dict(state)
    assert bits(finished(on)[1].student.state_dict()) == bits(whole.student.state_dict())


def test_its_generator_is_read_as_the_trials(first, tmp_path):
    trial = again(first)
    outcome.save(finished(trial)[1], tmp_path / "trials" / "repeat-0000")
    z = torch.randn(5, first[0].gan.latent)
    with torch.no_grad():
        read = load_generator(tmp_path, "repeat-0000", trial.common.config)
        assert torch.equal(read(z), first[2].generator(z))
