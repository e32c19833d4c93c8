"""A whole trial: every method, the same bits again, its events, the bank, what it saves, and no Ray."""

import dataclasses
import gc
import json
import math
import random
import subprocess
import sys
import weakref
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from degan_search import bank as banks
from degan_search import degan, foreground, pipeline, runtime
from degan_search import teacher as teachers
from degan_search.checkpoint import read_tensors, tensors_bytes
from degan_search.config import TrialConfig, stable_hash
from degan_search.data import proxies
from degan_search.errors import UserError
from degan_search.fit import DivergedError, progress_of
from degan_search.methods import METHODS, normalised
from degan_search.metrics import accuracy, agreement, class_certainty, infomax, predict, soft_neighbourhood_density
from degan_search.networks.table import build_classifier
from degan_search.sources import AugmentedSource, GeneratorSource, ImageSource, MixedSource
from degan_search.trial import gan_stage, student_stage
from degan_search.trial.trial import Trial
from degan_search.trial.trial import run as run_trial

GAN_STEPS, DISTILL_STEPS = 12, 8
DISTILLING = [name for name, method in METHODS.items() if method.distils]
OBJECTIVES = get_args(TrialConfig.model_fields["objective"].annotation)
DROPOUT = {"student.network": "alexnet_half"}  # a student whose training needs torch's global generator


def bits(outcome):
    """All that a trial ends with, but for the time that it took."""
    metrics = {name: value for name, value in outcome.metrics.items() if not name.endswith("seconds")}
    tensors = {f"student.{name}": value for name, value in outcome.student.state_dict().items()}
    if outcome.generator is not None:
        tensors |= {f"generator.{name}": value for name, value in outcome.generator.state_dict().items()}
        tensors["samples"] = outcome.samples
    return repr(sorted(metrics.items())), tensors_bytes(tensors)


@pytest.fixture(scope="module")
def run(tiny, prepare):
    """Run a tiny trial with some changes."""

    def run_(changes=None, report=None, **more):
        config = tiny(changes or {}, more)
        return run_trial(config, prepare(config), report)

    return run_


# Contract over the methods


@pytest.mark.parametrize("method", DISTILLING)
def test_every_method_runs_and_says_what_it_did(method, run, true):
    outcome = run(method=method)
    metrics, from_generator, made = outcome.metrics, METHODS[method].generates, METHODS[method].source == "zskd"
    assert metrics["score"] == metrics["balanced_soft_agreement"]
    assert 0 <= metrics["score"] <= 1
    assert metrics["gan_steps"] == (GAN_STEPS if from_generator else 0)
    assert metrics["distill_steps"] == DISTILL_STEPS
    assert metrics["seconds"] >= metrics["distill_seconds"] > 0
    assert ("gan_seconds" in metrics) == (from_generator or made)
    assert ("d_loss" in metrics) == ("coverage" in metrics) == from_generator
    assert predict(outcome.student, torch.from_numpy(true.images[:3])).shape == (3, 10)
    assert not any(module.training for module in outcome.student.modules())
    assert (outcome.samples is not None) == (from_generator or made)
    assert (outcome.generator is not None) == from_generator
    if from_generator or made:
        assert outcome.samples.shape == (64, 1, 32, 32)
        assert outcome.samples.dtype == torch.uint8
    if from_generator:
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


@pytest.mark.parametrize("method", DISTILLING)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_oracle_gets_labels_and_only_true_methods_true_images(method, objective, tiny, prepare, true):
    config = tiny({"method": method, "objective": objective})
    pipeline.check(config)
    inputs = prepare(config)
    assert (inputs.oracle is not None) == (objective == "oracle_accuracy")
    uses_true = METHODS[method].source in ("true", "few_true")
    assert (inputs.true_labels is not None) == (METHODS[method].source == "few_true")
    assert (inputs.true_train is not None) == (inputs.true_held_out is not None) == uses_true
    if uses_true:
        assert np.array_equal(inputs.true_train, true.images[true.train])
        assert np.array_equal(inputs.true_held_out, true.images[true.held_out])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_score_is_the_objective(objective, run, true):
    outcome = run(objective=objective, method="proxy")
    if objective == "oracle_accuracy":
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


# Few true images, and settings that are not the paper's


def test_few_true_images_are_of_each_class_and_drawn_by_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), (9, 5, 7, 3)))
    draws = [pipeline.few_of_each(labels, 3, seed) for seed in range(20)]
    for drawn in draws:
        assert len(set(drawn.tolist())) == 12
        assert np.bincount(labels[drawn]).tolist() == [3, 3, 3, 3]
    assert len({tuple(sorted(drawn)) for drawn in draws}) > 15
    assert np.array_equal(draws[4], pipeline.few_of_each(labels, 3, 4))
    assert set(np.concatenate(draws).tolist()) == set(range(len(labels)))
    with pytest.raises(UserError, match=r"shots = 4 .*a class has 3; lower shots"):
        pipeline.few_of_each(labels, 4, 0)


@pytest.fixture
def sources(monkeypatch):
    """The sources that trials distil from, in their order."""
    seen, plain = [], student_stage.Distillation

    def spy(student, source, *rest):
        seen.append(source)
        return plain(student, source, *rest)

    monkeypatch.setattr(student_stage, "Distillation", spy)
    return seen


@pytest.mark.parametrize("method", ["few_shot", "few_shot_matched"])
def test_a_few_shot_student_sees_its_shots_alone(method, run, sources, true):
    for seed, shots in ((0, 3), (0, 3), (1, 3), (0, 5)):
        run(method=method, seed=seed, shots=shots)
    known = {image.tobytes(): true.labels[row] for row, image in zip(true.train, true.images[true.train], strict=True)}
    drawn = []
    for source, shots in zip(sources, (3, 3, 3, 5), strict=True):
        images = torch.cat([source.train, source.held_out]).numpy()
        assert np.bincount([known[image.tobytes()] for image in images]).tolist() == [shots] * 10
        assert len(source.held_out) == 2 * shots  # a fifth
        drawn.append(images.tobytes())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_a_zskd_student_sees_what_was_made_from_the_teacher(run, sources):
    events = []
    outcome = run(method="zskd", report=events.append)
    (source,) = sources
    assert len(source.train) + len(source.held_out) == 80
    made = {image.numpy().tobytes() for image in torch.cat([source.train, source.held_out])}
    assert {image.numpy().tobytes() for image in outcome.samples} <= made
    assert list(dict.fromkeys(event.stage for event in events)) == ["zskd", "distill", "done"]
    assert outcome.metrics["gan_seconds"] > 0


def test_sources_are_mixed_and_augmented_as_asked(run, sources):
    augmented = {"distill.augment": True}
    run({})
    run({"distill.mix_proxy": 0.25})
    run(augmented | {"distill.mix_proxy": 0.25})
    run(augmented | {"method": "proxy_matched"})
    run({"method": "proxy", "distill_images.profile": "sgd_augmented"})
    plain, mixed, both, proxy, profiled = sources
    assert isinstance(plain, GeneratorSource)
    assert isinstance(mixed, MixedSource)
    assert (mixed.share, mixed.images.batch_size, len(mixed.images.train)) == (0.25, 2, 48)
    assert isinstance(both, AugmentedSource)
    assert isinstance(both.source, MixedSource)
    assert isinstance(proxy.source, ImageSource)
    assert isinstance(profiled, AugmentedSource)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.99])
def test_any_share_of_proxy_images_can_be_mixed_in(share, run):
    # Small ones round to one image of a batch.
    assert 0 <= run({"distill.mix_proxy": share}).metrics["score"] <= 1


NORMED = {"teacher": {"network": "alexnet", "width": 4}, "student": {"network": "alexnet_half", "width": 4}}
SGD = {"distill.profile": "sgd_augmented", "distill.lr": 0.01}
SHOTS, ZSKD, OF_CLASSIFIER = {"method": "few_shot"}, {"method": "zskd"}, {"method": "classifier_only"}


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({}, {"gan.lambda_s": 3}),
        ({"gan.lambda_s": 3}, {"gan.lambda_s": 4}),
        ({"gan.lambda_s": 3}, {"distill.temperature": 5}),
        ({}, {"distill.mix_proxy": 0.25}),
        ({}, {"distill.augment": True}),
        ({}, SGD),
        (SGD, {"distill.milestones": [0.2]}),
        (SGD, {"distill.warm_up": 0.5}),
        (SGD, {"distill.momentum": 0.5}),
        ({}, {"distill.weight_decay": 0.1}),
        ({}, OF_CLASSIFIER),
        (OF_CLASSIFIER, {"gan.lambda_e": 3}),
        (SHOTS, {"shots": 3}),
        (ZSKD, {"zskd.images": 70}),
        (ZSKD, {"zskd.lr": 0.2}),
        (ZSKD, {"zskd.scales": [0.5]}),
        ({"method": "proxy"}, {"distill_images.augment": True}),
    ],
)
def test_each_setting_that_is_not_the_papers_changes_the_student(base, change, run):
    assert bits(run(base | change))[1] != bits(run(base))[1]


def test_a_trial_with_everything_gives_the_same_bits_again(run):
    busy = {"gan.lambda_s": 3, "distill.mix_proxy": 0.25, "method": "extended", **SGD, **DROPOUT}
    first = bits(run(busy))
    torch.manual_seed(77)
    before = torch.get_rng_state()
    assert bits(run(busy)) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_losses_are_measured_where_they_have_a_part(run):
    plain, rival, alone = run({}), run({"gan.lambda_s": 3}), run(OF_CLASSIFIER)
    assert math.isnan(plain.metrics["divergence"])
    assert rival.metrics["divergence"] >= 0
    assert math.isnan(alone.metrics["d_loss"])
    assert alone.metrics["adversarial"] == 0
    assert all(math.isnan(outcome.metrics["bn_loss"]) for outcome in (plain, rival, alone))


def test_statistics_of_batchnorm_can_be_sought(tiny, store):
    config = tiny(NORMED, {"teacher.fit.steps": 10, "teacher.count": 100, "bank.generators": []})
    true = teachers.true_images(config.teacher, None)
    teacher = teachers.obtain(config.teacher, true, store)
    before, found = teacher.data, []
    for weight in (0.0, 5.0, 5.0):
        changed = tiny(config.model_dump(mode="json"), {"gan.lambda_bn": weight})
        pipeline.check(changed)
        inputs = pipeline.prepare(changed, pipeline.load_proxy(changed, None), true, teacher, store)
        found.append(run_trial(changed, inputs))
    assert math.isnan(found[0].metrics["bn_loss"])
    assert found[1].metrics["bn_loss"] > 0
    assert bits(found[0])[1] != bits(found[1])[1]
    assert bits(found[1]) == bits(found[2])
    assert teacher.data == before


@pytest.mark.parametrize("profile", ["paper", "sgd_augmented"])
def test_a_probe_distils_in_its_own_way_whatever_the_profile(profile, tiny, prepare, monkeypatch):
    seen, plain = {}, gan_stage.Distillation

    def spy(student, source, config, context, stage="distill"):
        seen[stage] = (type(source), config)
        return plain(student, source, config, context, stage)

    monkeypatch.setattr(gan_stage, "Distillation", spy)
    monkeypatch.setattr(student_stage, "Distillation", spy)
    config = tiny({"probe.at": [3], "distill.profile": profile, "distill.lr": 0.01, "distill.mix_proxy": 0.25})
    run_trial(config, prepare(config))
    source, probing = seen["probe at 3"]
    assert source is GeneratorSource
    assert (probing.optimiser, probing.augment, probing.lr, probing.weight_decay) == ("adam", False, 1e-3, 0)
    assert probing.steps == probing.steps_per_epoch == 4
    assert seen["distill"][1] == config.distill


# Learning new classes

LEARNING = [name for name, method in METHODS.items() if method.rule]
NEW = {"task": "incremental", "teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]"}


@pytest.fixture(scope="module")
def old_true(tiny):
    return teachers.true_images(tiny(NEW).teacher, None)


@pytest.fixture(scope="module")
def old_teacher(tiny, old_true, store):
    return teachers.obtain(tiny(NEW).teacher, old_true, store)


@pytest.fixture(scope="module")
def ready(tiny, old_true, old_teacher, store):
    """The configuration and the inputs of a trial that learns new digits."""

    def made(changes=None, **more):
        config = tiny(NEW, changes or {}, more)
        pipeline.check(config)
        proxy = pipeline.load_proxy(config, None)
        pipeline.check_size(config, proxy)
        return config, pipeline.prepare(config, proxy, old_true, old_teacher, store)

    return made


@pytest.fixture(scope="module")
def learn(ready):
    return lambda changes=None, report=None, **more: run_trial(*ready(changes, **more), report)


@pytest.mark.parametrize("method", LEARNING)
def test_every_method_learns_new_classes(method, learn, old_teacher, old_true):
    events = []
    outcome = learn(method=method, report=events.append)
    metrics, generates = outcome.metrics, METHODS[method].generates
    images = torch.from_numpy(old_true.images[:6])
    assert predict(outcome.student, images).shape == (6, 10)
    assert predict(outcome.student, images).isfinite().all()
    assert not any(module.training for module in outcome.student.modules())
    assert 0 <= metrics["score"] <= 1
    assert metrics["score"] == metrics["balanced_soft_agreement"]
    assert metrics["distill_steps"] == 8
    assert metrics["gan_steps"] == (GAN_STEPS if generates else 0)
    assert (outcome.generator is not None) == (outcome.samples is not None) == generates
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == [*(["gan"] if generates else []), "incremental", "done"]
    assert [event.stage for event in events if "score" in event.metrics] == ["done"]
    # A copy of the teacher, whose weights stay.
    fresh = read_tensors(old_teacher.data, "teacher")
    state = outcome.student.state_dict()
    assert {name for name in fresh if state[name].shape != fresh[name].shape} == {"11.weight", "11.bias"}
    still = all(torch.equal(state[name][: len(value)], value) for name, value in fresh.items())
    assert still == (METHODS[method].rule == "new_outputs")


@pytest.mark.parametrize("method", LEARNING)
def test_learning_gives_the_same_bits_again(method, learn):
    first = bits(learn(method=method))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert bits(learn(method=method)) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert bits(learn(method=method, seed=1))[1] != first[1]


def test_methods_of_learning_differ(learn):
    students = {bits(learn(method=method, **{"gan.lambda_e": 1}))[1] for method in LEARNING}
    assert len(students) == len(LEARNING) - 1  # `extended` with the same settings is `degan`


@pytest.mark.parametrize(
    "change",
    [
        {"incremental.lr": 0.02},
        {"incremental.augment": False},
        {"incremental.temperature": 5},
        {"incremental.distill_weight": 1},
        {"incremental.scaling": "none"},
        {"incremental.scaling": "aligned"},
        {"incremental.scale_weight": 9},
        {"incremental.profile": "sgd_augmented"},
        {"gan.lambda_s": 3},
        {"distill.mix_proxy": 0.5},
    ],
)
def test_each_setting_of_learning_changes_the_student(change, learn):
    assert bits(learn(change))[1] != bits(learn())[1]


def test_a_student_of_new_classes_is_the_teachers_network_whatever_is_asked(learn):
    assert bits(learn({"student.network": "lenet", "student.width": 9})) == bits(learn())


def test_the_bank_tells_new_classes_and_what_the_teacher_says_of_the_rest(ready):
    config, inputs = ready(method="finetuning")
    trial = Trial(config, inputs)
    first = inputs.bank_proxy_images
    assert first == 6 == len(inputs.proxy.held_out) // 2  # the others are the oracle's
    expected = inputs.proxy.labels[inputs.proxy.held_out[:first]]
    assert (inputs.bank[:first] == inputs.proxy.images[inputs.proxy.held_out[:first]]).all()
    outputs = trial.common.bank.logits.softmax(1)
    assert outputs.shape == (len(inputs.bank), 10)
    assert outputs[:first].argmax(1).tolist() == (5 + expected).tolist()
    assert outputs[:first].amax(1).eq(1).all()
    old = predict(inputs.teacher.model(), torch.from_numpy(inputs.bank[first:]))
    torch.testing.assert_close(outputs[first:, :5], old.softmax(1))
    assert outputs[first:, 5:].eq(0).all()


def test_a_bank_without_proxy_images_judges_old_classes_alone(ready):
    config, inputs = ready(method="finetuning", **{"bank.proxy_images": 0})
    assert Trial(config, inputs).common.bank.logits.argmax(1).max() < 5
    assert 0 <= run_trial(config, inputs).metrics["score"] <= 1


def test_the_oracle_of_new_classes_has_images_of_both_kinds(ready, old_true):
    config, inputs = ready(method="finetuning", objective="oracle_accuracy")
    images, labels = inputs.oracle
    old, new = old_true.held_out, inputs.proxy.held_out[inputs.bank_proxy_images :]
    assert np.array_equal(images, np.concatenate([old_true.images[old], inputs.proxy.images[new]]))
    assert np.array_equal(labels, np.concatenate([old_true.labels[old], 5 + inputs.proxy.labels[new]]))
    outcome = run_trial(config, inputs)
    assert outcome.metrics["score"] == accuracy(
        predict(outcome.student, torch.from_numpy(images)), torch.from_numpy(labels)
    )


@pytest.mark.parametrize("method", ["finetuning", "degan"])
def test_new_classes_without_labels_are_refused(method, ready):
    for proxy in ("noise/uniform", "digits/[7]"):
        with pytest.raises(UserError, match="it must be labelled, with at least two"):
            ready(method=method, proxy=proxy, count=40)


@pytest.mark.parametrize("generated", [8, 3])
def test_recalled_images_are_the_generators_and_its_batch_the_new_ones(generated, ready, monkeypatch):
    config, inputs = ready({"incremental.batch_size": generated, "distill.pool_refresh": 1, "precision": "float32"})
    batches, plain = [], student_stage.RecallFromBatches.__call__

    def heard(recall, batch):
        made, logits = plain(recall, batch)
        batches.append((made, logits, recall.teacher(made)))
        return made, logits

    monkeypatch.setattr(student_stage.RecallFromBatches, "__call__", heard)
    run_trial(config, inputs)
    assert len(batches) == 8
    for made, logits, expected in batches:
        assert len(made) == generated
        assert logits.shape == (generated, 5)
        torch.testing.assert_close(logits, expected)
    seen = [image.numpy().tobytes() for made, *_ in batches for image in made]
    assert len(set(seen)) == len(seen)


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
    scored = [(event.stage, event.step, event.budget) for event in events if "score" in event.metrics]
    assert scored == [("gan", 3, 3), ("gan", 6, 6), ("gan", 12, 12), ("done", 1, 12)]
    assert all(0 <= event.metrics["score"] <= 1 for event in events if "score" in event.metrics)
    assert events[-1].metrics == outcome.metrics
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["gan", "probe at 3", "probe at 6", "probe at 12", "distill", "done"]
    assert [event.step for event in events if event.stage == "gan"] == list(range(1, GAN_STEPS + 1))
    assert [event.seconds for event in events] == sorted(event.seconds for event in events)
    assert [event.budget for event in events] == sorted(event.budget for event in events)
    probes = [event.step for event in events if event.stage == "probe at 3"]
    assert probes[-1] == 4


def test_without_rungs_the_only_score_is_the_last(run):
    for method in DISTILLING:
        events = []
        run(report=events.append, method=method)
        assert [event.stage for event in events if "score" in event.metrics] == ["done"]


# Failures


def test_a_collapsed_generator_ends_the_trial(run, monkeypatch):
    build = degan.build

    def collapsed(*arguments):
        gan = build(*arguments)
        nn.init.zeros_(gan.generator[-2].weight)
        return gan

    run()  # the bank is there already
    monkeypatch.setattr(degan, "build", collapsed)
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "degann"}, "method 'degann' is unknown; did you mean degan or dcgan? known: true, "),
        ({"method": "lwf_mc"}, "method 'lwf_mc' is none of task 'distillation'; its methods: true, "),
        ({"method": "zskd", "task": "incremental"}, "is none of task 'incremental'; its methods: finetuning, "),
        ({"task": "incremental", "probe.at": [3]}, "probe.at = [3]: task incremental has no rungs"),
        ({"gan.lambda_bn": 2}, "gan.lambda_bn = 2 needs a teacher with BatchNorm layers"),
        ({"gan.lambda_bn": 2, "method": "classifier_only", "task": "incremental"}, "lenet has none: set it to 0"),
        ({"proxy": "noise"}, "no image set or subset 'noise'"),
        ({"proxy": "glyphs/[?]"}, "glyphs has no class '?'"),
        ({"teacher.dataset": "mnist"}, "'mnist'"),
        ({"teacher.network": "vgg"}, "'vgg' is unknown"),
        ({"student.network": "lenet_hal"}, "unknown classifier 'lenet_hal'"),
        *(
            ({"objective": objective, "bank.proxy_images": 0}, "raise bank.proxy_images")
            for objective in pipeline.HELD_OUT_OBJECTIVES
        ),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_refused_at_once(change, said, tiny):
    with pytest.raises(UserError) as error:
        pipeline.check(tiny(change))
    assert said in str(error.value)


@pytest.mark.parametrize("change", [{"method": "dcgan"}, {"method": "proxy"}, {"teacher.network": "resnet32"}])
def test_a_weight_that_has_no_effect_is_not_refused(change, tiny):
    pipeline.check(tiny({"gan.lambda_bn": 2}, change))


@pytest.fixture(scope="module")
def script(teacher, true, tiny, tmp_path_factory):
    """The tiny teacher as a TorchScript file; returns its settings and what `teachers.obtain` makes of it."""
    file = tmp_path_factory.mktemp("script") / "teacher.pt"
    torch.jit.trace(teacher.model(), torch.zeros(2, 1, 32, 32)).save(file)
    settings = {"teacher.path": str(file), "teacher.trusted": True}
    return settings, teachers.obtain(tiny(settings).teacher, true, file.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "zskd"}, "cannot look into a TorchScript teacher"),
        ({"method": "zskd_matched"}, "cannot look into a TorchScript teacher"),
        ({"gan.lambda_bn": 2}, r"gan\.lambda_bn = 2 needs .*teacher\.pt has none"),
        ({"task": "incremental", "method": "finetuning"}, "TorchScript network cannot learn new classes"),
    ],
)
def test_a_teacher_that_cannot_be_looked_into_is_refused_before_training(change, said, script, tiny, true):
    config = normalised(tiny(script[0], change))
    with pytest.raises(UserError, match=said):  # some of it shows before the file is read
        pipeline.check(config)
        pipeline.check_inputs(config, pipeline.load_proxy(config, None), true, script[1])


def test_a_torchscript_teacher_is_fought_with_a_rival(script, tiny, true, store):
    config = tiny(script[0], {"gan.lambda_s": 2})
    inputs = pipeline.prepare(config, pipeline.load_proxy(config, None), true, script[1], store)
    assert run_trial(config, inputs).metrics["divergence"] >= 0


@pytest.mark.parametrize("method", ["few_shot", "few_shot_matched"])
def test_more_shots_than_there_are_images_are_refused(method, tiny, prepare, true):
    fewest = int(np.bincount(true.labels[true.train]).min())
    with pytest.raises(UserError, match=f"shots = {fewest + 1} .* a class has {fewest}; lower shots"):
        prepare(tiny({"method": method, "shots": fewest + 1}))
    assert prepare(tiny({"method": method, "shots": fewest})).true_labels is not None


def test_too_few_images_to_hold_some_out_are_refused_before_training(tiny, prepare):
    with pytest.raises(UserError, match="of 1 images leaves"):
        prepare(tiny({"method": "zskd", "zskd.images": 1}))


def test_a_proxy_with_too_few_images_is_refused(tiny, prepare):
    with pytest.raises(UserError, match=r"the proxy has 60 images, fewer than gan\.batch_size = 64"):
        prepare(tiny({"gan.batch_size": 64}))
    with pytest.raises(UserError, match=r"leaves 48 images for distillation.*distill_images\.batch_size"):
        prepare(tiny({"method": "proxy", "distill_images.batch_size": 70}))


@pytest.mark.parametrize("proxy", ["glyphs/[A-C]", "noise/uniform"])
def test_proxies_of_other_kinds_are_turned_to_the_teachers_channels(proxy, tiny, prepare, run):
    config = tiny({"proxy": proxy, "count": 40})
    inputs = prepare(config)
    assert inputs.proxy.images.shape == (40, 1, 32, 32)
    assert inputs.proxy.set_images == 40
    assert sorted([*inputs.proxy.train, *inputs.proxy.held_out]) == list(range(40))
    assert 0 <= run_trial(config, inputs).metrics["score"] <= 1


def test_the_batch_is_counted_in_the_whole_set(tiny, prepare):
    assert prepare(tiny({"proxy": "digits/[0-2]", "count": None})).proxy.set_images == 1437


# The bank


@pytest.fixture
def own_proxy(tmp_path):
    """Write a proxy of the user's own; returns its name."""
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)

    def write(change=0):
        images[3, 4, 5] ^= change
        np.savez(tmp_path / "own.npz", images=images)
        return f"npz:{tmp_path / 'own.npz'}"

    return write


@pytest.fixture
def make_bank(tiny, true, teacher, tmp_path):
    """Prepare inputs with a cache of their own; returns them, how many generators were trained, and the files."""

    def make(changes, cache="banks"):
        trained = []

        def backwards(tasks):  # as side by side: in any order
            trained.extend(tasks)
            return [task() for task in tasks[::-1]][::-1]

        inputs = pipeline.prepare(
            tiny(changes),
            pipeline.load_proxy(tiny(changes), None),
            true,
            teacher,
            tmp_path / cache,
            run_all=backwards,
        )
        return (
            inputs,
            len(trained),
            {path: path.stat().st_mtime_ns for path in (tmp_path / cache).glob("*.safetensors")},
        )

    return make


def test_the_bank_is_held_out_proxy_images_then_generated_ones(make_bank):
    inputs, trained, files = make_bank({})
    assert trained == 2
    assert len(files) == 1
    assert inputs.bank_proxy_images == 8
    assert inputs.bank.shape == (8 + 2 * 8, 1, 32, 32)
    assert np.array_equal(inputs.bank[:8], inputs.proxy.images[inputs.proxy.held_out][:8])
    proxy = {image.tobytes() for image in inputs.proxy.images}
    assert not any(image.tobytes() in proxy for image in inputs.bank[8:])
    assert not np.array_equal(inputs.bank[8:16], inputs.bank[16:])


def test_the_bank_is_made_once_and_the_same_anew(make_bank):
    first, trained, files = make_bank({})
    again, trained_again, files_again = make_bank({})
    assert trained > 0
    assert trained_again == 0
    assert files_again == files
    anew, trained_anew, _ = make_bank({}, cache="other")
    assert trained_anew == trained
    assert first.bank.tobytes() == again.bank.tobytes() == anew.bank.tobytes()


def test_the_order_in_which_generators_train_does_not_matter(make_bank, prepare, tiny):
    assert make_bank({})[0].bank.tobytes() == prepare(tiny()).bank.tobytes()


def test_trials_share_a_bank_whatever_their_seed_and_weights(make_bank):
    first, *_ = make_bank({})
    for change in ({"seed": 1}, {"gan.lambda_d": 1}, {"gan.lambda_e": 2, "seed": 3}, {"method": "proxy"}):
        inputs, trained, files = make_bank(change)
        assert trained == 0
        assert len(files) == 1
        assert inputs.bank.tobytes() == first.bank.tobytes()


def test_other_seeds_weights_or_images_make_another_bank(make_bank, own_proxy):
    banks_made = [
        make_bank(change) for change in ({}, {"bank.seed": 1}, {"bank.generators": [[0, 0], [1, 5]]}, {"bank.steps": 3})
    ]
    assert all(trained > 0 for _, trained, _ in banks_made)
    assert len({inputs.bank[8:].tobytes() for inputs, *_ in banks_made}) == 4
    name = own_proxy()
    one, trained, files = make_bank({"proxy": name, "count": None})
    other, trained_too, files_too = make_bank({"proxy": own_proxy(change=1), "count": None})
    assert trained == trained_too > 0
    assert len(files_too) == len(files) + 1
    assert (one.proxy.images != other.proxy.images).any()


def test_the_banks_generators_are_not_a_trials(make_bank, run):
    # Even with the trial's own seed and weights.
    inputs, *_ = make_bank({"bank.seed": 0, "bank.generators": [[0, 5]], "bank.generated_images": 64})
    outcome = run({"seed": 0, "gan.lambda_d": 5})
    assert not {image.tobytes() for image in inputs.bank[8:]} & {image.numpy().tobytes() for image in outcome.samples}
    assert TrialConfig().bank.seed != TrialConfig().seed


def test_a_bank_of_proxy_images_alone(make_bank, tiny):
    changes = {"bank.generators": []}
    inputs, trained, _ = make_bank(changes)
    assert trained == 0
    assert inputs.bank.shape == (8, 1, 32, 32)
    metrics = run_trial(tiny(changes), inputs).metrics
    assert metrics["agreement"] == metrics["holdout_agreement"]


def test_a_bank_has_no_more_proxy_images_than_are_held_out(make_bank):
    inputs, *_ = make_bank({"bank.proxy_images": 2000})
    assert inputs.bank_proxy_images == len(inputs.proxy.held_out) == 12
    assert len(inputs.bank) == 12 + 16


def test_a_bank_without_proxy_images(make_bank, tiny):
    changes = {"bank.proxy_images": 0}
    inputs, *_ = make_bank(changes)
    assert inputs.bank.shape == (16, 1, 32, 32)
    metrics = run_trial(tiny(changes), inputs).metrics
    assert all(math.isnan(metrics[name]) for name in pipeline.HELD_OUT_OBJECTIVES)
    assert math.isfinite(metrics["score"])


def test_a_collapsed_generator_adds_nothing_to_the_bank(tiny, true, teacher, tmp_path, monkeypatch):
    build = degan.build

    def first_collapsed(config, *rest, **named):
        gan = build(config, *rest, **named)
        if config.lambda_d == 0:
            nn.init.zeros_(gan.generator[-2].weight)
        return gan

    monkeypatch.setattr(degan, "build", first_collapsed)
    inputs = pipeline.prepare(tiny(), pipeline.load_proxy(tiny(), None), true, teacher, tmp_path)
    assert len(inputs.bank) == 8 + 8


def test_the_bank_compares_students_on_the_images_that_each_measure_takes(teacher, make_bank):
    inputs, *_ = make_bank({})
    images = torch.from_numpy(inputs.bank)
    model = teacher.model()
    bank = banks.Bank(images, predict(model, images), inputs.bank_proxy_images)
    assert {value for name, value in bank.compare(model).items() if "agreement" in name} == {1.0}
    with runtime.seeded(3, "student"):
        student = build_classifier("lenet_half", 10, 2)
    logits, measured = predict(student, images), bank.compare(student)
    assert measured["agreement"] == agreement(logits, bank.logits)
    assert measured["holdout_agreement"] == agreement(logits[:8], bank.logits[:8])
    assert measured["infomax"] == infomax(logits[:8])
    assert measured["snd"] == soft_neighbourhood_density(logits[:8])
    assert measured["mcc"] == class_certainty(logits[:8])
    assert measured["agreement"] < 1


# In the foreground


def test_a_trial_is_saved_and_its_folder_not_taken_twice(tiny, tmp_path, monkeypatch):
    asked, load = [], proxies.load
    monkeypatch.setattr(
        proxies,
        "load",
        lambda name, split="train", *rest, **named: asked.append(split) or load(name, split, *rest, **named),
    )
    config, shown = tiny({"gan.lambda_e": 0.5}), []
    out = tmp_path / "out"
    metrics = foreground.run(config, out, tmp_path / "runs", show=lambda *what: shown.append(what))
    assert sorted(path.name for path in out.iterdir()) == [
        "generator.safetensors",
        "result.json",
        "samples.png",
        "student.safetensors",
    ]
    assert set(asked) == {"train"}  # the test split is for the final evaluation alone
    about = json.loads((out / "result.json").read_text())
    assert TrialConfig.model_validate(about["config"]) == normalised(config)
    assert about["metrics"] == metrics
    assert "torch" in about["about"]["versions"]
    student = build_classifier("lenet_half", 10, 2, 1)
    student.load_state_dict(load_file(out / "student.safetensors"))
    generator = degan.build_generator(1, 2, 4)
    generator.load_state_dict(load_file(out / "generator.safetensors"))
    with Image.open(out / "samples.png") as picture:
        assert picture.format == "PNG"
        picture.load()
        assert picture.size == (2 * (8 * 34 + 2), 2 * (8 * 34 + 2))
    assert {stage for stage, *_ in shown} == {"teacher", "comparison images", "gan", "distill", "done"}

    files = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(UserError, match=r"out is already there"):
        foreground.run(config, out, tmp_path / "runs")
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == files

    (tmp_path / "empty").mkdir()
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert len(cached) == 2  # a teacher and a bank
    shown.clear()
    again = foreground.run(config, tmp_path / "empty", tmp_path / "runs", show=lambda *what: shown.append(what))
    assert {stage for stage, *_ in shown} == {"comparison images", "gan", "distill", "done"}  # the teacher is there
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")} == cached
    assert again["score"] == metrics["score"]
    for name in ("student.safetensors", "generator.safetensors", "samples.png"):
        assert (tmp_path / "empty" / name).read_bytes() == (out / name).read_bytes()


def test_a_student_of_images_has_no_generator_to_save(tiny, tmp_path):
    foreground.run(tiny({"method": "proxy", "bank.generators": []}), tmp_path / "out", tmp_path / "runs")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["result.json", "student.safetensors"]


def test_a_folder_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="already there"):
        foreground.run(tiny(), tmp_path / "out", tmp_path / "runs")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_failed_trial_speaks_to_the_user_and_saves_nothing(tiny, tmp_path):
    config = tiny({"gan.lr": 10, "gan.lambda_e": 1e6, "bank.generators": []})
    with pytest.raises(UserError, match="the trial failed: gan: "):
        foreground.run(config, tmp_path / "out", tmp_path / "runs")
    assert not (tmp_path / "out").exists()


ALONE = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = None
from pathlib import Path
from degan_search import foreground
from degan_search.config import TrialConfig
metrics = foreground.run(TrialConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
print(metrics["score"], metrics["gan_steps"])
"""


def test_a_trial_runs_without_ray_and_optuna_and_gives_the_same(tiny, tmp_path):
    config = tiny()
    command = [sys.executable, "-c", ALONE, config.model_dump_json(), str(tmp_path / "out"), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = foreground.run(config, tmp_path / "here", tmp_path / "here-runs")
    assert done.stdout.split() == [str(here["score"]), str(GAN_STEPS)]
    for name in ("student.safetensors", "generator.safetensors", "samples.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_the_tiny_teacher_and_generator_are_worth_learning_from(teacher, run):
    # So that what the other tests compare is not one class for every image.
    assert teacher.held_out_accuracy > 0.5
    assert run().samples.float().std(0).mean() > 1  # nor one image


def test_new_classes_that_are_known_already_are_refused(tiny, true, teacher):
    config = normalised(tiny({"task": "incremental", "method": "finetuning", "proxy": "digits/[5,6]"}))
    with pytest.raises(UserError, match=r"5, 6 of proxy .* are classes of 'digits' already"):
        pipeline.check_inputs(config, pipeline.load_proxy(config, None), true, teacher)


# What trials on the same inputs share


def everything(shared):
    """The bytes of all that trials share."""
    teachers_ = {
        f"{name}.{key}": value
        for name in ("teacher", "fast_teacher")
        for key, value in getattr(shared, name).state_dict().items()
    }
    images, logits = shared.bank
    named = {"bank": images, "bank_logits": logits, "proxy": shared.proxy}
    for name in ("proxy_logits", "true_logits"):
        named |= {f"{name}_{part}": value for part, value in enumerate(getattr(shared, name))}
    return tensors_bytes(teachers_ | named)


def test_trials_share_what_none_of_them_changes_and_give_the_same_bits(tiny, prepare):
    inputs = prepare(tiny({"method": "true"}))
    configs = [
        tiny({"method": "true"}),
        tiny({"method": "proxy"}),
        tiny({"distill.mix_proxy": 0.5, "distill.augment": True, "gan.lambda_s": 1}),
    ]
    first = [bits(run_trial(config, inputs)) for config in configs]
    shared = pipeline.shared(inputs, "cpu")
    before = everything(shared)
    assert [bits(run_trial(config, inputs)) for config in configs] == first
    assert everything(shared) == before
    for config, expected in zip(configs, first, strict=True):
        alone = dataclasses.replace(inputs)  # the same arrays, but nothing made of them yet
        assert bits(run_trial(config, alone)) == expected


def test_trials_on_the_same_inputs_hold_one_copy(tiny, prepare):
    inputs = prepare(tiny())
    one, other = Trial(tiny(), inputs), Trial(tiny({"seed": 1}), inputs)
    one, other = one.common, other.common
    assert one.teacher is other.teacher
    assert one.fast_teacher is other.fast_teacher
    assert one.bank.images is other.bank.images
    assert one.bank.logits is other.bank.logits
    assert one.shared.proxy is other.shared.proxy
    another = Trial(tiny(), dataclasses.replace(inputs)).common
    assert another.teacher is not one.teacher


def test_only_the_last_inputs_are_kept(tiny, prepare):
    inputs = prepare(tiny())
    given = [dataclasses.replace(inputs) for _ in range(pipeline.KEPT + 1)]
    kept = [weakref.ref(Trial(tiny(), one).common.shared) for one in given]
    gc.collect()
    assert [reference() is not None for reference in kept] == [False] + [True] * pipeline.KEPT
    Trial(tiny(), given[1])
    Trial(tiny(), inputs)
    gc.collect()
    assert [reference() is not None for reference in kept] == [False, True, False] + [True] * (pipeline.KEPT - 2)
