"""Trials that take turns step by step: each has the bits that it has alone, whoever else runs, ends or breaks."""

import math

import pytest
import torch

from degan_search.stages import gan_training
from degan_search.training.loop import DivergedError, progress_of
from degan_search.training.turns import Turns, side_by_side_on_gpu
from degan_search.trial import gan_stage
from degan_search.trial.trial import Trial

SHORT = {"gan.lr": 1e-3, "gan.steps": 16, "probe.at": [3, 8], "distill.lr": 3e-3}
DROPOUT = {"student": {"network": "alexnet_half", "width": 4}}
KINDS = {
    "degan": {},
    "rival with dropout": DROPOUT | {"gan.lambda_s": 1.0, "gan.steps": 6, "probe.at": [3]},
    "student with dropout": DROPOUT | {"distill.steps": 12},
    "proxy mixed in": {"distill.mix_proxy": 0.5},
    "sgd, augmented": {"distill.profile": "sgd_augmented", "distill.lr": 0.01},
    "images": {"method": "proxy"},
    "zskd": {"method": "zskd"},
    "new classes": {"task": "incremental", "proxy": "digits/[5-9]", "teacher.dataset": "digits/[0-4]", "probe.at": []}
    | {"count": 100, "teacher.count": 300},
}


@pytest.fixture(scope="module", autouse=True)
def few_images():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan_stage, "STATISTICS_IMAGES", 32)
        yield


def comparable(events):
    """The events without their times."""
    return [
        (event.stage, event.step, event.of, event.gan_steps, repr(measured(event.metrics)))  # by repr NaN equals NaN
        for event in events
    ]


def measured(metrics):
    return {name: value for name, value in metrics.items() if not name.endswith("seconds")}


def assert_same_outcome(ours, theirs):
    for one, other in ((ours.student, theirs.student), (ours.generator, theirs.generator)):
        assert (one is None) == (other is None)
        if one is not None:
            assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert (ours.samples is None) == (theirs.samples is None)
    assert ours.samples is None or torch.equal(ours.samples, theirs.samples)


def alone(config, inputs):
    trial = Trial(config, inputs)
    return list(progress_of(trial)), trial


def together(trials, drop=lambda member, event: False):
    """Run trials side by side; returns each one's events."""
    turns = Turns(dict(enumerate(trials)))
    events = [[] for _ in trials]
    while not turns.done:
        for member, event in turns.step().items():
            events[member].append(event)
            if drop(member, event):
                turns.drop(member)
    return events, turns


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_beside_others_has_the_bits_of_itself_alone(kind, tiny, prepare):
    configs = [
        tiny(SHORT, KINDS[kind], {"seed": seed, "gan.lambda_e": weight}) for seed, weight in ((3, 0.5), (1, 2.0))
    ]
    other = tiny(SHORT, DROPOUT, {"seed": 9})  # draws noise between the others' steps
    inputs = [prepare(config) for config in (*configs, other)]
    before = torch.get_rng_state()
    trials = [Trial(config, given) for config, given in zip((*configs, other), inputs, strict=True)]
    events, turns = together(trials)
    assert not turns.failed
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)  # what alone draws from no global generator either
    expected = [alone(config, given) for config, given in zip(configs, inputs, strict=False)]
    assert comparable(expected[0][0]) != comparable(expected[1][0])  # so that a mix-up would show
    for member, (own, trial) in enumerate(expected):
        assert comparable(events[member]) == comparable(own)
        assert_same_outcome(trials[member].outcome, trial.outcome)


def configs_and_inputs(tiny, prepare, **changes):
    configs = [tiny(SHORT, {"seed": seed}, changes) for seed in (3, 1, 2)]
    return configs, prepare(configs[0])


def test_one_that_is_dropped_leaves_the_others_as_they_are(tiny, prepare):
    configs, inputs = configs_and_inputs(tiny, prepare)
    trials = [Trial(config, inputs) for config in configs]
    events, turns = together(trials, lambda member, event: member == 1 and math.isfinite(event.metrics.get("score", 0)))
    assert turns.done
    assert events[1][-1].stage != "done"
    for member in (0, 2):
        own, trial = alone(configs[member], inputs)
        assert comparable(events[member]) == comparable(own)
        assert_same_outcome(trials[member].outcome, trial.outcome)


def test_one_that_diverges_is_named_and_the_others_go_on(tiny, prepare, monkeypatch):
    configs, inputs = configs_and_inputs(tiny, prepare)
    plain, calls = gan_training.check, []

    def check(progress, adversarial=True):
        calls.append(progress)
        if len(calls) == 5:
            raise DivergedError("gan: the generator makes one image only")
        plain(progress, adversarial)

    with monkeypatch.context() as patch:
        patch.setattr(gan_training, "check", check)
        events, turns = together([Trial(config, inputs) for config in configs])
    assert list(turns.failed) == [1]  # the fifth check of three that take turns
    assert "one image" in str(turns.failed[1])
    for member in (0, 2):
        assert comparable(events[member]) == comparable(alone(configs[member], inputs)[0])


def test_all_that_are_dropped_are_an_end(tiny, prepare):
    configs, inputs = configs_and_inputs(tiny, prepare)
    events, _ = together([Trial(config, inputs) for config in configs], lambda member, event: True)
    assert [len(own) for own in events] == [1, 1, 1]


class Steps:
    """Reports what it is given, a step each, and notes when."""

    def __init__(self, *reports, order=None, name=""):
        self.left, self.order, self.name, self.count = list(reports), [] if order is None else order, name, 0

    @property
    def done(self):
        return not self.left

    def step(self):
        self.order.append(f"{self.name}{self.count}")
        self.count += 1
        report = self.left.pop(0)
        if isinstance(report, Exception):
            raise report
        return report


def test_a_trial_can_be_cut_whatever_others_report(tiny, prepare):
    configs, inputs = configs_and_inputs(tiny, prepare, **{"probe.at": [], "gan.steps": 120})
    trials = [Trial(config, inputs) for config in configs[:2]]
    turns = Turns({0: trials[0], 1: Steps(None, None, None, "other", *[None] * 500)})
    states, waiting = [], []
    while not turns.done:
        reports = turns.step()
        if reports.get(1) == "other":
            waiting.append(trials[0].state_dict())
        if 0 in reports and reports[0].stage in ("gan", "distill") and reports[0].step % 4 == 0:
            states.append(trials[0].state_dict())
    assert len(waiting) == 1
    expected, whole = alone(configs[0], inputs)
    for state in (waiting[0], states[0], states[len(states) // 2], states[-1]):
        rest = Trial(configs[0], inputs)
        rest.load_state_dict(state)
        events = list(progress_of(rest))
        assert comparable(events) == comparable(expected[-len(events) :])
        assert_same_outcome(rest.outcome, whole.outcome)


def test_a_trial_between_two_events_goes_on_with_the_same_bits(tiny, prepare):
    config = tiny(SHORT, {"gan.steps": 120})
    inputs = prepare(config)
    trial, expected, states, steps = Trial(config, inputs), [], [], 0
    while not trial.done:
        event = trial.step()
        steps += 1
        if event is not None:
            expected.append(event)
        elif steps % 30 == 1:
            states.append((len(expected), trial.state_dict()))
    assert expected
    assert len(states) >= 3
    for seen, state in states:
        rest = Trial(config, inputs)
        rest.load_state_dict(state)
        assert comparable(progress_of(rest)) == comparable(expected[seen:])
        assert_same_outcome(rest.outcome, trial.outcome)


def test_turns_are_taken_step_by_step():
    order = []
    a, b = Steps(None, "a1", None, "a3", order=order, name="a"), Steps(None, "b1", order=order, name="b")
    turns = Turns({0: a, 1: b})
    assert [turns.step() for _ in range(4)] == [{}, {0: "a1", 1: "b1"}, {}, {0: "a3"}]
    assert order == ["a0", "b0", "a1", "b1", "a2", "a3"]
    assert turns.done
    assert turns.step() == {}


def test_other_errors_are_not_kept_from_whoever_runs_them():
    turns = Turns({0: Steps(None, ValueError("broken"))})
    turns.step()
    with pytest.raises(ValueError, match="broken"):
        turns.step()


@pytest.mark.parametrize(("batch", "count"), [(2, 8), (123, 8), (205, 4), (819, 1), (1843, 1), (4096, 1)])
def test_as_many_as_keep_a_gpu_busy(batch, count):
    assert side_by_side_on_gpu(batch) == count
