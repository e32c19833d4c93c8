"""A whole trial: every method, the same bits again, its events, and how it fails."""

import dataclasses
import math
import random
from typing import get_args

import numpy as np
import pytest
import torch
from same_bits import bits
from torch import nn

from degan_search.settings.goals import OF_STUDENT
from degan_search.settings.methods import METHODS, normalised
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig
from degan_search.stages import gan
from degan_search.stages.true_images import check_images
from degan_search.system.weights_file import read_tensors, tensors_bytes
from degan_search.training.loop import DivergedError, progress_of
from degan_search.training.measures import accuracy, predict
from degan_search.trial.trial import Trial
from degan_search.trial.trial import run as run_trial
from tests.trial.tiny_trials import DISTILL_STEPS, DISTILLING, DROPOUT, GAN_STEPS, MOSAIC_STEPS

OBJECTIVES = get_args(TrialConfig.model_fields["objective"].annotation)


# Contract over the methods


@pytest.mark.parametrize("method", DISTILLING)
def test_every_method_runs_and_says_what_it_did(method, run, true):
    outcome = run(method=method)
    metrics, source = outcome.metrics, METHODS[method].source
    from_generator, made, joint = METHODS[method].generates, source == "zskd", source == "mosaic"
    assert metrics["score"] == metrics["balanced_soft_agreement"]
    assert 0 <= metrics["score"] <= 1
    assert metrics["gan_steps"] == (GAN_STEPS if from_generator else MOSAIC_STEPS if joint else 0)
    assert metrics["distill_steps"] == DISTILL_STEPS
    assert metrics["seconds"] >= metrics["distill_seconds"] > 0
    assert ("gan_seconds" in metrics) == (from_generator or made)
    assert ("d_loss" in metrics) == ("coverage" in metrics) == (from_generator or joint)
    assert predict(outcome.student, torch.from_numpy(true.images[:3])).shape == (3, 10)
    assert not any(module.training for module in outcome.student.modules())
    assert (outcome.samples is not None) == (from_generator or made or joint)
    assert (outcome.generator is not None) == (from_generator or joint)
    if outcome.samples is not None:
        assert outcome.samples.shape == (64, 1, 32, 32)
        assert outcome.samples.dtype == torch.uint8
    if outcome.generator is not None:
        assert not outcome.generator.training


@pytest.mark.parametrize("method", DISTILLING)
def test_weights_count_only_where_the_method_uses_them(method, tiny):
    configs = [
        normalised(tiny({"method": method, "gan.lambda_e": lambda_e, "gan.lambda_d": lambda_d}))
        for lambda_e, lambda_d in ((0, 0), (0, 5), (1, 5))
    ]
    hashes = {stable_hash(config) for config in configs}
    if METHODS[method].tuned:
        assert len(hashes) == 3
    else:
        assert len(hashes) == 1
        assert all((config.gan.lambda_e, config.gan.lambda_d) == (0, 0) for config in configs)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_score_is_the_objective(objective, run, true, tiny):
    outcome = run({"teacher.check": "glyphs/[0-9]"}, objective=objective, method="proxy")
    if objective == "check_accuracy":
        few = check_images(tiny({"teacher.check": "glyphs/[0-9]"}).teacher, None, true.classes)
        expected = accuracy(predict(outcome.student, torch.from_numpy(few.images)), torch.from_numpy(few.labels))
    elif objective == "oracle_accuracy":
        images, labels = (torch.from_numpy(part[true.held_out]) for part in (true.images, true.labels))
        expected = accuracy(predict(outcome.student, images), labels)
    else:
        expected = outcome.metrics[objective]
    assert outcome.metrics["score"] == expected


def test_methods_differ_in_what_the_student_sees(run):
    students = {bits(run(method=method))[1] for method in ("degan", "dcgan", "proxy", "proxy_matched", "true")}
    assert len(students) == 5


def test_dcgan_is_degan_with_both_weights_0(run):
    plain = run({"gan.lambda_e": 0, "gan.lambda_d": 0})
    assert bits(run({"gan.lambda_e": 3, "gan.lambda_d": 4, "method": "dcgan"})) == bits(plain)
    assert math.isnan(plain.metrics["diversity"])


# The same bits again


def test_the_same_trial_gives_the_same_bits_whatever_came_before(run):
    first = bits(run(DROPOUT))
    torch.manual_seed(123)
    torch.rand(7), np.random.rand(3), random.random()  # noqa: NPY002
    before = torch.get_rng_state()
    run({"method": "dcgan", "seed": 5} | DROPOUT)
    assert bits(run(DROPOUT)) == first
    assert torch.equal(torch.get_rng_state(), before)  # and the global generator is left alone


def test_reports_and_what_they_do_change_nothing(run):
    first, done = bits(run(DROPOUT)), []

    def report(event):
        if event.step in (4, 5):
            done.append(run(seed=9, probe={"at": (2,)}))

    assert bits(run(DROPOUT, report)) == first
    assert len(done) == 3  # two beside the GAN, one beside the student


def test_a_rung_before_the_first_step_scores_the_proxy_images(run):
    events, without = [], run(DROPOUT)
    assert bits(run(DROPOUT, events.append, probe={"at": (0, 3)})) == bits(without)
    rungs = [event for event in events if event.stage == "gan" and "score" in event.metrics]
    assert [(event.step, event.gan_steps) for event in rungs] == [(0, 0), (3, 3)]
    assert set(rungs[0].metrics) == {"score", *OF_STUDENT}
    assert {event.stage for event in events[: events.index(rungs[0])]} == {"probe at 0"}


def test_a_proxy_is_probed_once_whatever_the_weights(tiny, prepare):
    def rung(inputs, changes, **more):
        events = []
        outcome = run_trial(tiny({"probe.at": (0,)}, changes, more), inputs, events.append)
        probed = any(event.stage == "probe at 0" for event in events)
        return probed, next(event for event in events if event.stage == "gan").metrics["score"], bits(outcome)

    inputs = prepare(tiny())
    first, again, fresh = (rung(own, {"gan.lambda_e": 3}) for own in (inputs, inputs, dataclasses.replace(inputs)))
    assert [first[0], again[0], fresh[0]] == [True, False, True]
    assert first[1:] == again[1:] == fresh[1:]
    others = [{"gan.lambda_e": 1}, {"method": "dcgan"}, {"seed": 5}, {"probe.steps": 9}, {"student.width": 4}]
    assert [rung(inputs, changes)[0] for changes in others] == [False, False, True, True, True]


def test_rungs_change_nothing(run):
    without, events = run(DROPOUT), []
    probed = run(DROPOUT, report=events.append, probe={"at": (3, 6)})
    assert any(event.stage == "probe at 3" for event in events)
    assert bits(probed) == bits(without)


def test_a_stopped_trial_leaves_the_next_one_as_it_is(tiny, prepare, run):
    config = tiny(DROPOUT)
    first = bits(run(DROPOUT))
    before = torch.get_rng_state()
    for stage in ("gan", "distill"):
        events = progress_of(Trial(config, prepare(config)))
        while next(events).stage != stage:
            pass
        del events
        assert torch.equal(torch.get_rng_state(), before)
        assert bits(run(DROPOUT)) == first


@pytest.mark.parametrize("change", [{"seed": 1}, {"gan.lambda_d": 4}, {"gan.steps": 11}, {"distill.temperature": 5}])
def test_other_settings_give_another_student(change, run):
    assert bits(run(change))[1] != bits(run())[1]


# Events


def test_scores_come_at_each_rung_and_at_the_end(run):
    events = []
    outcome = run(report=events.append, probe={"at": (3, 6, GAN_STEPS)})
    scored = [(event.stage, event.step, event.gan_steps) for event in events if "score" in event.metrics]
    assert scored == [("gan", 3, 3), ("gan", 6, 6), ("gan", 12, 12), ("done", 1, 12)]
    assert all(0 <= event.metrics["score"] <= 1 for event in events if "score" in event.metrics)
    assert events[-1].metrics == outcome.metrics
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["gan", "probe at 3", "probe at 6", "probe at 12", "distill", "done"]
    assert [event.step for event in events if event.stage == "gan"] == list(range(1, GAN_STEPS + 1))
    assert [event.seconds for event in events] == sorted(event.seconds for event in events)
    assert [event.gan_steps for event in events] == sorted(event.gan_steps for event in events)
    probes = [event.step for event in events if event.stage == "probe at 3"]
    assert probes[-1] == 4


def test_without_rungs_the_only_score_is_the_last(run):
    for method in DISTILLING:
        events = []
        run(report=events.append, method=method)
        assert [event.stage for event in events if "score" in event.metrics] == ["done"]


# Failures


def test_a_collapsed_generator_ends_the_trial(run, monkeypatch):
    build = gan.build

    def collapsed(*arguments):
        networks = build(*arguments)
        nn.init.zeros_(networks.generator[-2].weight)
        return networks

    run()  # the bank is there already
    monkeypatch.setattr(gan, "build", collapsed)
    with pytest.raises(DivergedError, match="gan: the generator makes one image only"):
        run()


@pytest.mark.parametrize(("method", "stage"), [("degan", "gan"), ("dcgan", "distill"), ("proxy", "distill")])
def test_a_loss_that_is_not_finite_ends_the_trial(method, stage, tiny, prepare):
    config = tiny({"method": method})
    inputs = prepare(config)
    state = read_tensors(inputs.teacher.data, "teacher")
    state["11.weight"] = state["11.weight"].sign() * 3e38  # finite, as it must be; its outputs are not
    broken = dataclasses.replace(inputs, teacher=dataclasses.replace(inputs.teacher, data=tensors_bytes(state)))
    with pytest.raises(DivergedError, match=f"{stage}: loss is n"):
        run_trial(config, broken)


def test_the_tiny_teacher_and_generator_are_worth_learning_from(teacher, run):
    # So that what the other tests compare is not one class for every image.
    assert teacher.holdout_accuracy > 0.5
    assert run().samples.float().std(0).mean() > 1  # nor one image
