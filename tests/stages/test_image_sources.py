"""Sources of images with the teacher's logits: image sets, generators, mixtures, and augmented images."""

from itertools import islice

import pytest
import torch
from torch import nn

from degan_search.data.images import augment, denormalise
from degan_search.networks.dcgan import build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig
from degan_search.stages.image_sources import AugmentedSource, GeneratorSource, ImageSource
from degan_search.training.measures import agreement, predict
from tests.stages.sources import LATENT, Constant, keys, make_generator, mixed_source, rng


def test_fresh_images_never_repeat(model, maker):
    source = GeneratorSource(maker, LATENT, model, DistillConfig(batch_size=8, pool=20, pool_refresh=1))
    seen = [key for x, _ in islice(source.batches(rng()), 10) for key in keys(x)]
    assert len(seen) == len(set(seen)) == 80


def test_reused_images_are_used_as_often_as_asked_before_new_ones(model, maker):
    source = GeneratorSource(maker, LATENT, model, DistillConfig(batch_size=8, pool=20, pool_refresh=1 / 3))
    batches = source.batches(rng())
    pools = []
    for _ in range(2):  # 16 images a pool (whole batches), three times each
        passes = [[key for x, _ in islice(batches, 2) for key in keys(x)] for _ in range(3)]
        assert sorted(passes[0]) == sorted(passes[1]) == sorted(passes[2])
        assert len(set(passes[0])) == 16
        assert passes[0] != passes[1]
        pools.append(set(passes[0]))
    assert not pools[0] & pools[1]


def test_generated_images_come_with_their_own_logits(model, maker):
    source = GeneratorSource(maker, LATENT, model, DistillConfig(batch_size=8, pool=16, pool_refresh=1 / 2))
    for x, logits in islice(source.batches(rng()), 5):
        assert not x.requires_grad
        assert x.abs().max() <= 1
        torch.testing.assert_close(logits, model(x))
    state = {name: value.clone() for name, value in maker.state_dict().items()}
    maker.train()
    source = GeneratorSource(maker, LATENT, model)
    source.make(30, rng())
    assert all(torch.equal(value, state[name]) for name, value in maker.state_dict().items())


def test_a_generator_source_keeps_its_generator_as_it_was(model):
    made = make_generator()
    source = GeneratorSource(made, LATENT, model)
    before = source.make(3, rng())[0]
    for weight in made.parameters():
        weight.data += 1
    assert torch.equal(source.make(3, rng())[0], before)


def test_chunks_do_not_change_how_many_are_made(model, maker):
    made, logits = GeneratorSource(maker, LATENT, model).make(1100, rng())
    assert made.shape == (1100, 1, 32, 32)
    assert logits.shape == (1100, 10)
    assert len(set(keys(made))) == 1100


def test_image_batches_have_the_teachers_logits(model, images):
    source = ImageSource(*images, model, 16, DistillConfig())
    assert source.steps_per_epoch == 4
    assert ImageSource(*images, model, 16, DistillConfig(steps_per_epoch=9)).steps_per_epoch == 9
    known = dict(zip(keys(images[0]), predict(model, images[0]), strict=True))
    seen = []
    for x, logits in islice(source.batches(rng()), 4):
        torch.testing.assert_close(logits, model(x))
        seen += keys(denormalise(x))
        for key, row in zip(keys(denormalise(x)), logits, strict=True):
            torch.testing.assert_close(row, known[key])
    assert sorted(seen) == sorted(keys(images[0]))


@pytest.mark.parametrize("trained", [True, False])
def test_a_generator_of_folded_norms_makes_the_same_images(model, maker, trained):
    source = GeneratorSource(maker if trained else build_generator(1, 2, LATENT), LATENT, model)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in source.generator.modules())
    if trained:
        assert any(isinstance(layer, nn.BatchNorm2d) for layer in maker.modules())
        made, logits = source.make(40, rng(2))
        whole = freeze(maker)
        with torch.no_grad():
            expected = whole(torch.randn(40, LATENT, 1, 1, generator=rng(2)))
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, model(made))
        assert made.std(0).mean() > 0.1  # images that differ


@pytest.mark.parametrize(
    ("share", "batch", "real"), [(0.25, 8, 2), (0.5, 8, 4), (0.3, 10, 3), (0.01, 8, 1), (0.99, 8, 7), (0.9, 2, 1)]
)
def test_each_batch_has_its_share_of_proxy_images(share, batch, real, model, maker, images):
    source = mixed_source(model, maker, images, share, max(1, round(share * batch)), batch, pool_refresh=1)
    known, seen = set(keys(images[0])), []
    for x, logits in islice(source.batches(rng()), 6):
        assert len(x) == len(logits) == batch
        assert not x.requires_grad
        # Proxy images come back to the same bytes; no generated one is among them.
        proxies = [key in known for key in keys(denormalise(x))]
        assert proxies == [False] * (batch - real) + [True] * real
        torch.testing.assert_close(logits, model(x))
        seen += keys(x)
    assert len(set(seen)) == len(seen)  # of either kind, new ones each time


def test_no_image_is_made_that_no_batch_has(model, maker, images, monkeypatch):
    source = mixed_source(model, maker, images, 0.5, 4, pool_refresh=1)
    plain, made = source.generated.make, []

    def make(*given):
        batch = plain(*given)
        made.extend(keys(batch[0]))
        return batch

    monkeypatch.setattr(source.generated, "make", make)
    seen = [key for x, _ in islice(source.batches(rng()), 16) for key in keys(x[:4])]
    assert len(made) == 64  # two pools
    assert sorted(made) == sorted(seen)


def test_all_proxy_images_are_mixed_in(model, maker, images):
    # 60 in batches of 7: eight, and one of 4, which leaves more room to generated ones.
    source = mixed_source(model, maker, images, 0.7, 7, 10)
    known = set(keys(images[0]))
    counts, seen = [], []
    for x, logits in islice(source.batches(rng()), 9):
        proxies = [key for key in keys(denormalise(x)) if key in known]
        counts.append((len(x), len(proxies)))
        seen += proxies
        torch.testing.assert_close(logits, model(x))
    assert counts == [(10, 7)] * 8 + [(10, 4)]
    assert sorted(seen) == sorted(known)


def test_a_mixtures_score_is_weighted_by_the_shares(model, maker, images):
    share = 0.3
    source = mixed_source(model, maker, images, share, 2, score_images=200, steps_per_epoch=11)
    assert source.steps_per_epoch == 11
    label = int(predict(model, images[1]).argmax(1).mode().values)
    for student in (Constant(label), Constant(int(source.generated.make(200, rng())[1].argmax(1).mode().values))):
        on_generated, on_images = source.generated.score(student, rng(5)), source.images.score(student, rng(5))
        assert on_generated != on_images
        assert source.score(student, rng(5)) == pytest.approx(0.7 * on_generated + 0.3 * on_images)
    assert source.score(model, rng(6)) == pytest.approx(1)


def test_a_mixture_follows_its_generator_of_numbers(model, maker, images):
    source = mixed_source(model, maker, images, 0.25, 2)
    first, again, other = (
        [key for x, _ in islice(source.batches(rng(seed)), 5) for key in keys(x)] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_augmented_images_have_the_logits_that_the_teacher_gives_them(model, images):
    plain = ImageSource(*images, model, 16, DistillConfig(steps_per_epoch=9))
    source = AugmentedSource(plain, model)
    assert source.steps_per_epoch == 9
    differing = 0
    for (x, logits), (before, stale) in zip(islice(source.batches(rng()), 4), plain.batches(rng()), strict=False):
        assert x.shape == before.shape
        assert not logits.requires_grad
        torch.testing.assert_close(logits, model(x))
        differing += int((logits - stale[: len(logits)]).abs().amax(1).gt(1e-3).sum())
    assert differing > 30
    # The first batch is the plain source's, augmented by what comes next from the same stream.
    stream = rng()
    expected = augment(next(plain.batches(stream))[0], stream)
    assert torch.equal(next(source.batches(rng()))[0], expected)
    assert torch.equal(next(source.batches(rng()))[0], expected)


class Counting(nn.Module):
    """A teacher that counts the images about which it is asked."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher, self.asked = teacher, 0

    def forward(self, x):
        self.asked += len(x)
        return self.teacher(x)


@pytest.mark.parametrize("kind", ["images", "generated", "mixed"])
def test_the_teacher_is_asked_about_augmented_images_alone(kind, model, maker, images):
    teacher = Counting(model)
    if kind == "images":
        plain = ImageSource(*images, teacher, 8, DistillConfig())
    elif kind == "generated":
        plain = GeneratorSource(maker, LATENT, teacher, DistillConfig(batch_size=8, pool=32))
    else:
        plain = mixed_source(teacher, maker, images, 0.25, 2)
    before = teacher.asked  # of images that are held out
    batches = list(islice(AugmentedSource(plain, teacher).batches(rng()), 7))
    assert teacher.asked - before == sum(len(x) for x, _ in batches) > 50
    for (x, none), (same, logits) in zip(plain.batches(rng(), False), islice(plain.batches(rng()), 7), strict=False):
        assert torch.equal(x, same)
        assert (none.shape, logits.shape) == ((len(x), 0), (len(x), 10))


def test_an_augmented_sources_score_is_on_images_as_they_are(model, maker, images):
    student = Constant(int(predict(model, images[1]).argmax(1).mode().values))
    plain = ImageSource(*images, model, 16, DistillConfig())
    assert AugmentedSource(plain, model).score(student, rng()) == plain.score(student, rng())
    generated = GeneratorSource(maker, LATENT, model, DistillConfig(score_images=100))
    assert AugmentedSource(generated, model).score(student, rng(3)) == generated.score(student, rng(3))


def test_the_score_of_images_is_agreement_on_the_held_out_ones(model, images):
    train, held_out = images
    said = predict(model, held_out).argmax(1)
    label = int(said.mode().values)
    train = train[predict(model, train).argmax(1) != label]  # no training image has that class
    source = ImageSource(train, held_out, model, 16, DistillConfig())
    expected = (said == label).double().mean().item()
    assert 0 < expected < 1
    assert source.score(Constant(label), rng()) == pytest.approx(expected)
    assert source.score(model, rng()) == 1


def test_the_score_of_a_generator_is_agreement_on_fresh_images(model, maker):
    source = GeneratorSource(maker, LATENT, model, DistillConfig(batch_size=8, score_images=600))
    student = build_classifier("lenet_half", 10, 2).eval()
    made, logits = source.make(600, rng(5))
    with torch.no_grad():
        assert source.score(student, rng(5)) == pytest.approx(agreement(student(made), logits))
    label = int(logits.argmax(1).mode().values)
    assert source.score(Constant(label), rng(5)) == (logits.argmax(1) == label).double().mean().item()
    assert source.score(model, rng(6)) == 1
    stream = rng(7)
    student = Constant(label)
    assert len({source.score(student, stream) for _ in range(6)}) > 1  # not the same images again
