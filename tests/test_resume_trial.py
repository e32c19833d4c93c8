"""A trial cut between two events goes on elsewhere with the same bits; its state's bytes are whole or refused."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from degan_search import pipeline
from degan_search.checkpoint import MAGIC, Parts, Values, read_state, snapshot, state_bytes
from degan_search.errors import UserError
from degan_search.methods import METHODS
from degan_search.trial import outcome as outcomes
from degan_search.trial.inputs import prepare

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
    monkeypatch.setattr(pipeline, "STATISTICS_IMAGES", 32)


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
    return event.stage, event.step, event.of, event.budget, metrics


def finish(trial):
    """Run a trial to its end; returns its events and what it leaves."""
    events = [plain(event) for event in trial]
    return events, outcomes.files(trial.outcome)


def states_of(config, inputs):
    """Run a trial that is asked for its state after each event; returns the states' bytes, too."""
    trial, events, states = pipeline.Trial(config, inputs), [], []
    for event in trial:
        events.append(plain(event))
        state = trial.state()
        states.append(None if state is None else state_bytes(state))
    return events, outcomes.files(trial.outcome), states


def resumed(config, inputs, data):
    torch.manual_seed(random.randrange(1000)), torch.rand(3)  # another process has another global generator
    return pipeline.Trial(config, inputs, state=read_state(data, "the state"))


def cuts_of(events, states):
    """Return where to cut: at the first event, in the middle and at the end of each stage, and anywhere."""
    can = [index for index, data in enumerate(states) if data is not None]
    stages = [[index for index in can if events[index][0] == stage] for stage in {events[index][0] for index in can}]
    anywhere = random.Random(str(events)).choice(can)
    return sorted({can[0], anywhere} | {own[at] for own in stages for at in (len(own) // 2, -1)})


@pytest.mark.parametrize("case", CASES)
def test_a_cut_trial_goes_on_with_the_same_bits(case, given):
    config, inputs = given(CASES[case])
    before = torch.get_rng_state()
    events, files, states = states_of(config, inputs)
    assert torch.equal(torch.get_rng_state(), before)
    assert [data is None for data in states] == [event[0].startswith(("probe", "done")) for event in events]
    for cut in cuts_of(events, states):
        assert finish(resumed(config, inputs, states[cut])) == (events[cut + 1 :], files), f"cut after {events[cut]}"


@pytest.mark.parametrize("case", ["everything", "zskd", "new, recalled", "patience"])
def test_a_trial_is_cut_again_and_again(case, given):
    config, inputs = given(CASES[case])
    events, files = finish(pipeline.Trial(config, inputs))  # that nobody asks for its state
    data, seen = None, []
    while True:  # each part has a few events, wherever a probe lets it end
        trial = resumed(config, inputs, data) if data else pipeline.Trial(config, inputs)
        steps = iter(trial)
        for count, event in enumerate(steps):
            seen.append(plain(event))
            if count >= 2 and (state := trial.state()):
                data = state_bytes(state)
                break
        else:
            break
        del trial, steps
    assert (seen, outcomes.files(trial.outcome)) == (events, files)


def test_a_state_is_the_same_however_often_it_is_taken_and_however_the_trial_goes_on(given):
    config, inputs = given(CASES["everything"])
    trial = pipeline.Trial(config, inputs)
    assert trial.state() is None
    steps = iter(trial)
    while next(steps).stage != "distill":
        pass
    state, again = trial.state(), trial.state()
    data = state_bytes({**state, "seconds": 0})
    assert state_bytes({**again, "seconds": 0}) == data
    for _ in steps:
        pass
    assert trial.state() is None
    assert state_bytes({**state, "seconds": 0}) == data


@pytest.mark.parametrize(("stage", "case"), [("gan", "everything"), ("zskd", "zskd"), ("incremental", "new proxy")])
def test_several_trials_go_on_from_one_state(stage, case, given):
    config, inputs = given(CASES[case])
    _, state = state_at(stage, config, inputs)
    data = state_bytes(state)
    first = finish(pipeline.Trial(config, inputs, state=state))
    assert state_bytes(state) == data  # whatever trains on it
    assert finish(pipeline.Trial(config, inputs, state=state)) == first


def state_at(stage, config, inputs):
    """Return the state of a new trial at the first event of a stage."""
    trial = pipeline.Trial(config, inputs)
    for event in trial:
        if event.stage == stage:
            return event, trial.state()
    raise AssertionError(stage)


def test_a_trial_whose_iterator_is_closed_has_no_state(given):
    # Its random numbers are gone.
    trial = pipeline.Trial(*given(RIVAL))
    for _ in trial:
        assert trial.state() is not None
        break
    assert trial.state() is None


def test_seconds_count_on(given):
    config, inputs = given()
    event, state = state_at("distill", config, inputs)
    assert state["seconds"] >= event.seconds > state["metrics"]["gan_seconds"] > 0
    state["seconds"] += 1000
    later = pipeline.Trial(config, inputs, state=state)
    seconds = [event.seconds for event in later]
    assert seconds == sorted(seconds)
    metrics = later.outcome.metrics
    assert metrics["gan_seconds"] == state["metrics"]["gan_seconds"]
    assert seconds[-1] >= metrics["seconds"] > seconds[0] > 1000
    assert metrics["distill_seconds"] > 1000


def test_once_the_gan_is_done_its_generator_alone_is_kept(given):
    config, inputs = given(RIVAL)
    trial, kept = pipeline.Trial(config, inputs), {}
    for event in trial:
        if state := trial.state():
            kept[event.stage] = (set(state["parts"]), set(state["parts"].get("gan", ())))
    networks = {"generator", "adam_g", "discriminator", "adam_d", "rival", "rival_optimiser"}
    assert kept["gan"] == ({"gan"}, networks | {"rng", "order", "noise", "now", "dropout"})
    assert kept["distill"] == ({"generator", "student"}, set())


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
        pipeline.Trial(*given(change), state=state)


def test_a_state_of_another_teacher_torch_or_device_is_refused(given):
    config, inputs = given()
    _, state = state_at("gan", config, inputs)
    other = dataclasses.replace(inputs, teacher=dataclasses.replace(inputs.teacher, hash="0123"))
    with pytest.raises(UserError, match=f"of teacher '{inputs.teacher.hash}', but now it is '0123'"):
        pipeline.Trial(config, other, state=state)
    for what in ("torch", "device", "precision"):
        with pytest.raises(UserError, match=f"of {what} 'abacus', but now"):
            pipeline.Trial(config, inputs, state=state | {what: "abacus"})
        with pytest.raises(UserError, match=f"of {what} None, but now"):
            pipeline.Trial(config, inputs, state={key: value for key, value in state.items() if key != what})


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


@pytest.mark.parametrize(("stage", "case"), [("gan", "everything"), ("distill", "everything"), ("zskd", "zskd")])
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


# Parts


def test_a_part_is_loaded_once_when_it_is_added():
    parts = Parts()
    values = parts.add("now", Values(step=3, tensor=torch.ones(2), none=None))
    rng = parts.stream("rng", torch.Generator().manual_seed(5))
    parts.add("inner", Parts()).add("layer", torch.nn.Linear(2, 2))
    values.step = 4
    torch.rand(3, generator=rng)
    state = snapshot(parts.state_dict())
    drawn = torch.rand(3, generator=rng)
    values.tensor.zero_()

    later = Parts(state)
    assert later.saved("now")
    back = later.add("now", Values(step=0, tensor=None, none=1))
    assert (back.step, back.tensor.tolist(), back.none) == (4, [1, 1], None)
    assert not later.saved("now")
    assert later.add("now", Values(step=7)).step == 7
    assert torch.equal(torch.rand(3, generator=later.stream("rng", torch.Generator())), drawn)
    layer = later.add("inner", Parts()).add("layer", torch.nn.Linear(2, 2))
    assert torch.equal(layer.weight, state["inner"]["layer"]["weight"])
    assert set(later.state_dict()) == {"now", "rng", "inner"}
    later.drop("rng")
    assert set(later.state_dict()) == {"now", "inner"}
