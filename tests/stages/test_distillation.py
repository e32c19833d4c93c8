"""Sources of images with the teacher's logits, and distillation from them."""

from itertools import islice

import pytest
import torch
from torch import nn

from degan_search.data.images import augment, denormalise, normalise
from degan_search.networks.dcgan import build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig
from degan_search.stages.distillation import Distillation
from degan_search.stages.image_sources import AugmentedSource, GeneratorSource, ImageSource, MixedSource
from degan_search.system import seeds
from degan_search.training.batches import IndexBatches
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError, progress_of
from degan_search.training.losses import distillation_loss
from degan_search.training.measures import agreement, predict
from degan_search.training.resumable import snapshot

LATENT = 4


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model(teacher):
    return teacher.model()


@pytest.fixture(scope="module")
def maker():
    return make_generator()


@pytest.fixture(scope="module")
def images(true):
    return torch.from_numpy(true.images[true.train[:60]]), torch.from_numpy(true.images[true.held_out[:40]])


def make_generator():
    """An untrained generator of images with contrast, as its BatchNorms know their inputs."""
    with seeds.seeded(0, "test maker"):
        made = build_generator(1, 2, LATENT)
    nn.init.normal_(made[-2].weight, 0.0, 2.0, generator=rng())
    for layer in made:
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        made(torch.randn(100, LATENT, 1, 1, generator=rng()))
    return made


def keys(batch):
    """Each image as bytes, to see which are the same."""
    return [image.numpy().tobytes() for image in batch]


@pytest.mark.parametrize(("count", "size"), [(10, 3), (9, 3), (8, 4), (5, 8), (2, 2)])
def test_each_pass_covers_every_image_once(count, size):
    batches = IndexBatches(count, size, rng())
    per_pass = len([n for n in range(0, count, size) if min(size, count - n) > 1])
    orders = []
    for _ in range(3):
        seen = torch.cat(list(islice(batches, per_pass)))
        assert len(set(seen.tolist())) == len(seen)
        assert len(seen) == (count - 1 if count % size == 1 else count)
        orders.append(seen.tolist())
    if count > 2:
        assert orders[0] != orders[1]


def test_a_lone_last_image_is_left_out_but_for_a_lone_image():
    lengths = [len(batch) for batch in islice(IndexBatches(7, 3, rng()), 4)]
    assert lengths == [3, 3, 3, 3]
    assert [len(batch) for batch in islice(IndexBatches(8, 3, rng()), 3)] == [3, 3, 2]
    assert [batch.tolist() for batch in islice(IndexBatches(1, 3, rng()), 2)] == [[0], [0]]
    everything = torch.cat(list(islice(IndexBatches(7, 3, rng()), 20)))
    assert set(everything.tolist()) == set(range(7))  # no image is left out for ever


def test_batches_of_one_image_come_if_they_are_asked_for():
    batches = list(islice(IndexBatches(5, 1, rng()), 10))
    assert [len(batch) for batch in batches] == [1] * 10
    assert sorted(int(batch) for batch in batches[:5]) == sorted(int(batch) for batch in batches[5:]) == [0, 1, 2, 3, 4]


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


# Mixtures, and augmented images


def mixed_source(model, maker, images, share, real_batch, batch=8, **settings):
    config = DistillConfig(batch_size=batch, pool=32, **settings)
    generated = GeneratorSource(maker, LATENT, model, config)
    return MixedSource(generated, ImageSource(*images, model, real_batch, config), share)


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


def test_an_augmented_sources_score_is_on_images_as_they_are(model, maker, images):
    student = Constant(int(predict(model, images[1]).argmax(1).mode().values))
    plain = ImageSource(*images, model, 16, DistillConfig())
    assert AugmentedSource(plain, model).score(student, rng()) == plain.score(student, rng())
    generated = GeneratorSource(maker, LATENT, model, DistillConfig(score_images=100))
    assert AugmentedSource(generated, model).score(student, rng(3)) == generated.score(student, rng(3))


class Constant(nn.Module):
    """Says one class of every image."""

    def __init__(self, label):
        super().__init__()
        self.logits = nn.Parameter(nn.functional.one_hot(torch.tensor(label), 10).float())

    def forward(self, x):
        return self.logits.expand(len(x), -1)


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


def make_student():
    with seeds.seeded(0, "student"):
        return build_classifier("lenet_half", 10, 2)


@pytest.mark.parametrize("kind", ["images", "generator"])
def test_distillation_lowers_the_loss_and_ends_in_eval_mode(kind, model, maker, images):
    config = DistillConfig(batch_size=16, steps=120, steps_per_epoch=40, score_images=200, pool=64, lr=3e-3)
    source = (
        ImageSource(*images, model, 16, config) if kind == "images" else GeneratorSource(maker, LATENT, model, config)
    )
    x, logits = next(source.batches(rng(9)))
    if kind == "images":
        x, logits = normalise(images[1]), predict(model, images[1])
    student = make_student()
    with torch.no_grad():
        before = distillation_loss(student.eval()(x), logits, 20.0).item()
    progress = list(progress_of(Distillation(student, source, config, Context(0))))
    assert not any(module.training for module in student.modules())
    with torch.no_grad():
        after = distillation_loss(student(x), logits, 20.0).item()
    assert after < 0.8 * before
    assert [p.step for p in progress] == [40, 80, 90, 120]
    assert {p.stage for p in progress} == {"distill"}
    assert [p.score for p in progress] == sorted(p.score for p in progress)


def test_distillation_follows_its_seed_and_stage_alone(model, images):
    config = DistillConfig(batch_size=16, steps=4, steps_per_epoch=2)

    def run(seed=0, stage="distill", clutter=1):
        torch.manual_seed(clutter)
        with seeds.seeded(0, "dropout student"):
            student = build_classifier("alexnet_half", 10, 2, 1)
        before = torch.get_rng_state()
        source = ImageSource(*images, model, 16, config)
        list(progress_of(Distillation(student, source, config, Context(seed), stage)))
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([value.flatten().float() for value in student.state_dict().values()])

    first = run()
    assert torch.equal(first, run(clutter=2))
    assert not torch.equal(first, run(seed=1))
    assert not torch.equal(first, run(stage="probe"))


def test_distillation_by_sgd_ends_at_its_epochs_and_keeps_the_best(model, images):
    config = DistillConfig(batch_size=16, optimiser="sgd", lr=0.02, milestones=(0.5,), epochs=6, warm_up=0.1)
    source, student = ImageSource(*images, model, 16, config), make_student()
    with torch.no_grad():
        before = distillation_loss(student.eval()(normalise(images[0])), source.logits, 20.0).item()
    progress = list(progress_of(Distillation(student, AugmentedSource(source, model), config, Context(0))))
    assert [(p.step, p.of) for p in progress] == [(step, 24) for step in (4, 8, 12, 16, 20, 24)]
    assert progress[-1].score == pytest.approx(source.score(student, rng()))
    with torch.no_grad():
        assert distillation_loss(student(normalise(images[0])), source.logits, 20.0).item() < before


def test_a_teacher_without_finite_logits_ends_the_distillation(model, images):
    broken = freeze(model)
    next(broken.parameters()).data.fill_(float("nan"))
    config = DistillConfig(batch_size=16, steps=4, steps_per_epoch=2)
    with pytest.raises(DivergedError, match="distill: loss is nan at step 2"):
        source = ImageSource(*images, broken, 16, config)
        list(progress_of(Distillation(make_student(), source, config, Context(0))))


# Cut, and gone on with


def busy_source(model, maker, images, **settings):
    return AugmentedSource(
        mixed_source(model, maker, images, 0.5, 5, score_images=60, pool_refresh=1 / 3, **settings), model
    )


def test_batches_go_on_from_any_batch(model, maker, images):
    source, stream = busy_source(model, maker, images), rng()
    batches, seen, states = source.batches(stream), [], []
    for _ in range(30):  # over the ends of a pass, of a use of the pool, and of the pool
        seen.append(next(batches))
        states.append((stream.get_state(), snapshot(batches.state_dict())))
    assert len({x.numpy().tobytes() for x, _ in seen}) == 30
    for cut, (numbers, state) in enumerate(states):
        stream = rng(99)
        stream.set_state(numbers)
        later = source.batches(stream)
        later.load_state_dict(state)
        for batch in seen[cut + 1 :]:
            assert all(map(torch.equal, batch, next(later)))


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 36, "lr": 0.02},
        {"patience": 3, "epochs": 6},
        {"optimiser": "sgd", "lr": 0.1, "milestones": [0.4], "epochs": 9},
    ],
)
def test_distillation_goes_on_from_any_step(settings, model, maker, images):
    source = busy_source(model, maker, images, steps_per_epoch=4, **settings)
    config = source.source.generated.config

    def run(state=None):
        student, progress, states = make_student(), [], []
        with seeds.seeded(len(seen)):
            distillation = Distillation(student, source, config, Context(0))
            if state is not None:
                distillation.load_state_dict(state)
            while not distillation.done:
                progress.append(distillation.step())
                states.append(snapshot(distillation.state_dict()))
        return progress, [value.clone() for value in student.state_dict().values()], states

    seen = []
    seen, weights, states = run()
    # Some epochs were better than those before, and some were not: the best weights are not always the last.
    epochs = [progress for progress in seen if progress is not None]
    assert 1 < len({progress.score for progress in epochs}) < len(epochs) < len(seen)
    for cut, state in list(enumerate(states))[::3]:
        progress, again, _ = run(state)
        assert progress == seen[cut + 1 :]
        assert all(map(torch.equal, weights, again))
