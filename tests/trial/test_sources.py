"""What a trial's student learns from, and settings that are not the paper's."""

import math

import numpy as np
import pytest
import torch
from same_bits import bits

from degan_search.stages.image_sources import AugmentedSource, GeneratorSource, ImageSource, MixedSource
from degan_search.trial import gan_stage, student_stage
from degan_search.trial.trial import run as run_trial
from tests.trial.tiny_trials import DROPOUT


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
