"""MosaicKD's joint training: beside an independent calculation, its networks, its ends."""

import copy

import pytest
import torch
from torch import nn

from degan_search.data.images import augment
from degan_search.networks.frozen import freeze
from degan_search.networks.layers import dropouts
from degan_search.networks.mosaic import build_discriminator, build_generator
from degan_search.networks.table import build_classifier
from degan_search.settings.mosaic import MosaicConfig
from degan_search.settings.trial import GanConfig
from degan_search.stages import mosaic
from degan_search.stages.mosaic import Mosaic
from degan_search.system import seeds
from degan_search.training.batches import IndexBatches
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError, progress_of
from tests.stages.plain_mosaic import PlainMosaic

BATCH, CLASSES, ROUNDS, SEED = 8, 5, 4, 3
GAN = GanConfig(width=2, latent=4)
CONFIG = MosaicConfig(
    batch_size=BATCH, steps=ROUNDS, student_steps=2, lr=0.01, student_lr=0.05, weight_decay=0.01, temperature=2
)


@pytest.fixture
def double(monkeypatch):
    """Float64, so that only a real difference shows."""
    monkeypatch.setattr(mosaic, "normalise", in_double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def in_double(images):
    return images.double() / 127.5 - 1


def classifier(name, seed, width=2):
    with seeds.seeded(seed, "test"):
        return build_classifier(name, CLASSES, width, 3)


def make_teacher():
    """A network with statistics of its own and outputs that differ."""
    model = classifier("wrn_16_1", 0)
    for layer in model.modules():
        layer.momentum = 1.0  # of BatchNorm: one batch gives its statistics
    with torch.no_grad():
        model(torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    model[-1].weight.data *= 10
    return freeze(model)


def pictures(count, size=32, seed=2):
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def make(config=CONFIG, student="wrn_16_1", size=32):
    """A training of 20 proxy images, of which the student learns 12."""
    images = pictures(20)
    proxy = images if size == 32 else pictures(20, size)
    return Mosaic(classifier(student, 1), make_teacher(), proxy, images[:12], config, GAN, Context(SEED))


def given(stage):
    """Yield what each step is given, drawn once more from streams of the same names."""
    rng = {name: seeds.generator(SEED, "mosaic", name) for name in ("images", "noise", "proxy images", "augment")}
    orders = {name: IndexBatches(len(own), BATCH, rng[name]) for name, own in images_of(stage).items()}

    def noise():
        return torch.randn(BATCH, GAN.latent, generator=rng["noise"])

    def proxy():
        batch = in_double(stage.shown[next(orders["proxy images"])])
        return augment(batch, rng["augment"]) if stage.config.augment else batch

    while True:
        real = in_double(stage.proxy[next(orders["images"])])
        yield real, noise(), [(noise(), proxy()) for _ in range(stage.config.student_steps)]


def images_of(stage):
    return {"images": stage.proxy, "proxy images": stage.shown}


def differences(config=CONFIG, **wrong):
    """After each step the largest relative difference of losses, and of each network's state from the other's."""
    stage = make(config)
    plain = PlainMosaic(
        stage.generator,
        stage.players.discriminator,
        copy.deepcopy(stage.student),
        stage.players.teacher,
        config.model_copy(update=wrong),
        ROUNDS,
    )
    for (real, z, more), progress in zip(given(stage), progress_of(stage), strict=False):
        expected = plain.step(real, z, more)
        losses = progress.metrics | {"student": progress.loss}
        largest = max(abs(losses[name] / value - 1) for name, value in expected.items())
        others = {
            "generator": plain.generator.state,
            "discriminator": plain.discriminator.state,
            "student": [*plain.student.state_dict().values()],
        }
        states = [difference(stage.players.networks[name].state_dict().values(), own) for name, own in others.items()]
        yield largest, *states


def difference(one, other):
    """Of all that is no count of batches."""
    one, other = (torch.cat([value.flatten() for value in own if value.is_floating_point()]) for own in (one, other))
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("augmented", [False, True])
def test_steps_agree_with_an_independent_calculation(augmented, double):
    config = CONFIG.model_copy(update={"augment": augmented})
    found = list(differences(config))
    assert len(found) == ROUNDS  # the third batch of real images is short
    assert max(max(step) for step in found) < 1e-9
    before, after = make(config), make(config)
    list(progress_of(after))
    for name, network in after.players.networks.items():
        assert difference(network.state_dict().values(), before.players.networks[name].state_dict().values()) > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"local": 1.1},
        {"align": 1.1},
        {"adversary": 1.1},
        {"balance": 11},
        {"lr": 0.011},
        {"student_lr": 0.055},
        {"weight_decay": 0.02},
        {"temperature": 2.2},
    ],
)
def test_a_wrong_setting_breaks_the_agreement(wrong, double):
    assert any(max(step) > 1e-6 for step in differences(**wrong))


def test_the_networks_are_the_released_ones():
    generator, discriminator = build_generator(3), build_discriminator(3)
    assert [sum(weights.numel() for weights in model.parameters()) for model in (generator, discriminator)] == [
        2_026_051,
        531_328,
    ]
    images = generator(torch.randn(2, 100, 1, 1)).detach().requires_grad_()
    assert images.shape == (2, 3, 32, 32)
    assert -1 < images.min() < images.max() < 1
    logits = discriminator.eval()(images)
    assert logits.shape == (2, 1, 8, 8)
    logits[0, 0, 4, 4].backward()
    seen = images.grad[0].abs().sum(0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [10, 10]


def test_a_generator_of_another_size_teaches_a_student_of_the_teachers():
    stage, seen = make(size=16), []
    stage.student.register_forward_hook(lambda _, images, output: seen.append(tuple(images[0].shape)))
    stage.step()
    assert seen == [(BATCH, 3, 16, 16), (2 * BATCH, 3, 32, 32), (BATCH + 4, 3, 32, 32)]


def test_rates_fall_to_nothing_and_the_last_weights_stay():
    stage = make(student="alexnet_half")
    reports = list(progress_of(stage))
    assert [(report.stage, report.step, report.of) for report in reports] == [
        ("mosaic", step, ROUNDS) for step in range(1, ROUNDS + 1)
    ]
    assert (stage.done, stage.steps) == (True, ROUNDS * CONFIG.student_steps)
    assert all(own.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12) for own in stage.players.optimisers.values())
    assert not any(layer.training for network in stage.players.networks.values() for layer in network.modules())
    assert dropouts(stage.student)
    assert all(layer.rng is None for layer in dropouts(stage.student))


def test_what_cannot_be_trained_ends_it():
    stage = make()
    nn.init.zeros_(stage.generator[-2].weight)
    with pytest.raises(DivergedError, match="mosaic: the generator makes one image only at step 1"):
        stage.players.optimisers["generator"].param_groups[0]["lr"] = 0.0
        stage.step()
    with pytest.raises(DivergedError, match=r"mosaic: loss is (nan|inf) at step 1"):
        make(CONFIG.model_copy(update={"student_lr": 1e30, "adversary": 0.0})).step()
