"""What "times faster" is measured against computes the same: the released procedure beside the package's own steps."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import reference
from degan_search.data.images import normalise
from degan_search.networks.dcgan import build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig, GanConfig
from degan_search.stages.distillation import Distillation
from degan_search.stages.gan import build
from degan_search.stages.image_sources import GeneratorSource
from degan_search.system import seeds
from degan_search.training.batches import IndexBatches
from degan_search.training.context import Context
from degan_search.training.loop import progress_of

LATENT, BATCH, CLASSES, STEPS = 4, 8, 5, 3
CONFIG = GanConfig(lambda_e=0.5, lambda_d=5.0, width=2, latent=LATENT, batch_size=BATCH)


@pytest.fixture(autouse=True)
def double():
    """Float64, so that only a real difference shows."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def teacher():
    """An AlexNet with statistics of its own and outputs that differ, as it comes from training."""
    with seeds.seeded(0, "test"):
        model = build_classifier("alexnet", CLASSES, 4).double()
        model = with_statistics(model, make_generator().double()(torch.randn(64, LATENT, dtype=torch.float64)))
    model[-1].weight.data *= 5
    return model


def make_generator():
    """A generator of images with contrast."""
    with seeds.seeded(1, "test"):
        generator = build_generator(3, 2, LATENT)
        generator = with_statistics(generator, torch.randn(64, LATENT))
    generator[-2].weight.data *= 10
    return generator


@torch.no_grad()
def with_statistics(model, inputs):
    for layer in model.modules():
        layer.momentum = 1.0  # of BatchNorm: one batch gives its statistics
    model(inputs)
    return model.eval()


def batches():
    rng = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        yield torch.rand(BATCH, 3, 32, 32, generator=rng) * 2 - 1, torch.randn(BATCH, LATENT, 1, 1, generator=rng)


def gans(teacher, **wrong):
    """The package's GAN and the reference's, of the same weights; `wrong` settings are the reference's alone."""
    gan = build(CONFIG, (3, 32, 32), freeze(teacher, fold_norms=True), Context(1))
    gan.generator[-2].weight.data *= 10  # images with contrast
    networks = [reference.plain(model) for model in (gan.generator, gan.discriminator, teacher)]
    return gan, reference.Gan(CONFIG.model_copy(update=wrong), *networks)


def differences(gan, plain):
    """After each step the largest relative difference of losses, of G's weights and of D's."""
    for real, z in batches():
        losses, others = gan.step(real, z)[:5], torch.tensor(plain.step(real, z))
        models = ((gan.generator, plain.generator), (gan.discriminator, plain.discriminator))
        yield [difference(losses, others), *(difference(state(one), state(other)) for one, other in models)]


def state(model):
    return torch.cat([value.double().flatten() for value in model.state_dict().values()])


def difference(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_plain_networks_are_the_same_function_with_torchs_layers(teacher, format_):
    copied = reference.plain(freeze(teacher).to(memory_format=format_))
    assert sum(isinstance(layer, nn.LocalResponseNorm) for layer in copied.modules()) == 2
    assert all(weight.requires_grad and weight.is_contiguous() for weight in copied.parameters())
    images = next(batches())[0]
    assert difference(copied(images), teacher(images)) < 1e-12


@pytest.mark.parametrize("channels", [1, 3])
def test_its_images_are_the_packages_in_the_packages_order(channels):
    images = np.random.default_rng(0).integers(0, 256, (10, channels, 32, 32), np.uint8)
    orders = (IndexBatches(10, 4, torch.Generator().manual_seed(3)) for _ in range(2))
    before = torch.get_rng_state()
    found = list(islice(reference.real_batches(images, next(orders)), 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(batch) for batch in found] == [4, 4, 2, 4, 4]
    for batch, indices in zip(found, next(orders), strict=False):
        torch.testing.assert_close(batch, normalise(torch.from_numpy(images)[indices]).double(), rtol=0, atol=1e-6)


def test_gan_steps_agree(teacher, monkeypatch):
    released = list(differences(*gans(teacher)))
    assert max(losses for losses, *_ in released) < 1e-3  # but for the 1e-5 in the logarithm
    monkeypatch.setattr(reference, "INSIDE_LOG", 0.0)
    gan, plain = gans(teacher)
    before = state(plain.generator), state(plain.discriminator), state(plain.teacher)
    for found in differences(gan, plain):
        assert max(found) < 1e-8
    assert difference(before[0], state(plain.generator)) > 1e-4
    assert difference(before[1], state(plain.discriminator)) > 1e-4
    assert torch.equal(before[2], state(plain.teacher))
    assert sum(plain.sure) + sum(plain.unsure) == STEPS * BATCH
    assert all(weight.grad is not None for weight in plain.teacher.parameters())


@pytest.mark.parametrize("wrong", [{"lambda_e": 0.45}, {"lambda_d": 5.5}, {"lr": 2.2e-4}])
def test_a_wrong_setting_breaks_the_agreement(teacher, wrong, monkeypatch):
    monkeypatch.setattr(reference, "INSIDE_LOG", 0.0)
    assert max(max(found) for found in differences(*gans(teacher, **wrong))) > 1e-6


DISTILLING = DistillConfig(
    lr=0.02,
    beta1=0.5,
    batch_size=BATCH,
    pool=BATCH,
    pool_refresh=1.0,
    steps=4,
    steps_per_epoch=1,
    score_images=2 * BATCH,
)


def distillations(teacher, **wrong):
    """Progress and final weights of the package's distillation and of the reference's, from the same numbers."""
    generator = make_generator()
    with seeds.seeded(0, "test"):
        student = build_classifier("alexnet_half", CLASSES, 3)
    theirs = reference.plain(student)
    source = GeneratorSource(generator, LATENT, freeze(teacher, fold_norms=True), DISTILLING)
    ours = (
        student.to(memory_format=torch.channels_last),
        list(progress_of(Distillation(student, source, DISTILLING, Context(0)))),
    )

    def noise(name, shuffled):
        rng = seeds.generator(0, "distill", name)
        while True:
            z = torch.randn(BATCH, LATENT, 1, 1, generator=rng)
            yield z[torch.randperm(BATCH, generator=rng)] if shuffled else z

    config = DISTILLING.model_copy(update=wrong)
    frozen = reference.plain(generator), reference.plain(teacher)
    with seeds.seeded(0, "distill", "dropout"):
        found = list(reference.distill(theirs, *frozen, config, noise("images", True), noise("score", False)))
    return ours, (theirs, found)


def test_distillation_agrees(teacher):
    (student, ours), (plain, theirs) = distillations(teacher)
    assert [(p.stage, p.step, p.of, p.score) for p in ours] == [(p.stage, p.step, p.of, p.score) for p in theirs]
    np.testing.assert_allclose([p.loss for p in ours], [p.loss for p in theirs], rtol=1e-8)
    assert len({p.score for p in ours}) > 1
    assert difference(state(student), state(plain)) < 1e-8
    assert not any(module.training for module in plain.modules())


@pytest.mark.parametrize("wrong", [{"temperature": 22.0}, {"first_phase": 0.5}])
def test_a_wrong_setting_breaks_the_agreement_of_distillation(teacher, wrong):
    (_, ours), (_, theirs) = distillations(teacher, **wrong)
    assert not np.allclose([p.loss for p in ours], [p.loss for p in theirs], rtol=1e-5)
