"""The losses against the paper's equations in numpy's float64, known values, gradients and extremes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from degan_search.system.errors import UserError
from degan_search.training.losses import (
    degan_generator_loss,
    discriminator_loss,
    distillation_loss,
    divergence_loss,
    diversity_loss,
    entropy_loss,
    generator_loss,
)

RANDOM = np.random.default_rng(0)
CLASS, OTHER = RANDOM.normal(0, 3, (7, 5)), RANDOM.normal(0, 3, (7, 5))
REAL, FAKE = RANDOM.normal(0, 2, 7), RANDOM.normal(0, 2, 7)


# The equations as the paper writes them, on probabilities.
def softmax(x, t=1.0):
    e = np.exp(x / t)
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def entropy(x):
    return np.mean([-sum(p * math.log(p) for p in y) for y in softmax(x)])


def diversity(x):
    return -sum(w * math.log(w) for w in softmax(x).mean(axis=0))


def discriminator(real, fake):
    return -(np.log(sigmoid(real)).mean() + np.log(1 - sigmoid(fake)).mean())


def generator(fake):
    return -np.log(sigmoid(fake)).mean()


def distillation(student, teacher, t):
    p, q = softmax(teacher, t), softmax(student, t)
    return t**2 * np.mean([(a * np.log(a / b)).sum() for a, b in zip(p, q, strict=True)])


def slope(function, x, step=1e-5):
    """Central differences of a scalar function of an array."""
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[index] = step
        result[index] = (function(x + moved) - function(x - moved)) / (2 * step)
    return result


CASES = {
    "entropy": (entropy_loss, entropy, CLASS),
    "diversity": (diversity_loss, diversity, CLASS),
    "generator": (generator_loss, generator, FAKE),
    "discriminator, real": (
        lambda x: discriminator_loss(x, torch.tensor(FAKE)),
        lambda x: discriminator(x, FAKE),
        REAL,
    ),
    "discriminator, fake": (
        lambda x: discriminator_loss(torch.tensor(REAL), x),
        lambda x: discriminator(REAL, x),
        FAKE,
    ),
    "degan": (
        lambda x: degan_generator_loss(torch.tensor(FAKE), x, 1.5, 5.0).total,
        lambda x: generator(FAKE) + 1.5 * entropy(x) - 5.0 * diversity(x),
        CLASS,
    ),
    "degan, no discriminator": (
        lambda x: degan_generator_loss(None, x, 1.5, 5.0).total,
        lambda x: 1.5 * entropy(x) - 5.0 * diversity(x),
        CLASS,
    ),
    "divergence, student": (
        lambda x: divergence_loss(x, torch.tensor(OTHER)),
        lambda x: distillation(x, OTHER, 1.0),
        CLASS,
    ),
    "divergence, teacher": (
        lambda x: divergence_loss(torch.tensor(OTHER), x),
        lambda x: distillation(OTHER, x, 1.0),
        CLASS,
    ),
    **{
        f"distillation, T = {t}": (
            lambda x, t=t: distillation_loss(x, torch.tensor(OTHER), t),
            lambda x, t=t: distillation(x, OTHER, t),
            CLASS,
        )
        for t in (1.0, 20.0)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_the_equations(name):
    ours, equation, x = CASES[name]
    logits = torch.tensor(x, requires_grad=True)
    loss = ours(logits)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(equation(x), rel=1e-6)
    loss.backward()
    np.testing.assert_allclose(logits.grad.numpy(), slope(equation, x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_lower_precision_is_computed_in_float32(name, dtype):
    ours, equation, x = CASES[name]
    logits = torch.tensor(x, dtype=dtype)
    assert ours(logits).item() == pytest.approx(equation(logits.double().numpy()), rel=1e-5)


def test_known_values():
    uniform, one_hot = torch.zeros(6, 10), 1e4 * torch.eye(10)
    assert entropy_loss(uniform).item() == pytest.approx(math.log(10))
    assert diversity_loss(uniform).item() == pytest.approx(math.log(10))
    assert entropy_loss(one_hot).item() == 0
    assert diversity_loss(one_hot).item() == pytest.approx(math.log(10))
    assert diversity_loss(one_hot[:4]).item() == pytest.approx(math.log(4))
    assert diversity_loss(one_hot[[3, 3, 3]]).item() == 0
    assert generator_loss(torch.zeros(5)).item() == pytest.approx(math.log(2))
    assert discriminator_loss(torch.zeros(5), torch.zeros(3)).item() == pytest.approx(2 * math.log(2))
    # p = (1/2, 1/2), q = (1/4, 3/4): KL = log(2) / 2 + log(2/3) / 2
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    assert distillation_loss(student, teacher, 1).item() == pytest.approx(math.log(4 / 3) / 2)
    assert divergence_loss(student, teacher).item() == pytest.approx(math.log(4 / 3) / 2)
    # The other way round: log(1/2) / 4 + 3 log(3/2) / 4
    assert divergence_loss(teacher, student).item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2))
    assert distillation_loss(20 * student, 20 * teacher, 20).item() == pytest.approx(200 * math.log(4 / 3))


def test_each_player_wants_its_own():
    sure = torch.full((4,), 9.0)
    assert discriminator_loss(sure, -sure) < 1e-3 < discriminator_loss(-sure, sure)
    assert generator_loss(sure) < 1e-3 < generator_loss(-sure)
    collapsed, spread = 9 * torch.eye(4)[[0, 0, 0, 0]], 9 * torch.eye(4)
    totals = [degan_generator_loss(sure, logits, 1.0, 5.0).total for logits in (spread, collapsed)]
    assert totals[0] < totals[1]


def test_parts_sum_to_the_total():
    loss = degan_generator_loss(torch.tensor(FAKE), torch.tensor(CLASS), 0.3, 7.0)
    assert loss.total.item() == pytest.approx(
        (loss.adversarial + 0.3 * loss.entropy - 7.0 * loss.diversity).item(), rel=1e-12
    )


def test_without_a_discriminator_the_adversarial_part_is_0():
    logits = torch.tensor(CLASS, requires_grad=True)
    loss = degan_generator_loss(None, logits, 0.3, 7.0)
    assert loss.adversarial.item() == 0
    assert loss.total.item() == pytest.approx((0.3 * loss.entropy - 7.0 * loss.diversity).item(), rel=1e-12)
    nothing = degan_generator_loss(None, logits, 0.0, 0.0).total
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, logits)[0].eq(0).all()


def test_zero_lambdas_give_exactly_dcgans_gradient():
    through = torch.tensor(RANDOM.normal(size=(4, 5)), dtype=torch.float32)
    gradients = []
    for degan in (True, False):
        images = torch.tensor(CLASS[:, :4], dtype=torch.float32, requires_grad=True)
        fake_logits, class_logits = images.sum(dim=1), images @ through
        loss = degan_generator_loss(fake_logits, class_logits, 0.0, 0.0).total if degan else generator_loss(fake_logits)
        gradients.append((loss.detach(), *torch.autograd.grad(loss, images)))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def extremes() -> Tensor:
    x = torch.full((4, 5), -1e4)
    x[0, 0] = x[1, 1] = x[2] = 1e4
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("other", [extremes(), -extremes(), torch.zeros(4, 5)])
def test_extreme_logits_give_finite_losses_and_gradients(other, dtype):
    x, other = extremes().to(dtype).requires_grad_(), other.to(dtype)
    losses = [
        entropy_loss(x),
        diversity_loss(x),
        generator_loss(x[:, 0]),
        discriminator_loss(x[:, 0], other[:, 0]),
        discriminator_loss(other[:, 0], x[:, 0]),
        degan_generator_loss(x[:, 0], x, 10.0, 50.0).total,
        distillation_loss(x, other, 1.0),
        distillation_loss(x, other, 20.0),
        degan_generator_loss(None, x, 10.0, 50.0).total,
        divergence_loss(x, other),
        divergence_loss(other, x),
    ]
    for loss in losses:
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert torch.autograd.grad(loss, x, retain_graph=True)[0].isfinite().all()


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e4, 1e4, width=32)),
    st.sampled_from([1.0, 4.0, 20.0]),
)
def test_bounds_hold_for_any_logits(x, temperature):
    logits = torch.tensor(x)
    highest = math.log(x.shape[1]) + 1e-5
    mean_entropy, diversity = entropy_loss(logits).item(), diversity_loss(logits).item()
    assert -1e-5 <= mean_entropy <= diversity + 1e-5  # the entropy is concave
    assert diversity <= highest
    assert distillation_loss(logits, logits.flip(0), temperature).item() >= -1e-3
    assert distillation_loss(logits, logits, temperature).item() == 0
    assert divergence_loss(logits, logits.flip(0)).item() >= -1e-3
    assert divergence_loss(logits, logits).item() == 0


def test_no_gradient_reaches_the_teacher():
    student, teacher = (torch.tensor(x, requires_grad=True) for x in (CLASS, OTHER))
    distillation_loss(student, teacher, 4.0).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_unusable_arguments_are_refused():
    logits = torch.zeros(3, 4)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match="temperature"):
            distillation_loss(logits, logits, temperature)
    with pytest.raises(UserError, match="shapes"):
        distillation_loss(logits, logits[:1], 1.0)
