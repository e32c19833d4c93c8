"""A whole trial: every method, the same bits again, its events."""

import dataclasses
import math
import random
from typing import get_args

import numpy as np
import pytest
import torch
from same_bits import bits
from torch import nn

from degan_search.settings.methods import METHODS, normalised
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig
from degan_search.stages import gan as degan
from degan_search.stages import teacher as teachers
from degan_search.stages.image_sources import AugmentedSource, GeneratorSource, ImageSource, MixedSource
from degan_search.system.weights_file import read_tensors, tensors_bytes
from degan_search.training.loop import DivergedError, progress_of
from degan_search.training.measures import accuracy, predict
from degan_search.trial import gan_stage, student_stage
from degan_search.trial.trial import Trial
from degan_search.trial.trial import run as run_trial

GAN_STEPS, DISTILL_STEPS = 12, 8
DISTILLING = [name for name, method in METHODS.items() if method.distils]
OBJECTIVES = get_args(TrialConfig.model_fields["objective"].annotation)
DROPOUT = {"student.network": "alexnet_half"}  # a student whose training needs torch's global generator


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


def test_statistics_of_batchnorm_can_be_sought(tiny, prepare):
    config = tiny(NORMED, {"teacher.fit.steps": 10, "teacher.count": 100, "bank.generators": []})
    before, found = prepare(config).teacher.data, []
    for weight in (0.0, 5.0, 5.0):
        changed = tiny(config.model_dump(mode="json"), {"gan.lambda_bn": weight})
        inputs = prepare(changed)
        found.append(run_trial(changed, inputs))
    assert math.isnan(found[0].metrics["bn_loss"])
    assert found[1].metrics["bn_loss"] > 0
    assert bits(found[0])[1] != bits(found[1])[1]
    assert bits(found[1]) == bits(found[2])
    assert inputs.teacher.data == before


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
def ready(tiny, prepare):
    """The configuration and the inputs of a trial that learns new digits."""

    def made(changes=None, **more):
        config = tiny(NEW, changes or {}, more)
        return config, prepare(config)

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


def test_the_tiny_teacher_and_generator_are_worth_learning_from(teacher, run):
    # So that what the other tests compare is not one class for every image.
    assert teacher.held_out_accuracy > 0.5
    assert run().samples.float().std(0).mean() > 1  # nor one image
