"""ZSKD: class similarity on a network made by hand, the drawn targets, and images made on a small teacher."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from degan_search.data.images import normalise
from degan_search.networks.table import build_classifier
from degan_search.settings.lengths import distill_config
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import ZskdConfig
from degan_search.stages import zskd
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError, progress_of
from degan_search.training.resumable import snapshot

CLASSES = 4
SMALL = ZskdConfig(images=24, scales=(1.0, 0.1), iterations=60, batch_size=10, lr=0.1, temperature=2.0)


def linear(rows):
    """A network that ends in these class weights, behind another linear layer that does not count."""
    weights = torch.tensor(rows)
    layers = nn.Sequential(nn.Linear(3, weights.shape[1]), nn.ReLU(), nn.Linear(weights.shape[1], len(weights)))
    layers[-1].weight.data = weights
    return layers


def make_teacher(seed=0):
    with seeds.seeded(seed, "test"):
        model = build_classifier("lenet", CLASSES, 2)
    for parameter in model.parameters():
        parameter.data *= 3  # outputs that differ from image to image
    return model


def run(teacher, config=SMALL, seed=0):
    synthesis = zskd.ZskdSynthesis(teacher, config, (1, 32, 32), Context(seed))
    seen = list(progress_of(synthesis))
    return synthesis.images, seen


def outputs(teacher, images, temperature):
    teacher = copy.deepcopy(teacher).eval()
    with torch.no_grad():
        return (teacher(normalise(images)) / temperature).softmax(dim=1)


def wanted(teacher, config=SMALL, seed=0):
    numbers = np.random.default_rng(seeds.stream_seed(seed, "zskd", "targets"))
    return zskd.targets(zskd.class_similarity(teacher), config, numbers)


# Class similarity
def test_similarity_of_rows_with_known_angles():
    # Cosines of the first row: 1, 0.6, 0, -1; of the second: 0.6, 1, 0.8, -0.6.
    found = zskd.class_similarity(linear([[2.0, 0.0], [0.3, 0.4], [0.0, 5.0], [-1.0, 0.0]]))
    assert found[0].tolist() == pytest.approx([1, 0.8, 0.5, 0], abs=1e-6)
    assert found[1].tolist() == pytest.approx([1.2 / 1.6, 1, 1.4 / 1.6, 0], abs=1e-6)
    assert found.diagonal().tolist() == [1] * 4


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[1.0, 2.0], [2.0, 4.0], [0.1, 0.2]]])
def test_similarity_without_a_range_is_one(rows):
    assert torch.equal(zskd.class_similarity(linear(rows)), torch.ones(len(rows), len(rows)).double())


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_similarity_is_in_range_whatever_the_weights(classes, width, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(classes, width)) * rng.choice([0, 1e-20, 1, 1e10], size=(classes, 1))
    found = zskd.class_similarity(linear(rows.tolist()))
    assert found.min() >= 0 and found.max() <= 1
    assert found.diagonal().tolist() == [1] * classes


def test_torchscript_and_convolutions_are_refused():
    script = torch.jit.trace(make_teacher().eval(), torch.zeros(1, 1, 32, 32))
    with pytest.raises(UserError, match=r"zskd.*TorchScript.*state dict"):
        zskd.class_similarity(script)
    with pytest.raises(UserError, match=r"nn\.Linear, but the teacher has none"):
        run(nn.Sequential(nn.Conv2d(1, 3, 32), nn.Flatten()))


# Targets
@given(
    st.integers(1, 60),
    st.integers(1, 7),
    st.lists(st.floats(1e-12, 100), min_size=1, max_size=3),
    st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_targets_are_probabilities_and_as_many_as_asked(images, classes, scales, seed):
    rng = np.random.default_rng(seed)
    similarity = torch.from_numpy(rng.choice([0, 1e-30, 0.5, 1], size=(classes, classes))).fill_diagonal_(1)
    found = zskd.targets(similarity, ZskdConfig(images=images, scales=tuple(scales)), rng)
    assert found.shape == (images, classes) and found.dtype == torch.float32
    assert found.min() >= 0  # false for NaN
    assert (found.sum(dim=1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize(("images", "scales"), [(40, (1.0, 0.1)), (41, (1.0, 0.1)), (47, (1.0, 0.5, 0.1)), (3, (1.0,))])
def test_scales_and_classes_have_equal_shares(images, scales):
    # Nothing alike: a row of class k is nearly 1 at k and tells its class.
    found = zskd.targets(torch.eye(5), ZskdConfig(images=images, scales=scales), np.random.default_rng(0))
    assert found.amax(dim=1).min() > 0.9
    labels = found.argmax(dim=1)
    assert labels.bincount(minlength=5).max() - labels.bincount(minlength=5).min() <= 1
    shares = np.array_split(labels.numpy(), len(scales))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for share in shares:
        counts = np.bincount(share, minlength=5)
        assert counts.max() - counts.min() <= 1


def test_targets_have_the_dirichlet_distributions_moments():
    similarity = torch.tensor([[1.0, 0.5, 0.0], [0.25, 1.0, 0.75], [0.0, 1.0, 1.0]])
    found = zskd.targets(similarity, ZskdConfig(images=30_000, scales=(2.0, 0.1)), np.random.default_rng(0))
    for scale, share in zip((2.0, 0.1), found.split(15_000), strict=True):
        for concentration, rows in zip(scale * similarity.double() + 1e-4, share.double().split(5000), strict=True):
            total = concentration.sum()
            mean = concentration / total
            assert (rows.mean(dim=0) - mean).abs().max() < 0.02
            assert (rows.var(dim=0) - mean * (1 - mean) / (total + 1)).abs().max() < 0.01


# Images
def test_images_reach_their_targets():
    teacher = make_teacher().eval()
    images, seen = run(teacher)
    assert images.shape == (24, 1, 32, 32) and images.dtype == torch.uint8 and images.is_contiguous()
    ends = [progress for progress in seen if progress.step % SMALL.iterations == 0]
    assert [progress.step for progress in ends] == [60, 120, 180]
    assert seen[0].score < -0.05 and ends[0].score > seen[0].score / 4
    aims, noise = wanted(teacher), torch.randint(0, 256, images.shape, dtype=torch.uint8)
    away = (outputs(teacher, images, 2.0) - aims).abs().sum(dim=1).mean()
    assert away < (outputs(teacher, noise, 2.0) - aims).abs().sum(dim=1).mean() / 3


def test_progress_is_the_mean_cross_entropy_of_images_in_range():
    teacher, config = make_teacher().eval(), SMALL.model_copy(update={"images": 6, "lr": 10.0})
    # A step of 10 leaves [-1, 1] at once: the second step's loss is that of the clamped images.
    images, _ = run(teacher, config.model_copy(update={"iterations": 1}))
    _, seen = run(teacher, config.model_copy(update={"iterations": 2}))
    aims = wanted(teacher, config).double()
    cross_entropy = -(aims * outputs(teacher, images, 2.0).double().log()).sum(dim=1).mean()
    entropy = -(aims * aims.clamp_min(1e-300).log()).sum(dim=1).mean()
    assert (seen[1].stage, seen[1].step, seen[1].of) == ("zskd", 2, 2)
    assert seen[1].loss == pytest.approx(float(cross_entropy), abs=0.01)  # the images were rounded to bytes
    assert seen[1].score == pytest.approx(float(entropy) - seen[1].loss, abs=1e-5)


def test_images_start_as_uniform_noise_and_stay_in_range():
    config = ZskdConfig(images=20, iterations=1, batch_size=20, lr=1e-9)
    start, _ = run(make_teacher(), config)
    assert start.float().mean() == pytest.approx(127.5, abs=2)
    assert start.float().std() == pytest.approx(255 / math.sqrt(12), abs=1)
    assert not torch.equal(run(make_teacher(), config, seed=1)[0], start)
    moved, _ = run(make_teacher(), config.model_copy(update={"lr": 10.0}))
    # One step of 10 leaves [-1, 1] wherever a gradient is: the pixels are at its ends, not wrapped around.
    changed = moved[moved != start]
    assert len(changed) > moved.numel() / 2
    assert set(changed.tolist()) == {0, 255}


@pytest.mark.parametrize(("iterations", "batch_size"), [(200, 12), (3, 1)])
def test_progress_comes_about_fifty_times(iterations, batch_size):
    config = SMALL.model_copy(update={"iterations": iterations, "batch_size": batch_size})
    _, seen = run(make_teacher(), config)
    steps = [progress.step for progress in seen]
    of = iterations * math.ceil(24 / batch_size)
    assert 40 <= len(steps) <= 75 and steps == sorted(set(steps)) and steps[-1] == of
    assert {progress.of for progress in seen} == {of}


def test_a_seed_gives_its_images_and_moves_no_other_randomness():
    config = SMALL.model_copy(update={"iterations": 3})
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, _ = run(make_teacher(), config, seed=1)
    torch.rand(5)
    assert torch.equal(run(make_teacher(), config, seed=1)[0], first)
    assert not torch.equal(run(make_teacher(), config, seed=2)[0], first)
    torch.set_rng_state(before)
    run(make_teacher(), config, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


def test_the_batch_size_does_not_change_the_images():
    # A high temperature leaves small gradients; averaged over a batch they would come near Adam's epsilon.
    config = ZskdConfig(images=200, iterations=5, temperature=1000)
    whole, parts = (run(make_teacher(), config.model_copy(update={"batch_size": size}))[0] for size in (200, 10))
    assert ((whole.int() - parts.int()).abs() > 1).float().mean() < 0.001


def test_the_teacher_stays_as_it_is():
    teacher = make_teacher().train()
    teacher[0].weight.requires_grad_(False)
    state, needs = copy.deepcopy(teacher.state_dict()), [weights.requires_grad for weights in teacher.parameters()]
    run(teacher, SMALL.model_copy(update={"iterations": 2}))
    assert all(module.training for module in teacher.modules())
    assert [weights.requires_grad for weights in teacher.parameters()] == needs
    assert all(weights.grad is None for weights in teacher.parameters())
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize(("images", "iterations", "step"), [(24, 60, 3), (200, 1, 1)])
def test_a_loss_that_is_not_finite_is_reported(images, iterations, step):
    # At the first report, which comes each 50th of all steps; and at a batch's end, where that is sooner.
    teacher = make_teacher()
    teacher[0].bias.data.fill_(math.nan)
    config = ZskdConfig(images=images, iterations=iterations, batch_size=10 if iterations > 1 else 1)
    with pytest.raises(DivergedError, match=f"zskd: loss is nan at step {step}$"):
        run(teacher, config)


# The authors' code
RELEASED = {"zskd.profile": "released", "zskd.images": 32, "zskd.iterations": 4, "zskd.batch_size": 2, "zskd.lr": 0.1}


def by_the_released_code(teacher, aims, classes, config, noise_rng):
    """Images in [0, 1] as the authors' script makes them, at half the rate on that range: each class at each scale."""
    made = []
    for rows in aims.split(len(aims) // (len(config.scales) * classes)):
        pixels = None
        for wanted in rows.split(config.batch_size):
            if pixels is None:
                pixels = torch.rand(len(wanted), 1, 32, 32, generator=noise_rng)
            pixels = pixels.detach().double().requires_grad_()
            adam = torch.optim.Adam([pixels], lr=config.lr / 2)
            for _ in range(config.iterations):
                logits = teacher(2 * pixels - 1) / config.temperature
                adam.zero_grad()
                (-(wanted.double() * logits.log_softmax(1)).sum()).backward()
                adam.step()
                with torch.no_grad():
                    pixels.copy_((pixels - pixels.min()) / (pixels.max() - pixels.min()))
            made.append(pixels.detach().clone())
    return torch.cat(made)


def test_the_released_profile_makes_the_images_of_the_authors_code():
    teacher, config = make_teacher().eval(), trial_config(RELEASED).zskd
    images, _ = run(teacher, config)
    rng = Context(0).generator("zskd", "noise")
    plain = copy.deepcopy(teacher).double()
    expected = 255 * by_the_released_code(plain, wanted(teacher, config), CLASSES, config, rng)
    near = (images.double() - expected).abs() < 0.51  # rounded to bytes
    assert near.double().mean() > 0.998  # Adam makes much of gradients that are next to nothing, and of their rounding
    groups = images.split(4)
    for first, second in (group.double().split(2) for group in groups):
        assert (first - second).abs().mean() < 35  # the second batch goes on from the first
    assert (groups[0].double() - groups[1].double()).abs().mean() > 50  # another class begins from noise
    assert all(int(batch.min()) == 0 and int(batch.max()) == 255 for batch in images.split(2))


def test_the_released_profile_goes_on_from_any_step():
    teacher, config = make_teacher().eval(), trial_config(RELEASED).zskd
    whole, states = zskd.ZskdSynthesis(teacher, config, (1, 32, 32), Context(0)), []
    while not whole.done:
        whole.step()
        states.append(snapshot(whole.state_dict()))
    for state in states[5::17]:
        rest = zskd.ZskdSynthesis(teacher, config, (1, 32, 32), Context(0))
        rest.load_state_dict(state)
        list(progress_of(rest))
        assert torch.equal(rest.images, whole.images)


def test_the_released_profile_has_the_codes_numbers_and_its_student_batches_of_64():
    config = trial_config({"method": "zskd", "zskd.profile": "released"})
    assert (config.zskd.scales, config.zskd.batch_size, config.zskd.lr) == ((1.0, 1.0), 100, 0.002)
    student = distill_config(config)
    assert (student.batch_size, student.batch_of, student.augment) == (64, "used", True)
    paper = trial_config({"method": "zskd", "zskd.profile": "released"}, {"zskd.profile": "paper"})
    assert (paper.zskd.scales, distill_config(paper)) == ((1.0, 0.1), paper.distill_images)
    assert trial_config({"zskd": {"profile": "released", "lr": 0.5}}).zskd.lr == 0.5
    for method in ("proxy", "zskd_matched", "degan"):
        assert not distill_config(config.model_copy(update={"method": method})).augment
