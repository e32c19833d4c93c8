"""A trial cut after any step goes on elsewhere with the same bits; its state's bytes are whole or refused."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from degan_search.settings.methods import METHODS
from degan_search.system.errors import UserError
from degan_search.training.loop import progress_of
from degan_search.training.resumable import MAGIC, read_state, state_bytes
from degan_search.trial import gan_stage
from degan_search.trial import outcome as outcomes
from degan_search.trial.inputs import prepare
from degan_search.trial.trial import Trial

FITTING = {"steps": 12, "steps_per_epoch": 3}  # four events, the last of which in the second phase
SHORT = {"distill": FITTING, "distill_images": FITTING, "incremental": FITTING, "gan.steps": 6}
NEW = {"task": "incremental", "teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]"}
SGD = {"distill.profile": "sgd_augmented", "distill.lr": 0.01, "distill.milestones": [0.3, 0.6]}
RIVAL = {"gan.lambda_s": 3, "student.network": "alexnet_half"}  # with dropout, in the GAN's training, too
MIXED = {"distill.mix_proxy": 0.25}
POOL = {"distill.pool": 16, "distill.pool_refresh": 0.5}  # two batches, four times
PROBED = {"probe.at": [2, 5, 6]}
NORMED = {"teacher": {"network": "alexnet", "width": 2, "fit.steps": 10, "count": 100}, "bank.generators": []}
CASES = {
    **{name: {"method": name} for name, method in METHODS.items() if method.distils},
    **{f"new {name}": NEW | {"method": name} for name, method in METHODS.items() if method.rule},
    "everything": SGD | RIVAL | MIXED | POOL | PROBED | {"method": "extended", "gan.lambda_e": 1},
    "pool": POOL,
    "rungs": PROBED | RIVAL,
    "one image in a batch": {"distill.batch_size": 1, "distill.mix_proxy": 0.5, "distill.pool": 3},
    "patience": {"distill": {"steps": None, "steps_per_epoch": 2, "patience": 2, "epochs": 4}},
    "images, augmented": {"method": "proxy", "distill_images.profile": "sgd_augmented", "distill_images.lr": 0.01},
    "statistics": NORMED | {"gan.lambda_bn": 5},
    "new, recalled": NEW | MIXED | POOL | {"gan.lambda_s": 3},
    "new, adam": NEW | {"method": "lwf_mc", "incremental.optimiser": "adam", "incremental.augment": False},
    "new, aligned": NEW | {"method": "proxy", "incremental.scaling": "aligned"},
    "new, dropout": NEW | NORMED | {"teacher.dataset": "digits/[0-4]", "method": "degan"},
    "zskd in one batch": {"method": "zskd", "zskd.batch_size": 90, "zskd.iterations": 6},
}


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Describe the generator on fewer images than it would be, which takes a third of the time here."""
    monkeypatch.setattr(gan_stage, "STATISTICS_IMAGES", 32)


@pytest.fixture(scope="session")
def given(tiny, store):
    """The configuration and the inputs of a short trial."""

    def made(*changes):
        config = tiny(SHORT, *changes)
        return config, prepare(config, None, store)

    return made


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


def state_at(stage, config, inputs):
    """Return the state of a new trial at the first event of a stage."""
    trial = Trial(config, inputs)
    for event in progress_of(trial):
        if event.stage == stage:
            return event, trial.state_dict()
    raise AssertionError(stage)


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
    own = {"gan", "order", "steps_done", "order_rng", "noise_rng", "dropout_rng"}
    assert kept["gan"]["generator"] is None
    assert (set(kept["gan"]["stage"]["training"]), set(kept["gan"]["stage"]["training"]["gan"])) == (own, networks)
    assert kept["distill"]["generator"].keys() == trial.outcome.generator.state_dict().keys()
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


# Bytes


def leaves(state):
    if isinstance(state, dict):
        assert type(state) is dict
        for key, value in state.items():
            assert isinstance(key, (str, int))
            yield from leaves(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from leaves(value)
    else:
        yield state


@pytest.mark.parametrize(
    ("stage", "case"),
    [("gan", "everything"), ("probe at 2", "everything"), ("distill", "everything"), ("zskd", "zskd")],
)
def test_a_state_is_of_plain_things_and_no_larger_than_they_are(stage, case, given):
    _, state = state_at(stage, *given(CASES[case]))
    found = list(leaves(state))
    assert {type(leaf) for leaf in found} <= {torch.Tensor, int, float, bool, str, type(None)}
    tensors = [leaf for leaf in found if isinstance(leaf, torch.Tensor)]
    assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in tensors)
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    assert held == sum(tensor.nbytes for tensor in tensors)  # no slice that keeps the whole
    assert len(state_bytes(state)) < held + 1000 * len(found)


def test_states_come_back_as_they_were():
    strided = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {"a": {0: [strided, None], "b": (1, 2.5, True)}, "c": "text", "nan": float("nan")}
    back = read_state(state_bytes(state), "it")
    assert list(back) == list(state)
    assert torch.equal(back["a"][0][0], strided)
    assert back["a"][0][0].stride() == strided.stride()
    assert (back["a"][0][1], back["a"]["b"], back["c"]) == (None, (1, 2.5, True), "text")
    assert np.isnan(back["nan"])


@pytest.fixture(scope="module")
def data(given):
    return state_bytes(state_at("distill", *given())[1])


def test_a_cut_file_is_refused(data):
    for length in [*range(0, len(data), -(-len(data) // 50)), len(MAGIC), len(MAGIC) + 32, len(data) - 1]:
        with pytest.raises(UserError, match=r"^runs/x/state is not "):
            read_state(data[:length], "runs/x/state")
    with pytest.raises(UserError, match="is not whole"):
        read_state(data + b"more", "it")


def test_a_flipped_bit_is_refused(data):
    rng = random.Random(0)
    places = [rng.randrange(8 * len(data)) for _ in range(150)] + [rng.randrange(8 * 100) for _ in range(50)]
    for place in places:
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(UserError, match=r"^it is not "):
            read_state(bytes(flipped), "it")


class Code:
    """Pickled, it prints when it is read."""

    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [[1, 2], "text", {"parts": Code()}])
def test_a_sealed_file_of_something_else_is_refused_and_no_code_is_run(content, capsys):
    with pytest.raises(UserError, match="it does not hold a trial's state"):
        read_state(state_bytes(content), "it")
    assert capsys.readouterr().out == ""
