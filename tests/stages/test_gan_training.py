"""The training of a GAN: how long it is, when it reports, its random streams, and what ends it early."""

import math
from itertools import islice

import pytest
import torch
from torch import nn

from degan_search.networks.frozen import freeze
from degan_search.settings import lengths
from degan_search.settings.gan_losses import GAN_LOSSES
from degan_search.settings.trial import GanConfig
from degan_search.stages import gan_training
from degan_search.stages.gan import build
from degan_search.stages.gan_training import GanTraining
from degan_search.system.errors import UserError
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError, progress_of
from tests.stages.gan_networks import CLASSES, Untouchable, config, make_gan, make_teacher, proxy_images


@pytest.mark.parametrize("adversarial", [True, False])
def test_faults_are_found_with_and_without_a_discriminator(adversarial):
    settings = config(1.0, 5.0, batch_of="used", steps=5)
    gan = build(settings, (1, 32, 32), freeze(make_teacher()), Context(0), adversarial)
    nn.init.zeros_(gan.generator[-2].weight)
    with pytest.raises(DivergedError, match="one image only at step 1"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))
    gan = build(settings, (1, 32, 32), freeze(make_teacher()), Context(0), adversarial)
    next(gan.teacher.parameters()).data.fill_(math.nan)
    with pytest.raises(DivergedError, match="not finite at step 1"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))


def test_a_discriminator_that_is_not_finite_is_found_though_none_may_be_there():
    settings = config(1.0, 5.0, batch_of="used", steps=5)
    gan = build(settings, (1, 32, 32), freeze(make_teacher()), Context(0))
    progress = gan_training.GanProgress(1, 5, dict.fromkeys(GAN_LOSSES, 1.0) | {"d_loss": math.nan}, 1.0)
    gan_training.check(progress, False)
    with pytest.raises(DivergedError, match="discriminator nan"):
        gan_training.check(progress, True)
    next(gan.discriminator.parameters()).data.fill_(math.nan)
    with pytest.raises(DivergedError, match="discriminator nan"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))


def test_build_draws_each_network_from_its_own_stream():
    one, same, other = (make_gan(0.0, 5.0, Untouchable(), seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(9)
    again = make_gan(0.0, 5.0, Untouchable(), seed=1)
    for network in ("generator", "discriminator"):
        first = next(getattr(one, network).parameters())
        assert torch.equal(first, next(getattr(same, network).parameters()))
        assert torch.equal(first, next(getattr(again, network).parameters()))
        assert not torch.equal(first, next(getattr(other, network).parameters()))


@pytest.mark.parametrize(("classes", "batch"), [(90, 1843), (40, 819), (10, 205), (6, 123)])
def test_the_papers_proxies_all_get_5000_steps(classes, batch):
    assert lengths.gan_lengths(GanConfig(), 500 * classes, 50_000) == (batch, 5000)
    assert lengths.scaled_batch(2048, "set", 500 * classes, 50_000) == batch


def test_lengths_of_other_settings():
    assert lengths.gan_lengths(GanConfig(batch_size=64, batch_of="used"), 1000, 50_000) == (64, 200 * 16)
    assert lengths.gan_lengths(GanConfig(batch_size=64, batch_of="used", steps=7), 1000, 50_000) == (64, 7)
    assert lengths.gan_lengths(GanConfig(batch_size=64, batch_of="used", epochs=3), 64, 50_000) == (64, 3)
    assert lengths.gan_lengths(GanConfig(), 2, 50_000) == (2, 200)  # BatchNorm needs two
    with pytest.raises(UserError, match=r"the proxy has 63 images, fewer than gan\.batch_size = 64"):
        lengths.gan_lengths(GanConfig(batch_size=64, batch_of="used"), 63, 50_000)
    with pytest.raises(UserError, match="1 images"):
        lengths.gan_lengths(GanConfig(), 1, 50_000)


def test_training_reports_at_the_rungs_and_at_the_end():
    settings = config(batch_of="used", steps=200)
    gan = build(settings, (1, 32, 32), freeze(make_teacher()), Context(0))
    training = GanTraining(gan, proxy_images(), 20, Context(0), report_at=(3, 8, 13))
    some = list(islice(progress_of(training), 7))
    assert [progress.step for progress in some] == [3, 4, 8, 12, 13, 16, 20]  # 2% of 200 is 4
    assert {progress.of for progress in some} == {200}
    settings = config(batch_of="used", steps=5)
    gan = build(settings, (1, 32, 32), freeze(make_teacher()), Context(0))
    all_of_it = list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))
    assert [progress.step for progress in all_of_it] == [1, 2, 3, 4, 5]
    last = all_of_it[-1]
    assert last.losses["g_loss"] == pytest.approx(last.losses["adversarial"] - 5 * last.losses["diversity"], rel=1e-6)
    assert 0 <= last.losses["entropy"] <= last.losses["diversity"] <= math.log(CLASSES)


def test_a_generator_of_one_image_is_refused():
    settings = config(batch_of="used", steps=5)
    gan = build(settings, (1, 32, 32), freeze(make_teacher()), Context(0))
    nn.init.zeros_(gan.generator[-2].weight)
    with pytest.raises(DivergedError, match="one image only at step 1"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))


@pytest.mark.parametrize("network", ["generator", "discriminator", "teacher"])
def test_losses_that_are_not_finite_are_refused(network):
    settings = config(batch_of="used", steps=5)
    gan = build(settings, (1, 32, 32), freeze(make_teacher()), Context(0))
    next(getattr(gan, network).parameters()).data.fill_(math.nan)
    with pytest.raises(DivergedError, match="not finite at step 1"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))


def test_large_images_are_seen_through_noise_that_falls_to_nothing():
    """Up to 32x32 pixels the paper's step has no noise."""

    def noises(side, given=None):
        settings = config(lambda_d=0.0, batch_of="used", steps=4, instance_noise=given)
        gan = build(settings, (1, side, side), freeze(make_teacher()), Context(0), True)
        images = torch.zeros(20, 1, side, side, dtype=torch.uint8)
        training = GanTraining(gan, images, 20, Context(0))
        seen = []
        step = training.run_step

        def run_step(real, z, *noise):
            seen.append([float(one.std()) for one in noise])
            return step(real, z, *noise)

        training.run_step = run_step
        while not training.done:
            training.step()
        return seen

    assert noises(32) == noises(64, 0.0) == [[]] * 4
    for side, given, first in ((64, None, gan_training.INSTANCE_NOISE), (32, 0.8, 0.8)):
        assert [one for (one,) in noises(side, given)] == pytest.approx(
            [first * (1 - done / 4) for done in range(4)], rel=0.1
        )
