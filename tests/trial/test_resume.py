"""A trial cut after any step goes on elsewhere with the same bits."""

import dataclasses
import random

import pytest
import torch

from degan_search.system.errors import UserError
from degan_search.training.loop import progress_of
from degan_search.training.resumable import read_state, state_bytes
from degan_search.trial import outcome as outcomes
from degan_search.trial.trial import Trial
from tests.trial.cut_trials import CASES, RIVAL, state_at

pytestmark = pytest.mark.usefixtures("few_images")


def plain(event):
    """An event without the time that it took; the bits of its numbers."""
    metrics = {name: float(value).hex() for name, value in event.metrics.items() if not name.endswith("seconds")}
    return event.stage, event.step, event.of, event.gan_steps, metrics


def finish(trial):
    """Run a trial to its end; returns its events and what it leaves."""
    events = [plain(event) for event in progress_of(trial)]
    return events, outcomes.files(trial.outcome)


def states_of(config, inputs):
    """Run a trial that is asked for its state after each step; returns its events, what it leaves, and its states.

    A state has with it how many events there were, the stage if the step had one, and its bytes.
    """
    trial, events, states = Trial(config, inputs), [], []
    states.append((0, "before the first step", state_bytes(trial.state_dict())))
    while not trial.done:
        if (event := trial.step()) is not None:
            events.append(plain(event))
        states.append((len(events), event.stage if event else "between events", state_bytes(trial.state_dict())))
    return events, outcomes.files(trial.outcome), states


def resumed(config, inputs, data):
    torch.manual_seed(random.randrange(1000)), torch.rand(3)  # another process has another global generator
    inputs.on("cpu").first_scores.clear()  # and has probed no proxy
    trial = Trial(config, inputs)
    trial.load_state_dict(read_state(data, "the state"))
    return trial


def cuts_of(states):
    """Return where to cut: at the start and the end, in the middle and at the end of each stage's events, anywhere."""
    kinds = {what: [at for at, (_, other, _) in enumerate(states) if other == what] for _, what, _ in states}
    anywhere = random.Random(str(kinds)).sample(range(len(states)), 3)
    return sorted({0, *anywhere} | {own[at] for own in kinds.values() for at in (len(own) // 2, -1)})


@pytest.mark.parametrize("case", CASES)
def test_a_cut_trial_goes_on_with_the_same_bits(case, given):
    config, inputs = given(CASES[case])
    before = torch.get_rng_state()
    events, files, states = states_of(config, inputs)
    assert torch.equal(torch.get_rng_state(), before)
    for cut in cuts_of(states):
        seen, what, data = states[cut]
        left = events[seen:] or events[-1:]  # a trial that was done ends once more
        assert finish(resumed(config, inputs, data)) == (left, files), f"cut after step {cut}, {what}"


@pytest.mark.parametrize("case", ["everything", "zskd", "new, recalled", "patience"])
def test_a_trial_is_cut_again_and_again(case, given):
    config, inputs = given(CASES[case])
    events, files = finish(Trial(config, inputs))  # that nobody asks for its state
    trial, seen = Trial(config, inputs), []
    while True:  # each process does a few steps, probes' among them
        for _ in range(5):
            if not trial.done and (event := trial.step()) is not None:
                seen.append(plain(event))
        if trial.done:
            break
        trial = resumed(config, inputs, state_bytes(trial.state_dict()))
    assert (seen, outcomes.files(trial.outcome)) == (events, files)


def test_a_state_is_the_same_however_often_it_is_taken_and_however_the_trial_goes_on(given):
    config, inputs = given(CASES["everything"])
    trial = Trial(config, inputs)
    while (event := trial.step()) is None or event.stage != "distill":
        pass
    state, again = trial.state_dict(), trial.state_dict()
    data = state_bytes({**state, "seconds": 0})
    assert state_bytes({**again, "seconds": 0}) == data
    list(progress_of(trial))
    assert state_bytes({**state, "seconds": 0}) == data


@pytest.mark.parametrize(("stage", "case"), [("gan", "everything"), ("zskd", "zskd"), ("incremental", "new proxy")])
def test_several_trials_go_on_from_one_state(stage, case, given):
    config, inputs = given(CASES[case])
    _, state = state_at(stage, config, inputs)
    data = state_bytes(state)
    first = finish(gone_on(config, inputs, state))
    assert state_bytes(state) == data  # whatever trains on it
    assert finish(gone_on(config, inputs, state)) == first


def gone_on(config, inputs, state):
    """Return a new trial that goes on from a state."""
    trial = Trial(config, inputs)
    trial.load_state_dict(state)
    return trial


def test_a_trial_that_nobody_runs_on_keeps_its_state(given):
    config, inputs = given(RIVAL)
    trial = Trial(config, inputs)
    for _ in progress_of(trial):
        state = trial.state_dict()
        break
    assert state_bytes(trial.state_dict() | {"seconds": 0}) == state_bytes(state | {"seconds": 0})
    assert finish(gone_on(config, inputs, state)) == finish(trial)


def test_a_trial_that_has_run_goes_back_to_a_state(given):
    config, inputs = given(CASES["everything"])
    _, state = state_at("probe at 5", config, inputs)
    trial = Trial(config, inputs)
    whole = finish(trial)
    trial.load_state_dict(state)
    events, files = finish(trial)
    assert (events, files) == (whole[0][-len(events) :], whole[1])


def test_seconds_count_on(given):
    config, inputs = given()
    event, state = state_at("distill", config, inputs)
    assert state["seconds"] >= event.seconds > state["metrics"]["gan_seconds"] > 0
    state["seconds"] += 1000
    later = gone_on(config, inputs, state)
    seconds = [event.seconds for event in progress_of(later)]
    assert seconds == sorted(seconds)
    metrics = later.outcome.metrics
    assert metrics["gan_seconds"] == state["metrics"]["gan_seconds"]
    assert seconds[-1] >= metrics["seconds"] > seconds[0] > 1000
    assert metrics["distill_seconds"] > 1000


def test_once_the_gan_is_done_its_generator_alone_is_kept(given):
    config, inputs = given(RIVAL)
    trial, kept = Trial(config, inputs), {}
    for event in progress_of(trial):
        kept[event.stage] = trial.state_dict()
    networks = {"generator", "adam_g", "discriminator", "adam_d", "rival", "rival_optimiser"}
    own = {"gan", "order", "steps_done", "order_rng", "noise_rng", "dropout_rng", "instance_rng"}
    assert kept["gan"]["made"]["generator"] is None
    assert (set(kept["gan"]["stage"]["training"]), set(kept["gan"]["stage"]["training"]["gan"])) == (own, networks)
    assert kept["distill"]["made"]["generator"].keys() == trial.outcome.generator.state_dict().keys()
    assert set(kept["distill"]["stage"]) == {"fitting", "batches", "images_rng", "score_rng", "dropout_rng"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "of config '[0-9a-f]{16}', but now it is '[0-9a-f]{16}'; start the trial anew"),
        ({"method": "dcgan"}, "of config"),
        ({"distill.temperature": 3}, "of config"),
    ],
)
def test_a_state_of_another_configuration_is_refused(change, said, given):
    _, state = state_at("gan", *given())
    with pytest.raises(UserError, match=said):
        gone_on(*given(change), state)


def test_a_state_of_another_teacher_torch_or_device_is_refused(given):
    config, inputs = given()
    _, state = state_at("gan", config, inputs)
    other = dataclasses.replace(inputs, teacher=dataclasses.replace(inputs.teacher, hash="0123"))
    with pytest.raises(UserError, match=f"of teacher '{inputs.teacher.hash}', but now it is '0123'"):
        gone_on(config, other, state)
    about = state["about"]
    for what in ("torch", "device", "precision"):
        with pytest.raises(UserError, match=f"of {what} 'abacus', but now"):
            gone_on(config, inputs, state | {"about": about | {what: "abacus"}})
        with pytest.raises(UserError, match=f"of {what} None, but now"):
            gone_on(config, inputs, state | {"about": {key: value for key, value in about.items() if key != what}})
