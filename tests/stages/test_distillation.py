"""Distillation: it learns, follows its seed, goes on from any step, and ends as it is told."""

import pytest
import torch

from degan_search.data.images import normalise
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig
from degan_search.stages.distillation import Distillation
from degan_search.stages.image_sources import AugmentedSource, GeneratorSource, ImageSource
from degan_search.system import seeds
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError, progress_of
from degan_search.training.losses import distillation_loss
from degan_search.training.measures import predict
from degan_search.training.resumable import snapshot
from tests.stages.sources import LATENT, make_student, mixed_source, rng


def test_an_image_of_a_short_batch_counts_as_one_of_a_whole_batch(model, images):
    """The released code sums over a batch; here the sum is divided by 40, of the last 10 of 50 images as well."""
    lr, size, train = 0.003, 40, images[0][:50]
    config = DistillConfig(optimiser="sgd", momentum=0, lr=lr, batch_size=size, temperature=4, epochs=2)
    source = ImageSource(train, images[1], model, size, config)
    with seeds.seeded(0, "linear"):
        student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32, 10))
    weight, bias = (value.detach().double().requires_grad_() for value in student[1].parameters())
    batches, seen = source.batches(Context(0).generator("distill", "images")), []
    for _ in range(4):
        x, logits = (part.double() for part in next(batches))
        mine, wanted = ((part / 4).log_softmax(1) for part in (x.flatten(1) @ weight.T + bias, logits))
        loss = 16 * (wanted.exp() * (wanted - mine)).sum() / size
        gradients = torch.autograd.grad(loss, (weight, bias))
        weight, bias = ((v - lr * g).detach().requires_grad_() for v, g in zip((weight, bias), gradients, strict=True))
        seen.append((len(x), float(loss.detach())))
    progress = list(progress_of(Distillation(student, source, config, Context(0))))
    assert [count for count, _ in seen] == [40, 10, 40, 10]
    assert [p.loss for p in progress] == pytest.approx([seen[1][1], seen[3][1]], rel=1e-4)
    torch.testing.assert_close(student[1].weight.double(), weight, rtol=1e-4, atol=1e-6)


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


def test_a_distillation_that_is_done_goes_back_to_a_saved_step(model, images):
    config = DistillConfig(batch_size=16, steps=6, steps_per_epoch=2)
    with seeds.seeded(0, "dropout student"):
        student = build_classifier("alexnet_half", 10, 2, 1)
    distillation = Distillation(student, ImageSource(*images, model, 16, config), config, Context(0))
    distillation.step()
    state = snapshot(distillation.state_dict())
    ends = []
    for _ in range(2):
        distillation.load_state_dict(snapshot(state))
        list(progress_of(distillation))
        ends.append([value.clone() for value in student.state_dict().values()])
    assert all(map(torch.equal, *ends))  # dropout draws from the stage's generator again
