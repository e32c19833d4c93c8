"""The losses that are not the paper's: a rival student, BatchNorm's statistics, and no discriminator."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import GanConfig
from degan_search.stages.gan import build
from degan_search.stages.gan_training import GanTraining
from degan_search.system import seeds
from degan_search.training.context import Context
from degan_search.training.loop import progress_of
from degan_search.training.losses import distillation_loss
from tests.stages.gan_networks import (
    CLASSES,
    DISTILLING,
    LATENT,
    batches,
    config,
    make_student,
    make_teacher,
    normed_teacher,
    proxy_images,
    trained,
)

EXTENSIONS = [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)]


def extended(teacher, channels=1, adversarial=True, distilling=DISTILLING, dtype=torch.float64, **lambdas):
    """A GAN with the losses that are not the paper's, in float64, and a rival that it may need."""
    settings = config(**{"lambda_e": 0.5, "lambda_d": 2.0} | lambdas)
    student = make_student(channels=channels).to(dtype), distilling
    gan = build(settings, (channels, 32, 32), teacher, Context(1), adversarial, student)
    for model in (gan.generator, gan.discriminator):
        if model:
            model.to(dtype)
    gan.generator[-2].weight.data *= 10
    return gan


def written_losses(gan, generator, z):
    """Equation 7 and what was added to it, on probabilities, after the step of discriminator and rival."""
    settings, entered, hooks = gan.config, [], []
    for layer in gan.teacher.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            hooks.append(layer.register_forward_pre_hook(lambda layer, inputs: entered.append((layer, inputs[0]))))
    fake = generator(z)
    y = torch.softmax(gan.teacher(fake), 1)
    for hook in hooks:
        hook.remove()
    w = y.mean(0)
    entropy, diversity = -(y * y.log()).sum(1).mean(), -(w * w.log()).sum()
    adversarial = torch.zeros(())
    if gan.discriminator is not None:
        adversarial = -torch.log(1 / (1 + torch.exp(-gan.discriminator(fake)))).mean()
    total = adversarial + settings.lambda_e * entropy - settings.lambda_d * diversity
    divergence = bn_loss = torch.tensor(math.nan)
    if settings.lambda_s:
        divergence = (y * (y / torch.softmax(gan.rival.student(fake), 1)).log()).sum(1).mean()
        total = total - settings.lambda_s * divergence
    if settings.lambda_bn:
        layers = []
        for layer, values in entered:
            dims = [dim for dim in range(values.dim()) if dim != 1]
            mean, kept = values.mean(dims), (layer.running_var + layer.eps).sqrt()
            deviation = (values.var(dims, correction=0) + layer.eps).sqrt()
            layers.append((((mean - layer.running_mean) / kept) ** 2 + ((deviation - kept) / kept) ** 2).mean())
        bn_loss = sum(layers) / len(layers)
        total = total + settings.lambda_bn * bn_loss
    return total, adversarial, entropy, diversity, divergence, bn_loss


@pytest.mark.parametrize("adversarial", [True, False])
@pytest.mark.parametrize(("lambda_s", "lambda_bn"), [*EXTENSIONS, (0.0, 0.0)])
def test_the_generators_loss_and_gradient_are_written_out_in_float64(lambda_s, lambda_bn, adversarial):
    teacher = normed_teacher()
    gan = extended(teacher, 3, adversarial, lambda_s=lambda_s, lambda_bn=lambda_bn)
    # BatchNorm's sums are gathered in float32.
    precision = 1e-4 if lambda_bn else 1e-9
    for real, z in batches(2, 3):
        generator = copy.deepcopy(gan.generator)
        losses = gan.step(real, z)
        written = written_losses(gan, generator, z)
        expected = [value.item() for value in written]
        np.testing.assert_allclose(losses[1:-1].tolist(), expected, rtol=precision, atol=1e-12)
        assert math.isnan(losses[0]) == (not adversarial)
        gradients = torch.autograd.grad(written[0], list(generator.parameters()))
        for ours, other in zip(gan.generator.parameters(), gradients, strict=True):
            assert (ours.grad - other).norm() <= 10 * precision * other.norm()
            assert other.norm() > 0
    assert (gan.rival is None) == (not lambda_s)
    assert (gan.discriminator is None) == (gan.adam_d is None) == (not adversarial)


def test_each_added_loss_changes_the_generators_gradient():
    # So that the agreement above could fail.
    seen = []
    for lambda_s, lambda_bn in [*EXTENSIONS, (0.0, 0.0), (2.5, 0.0)]:
        gan = extended(normed_teacher(), 3, lambda_s=lambda_s, lambda_bn=lambda_bn)
        gan.step(*next(batches(1, 3)))
        seen.append(torch.cat([weight.grad.flatten() for weight in gan.generator.parameters()]))
    for one in range(len(seen)):
        for other in range(one):
            assert (seen[one] - seen[other]).norm() > 1e-4 * seen[one].norm()


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_the_rival_takes_one_distillation_step_a_step_of_the_gan(optimiser):
    distilling = DISTILLING.model_copy(update={"optimiser": optimiser, "weight_decay": 0.01})
    gan = extended(freeze(make_teacher().double()), lambda_s=2.0, distilling=distilling)
    student = copy.deepcopy(gan.rival.student)
    theirs = (
        torch.optim.Adam(student.parameters(), lr=0.01, betas=(0.5, 0.999), weight_decay=0.01)
        if optimiser == "adam"
        else torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    )
    arrived = []
    for weight in gan.rival.student.parameters():
        weight.register_post_accumulate_grad_hook(lambda weight: arrived.append(weight))
    for real, z in batches(4):
        fake = copy.deepcopy(gan.generator)(z).detach()
        theirs.zero_grad()
        distillation_loss(student(fake), gan.teacher(fake), 4.0).backward()
        theirs.step()
        arrived.clear()
        gan.step(real, z)
        assert len(arrived) == len(list(student.parameters()))  # the generator's pass leaves none
        for ours, other in zip(gan.rival.student.parameters(), student.parameters(), strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-6, atol=1e-12)
            assert ours.requires_grad
    assert all(weight.requires_grad for weight in gan.discriminator.parameters())


def test_each_network_gets_its_own_gradients_and_the_teacher_none():
    teacher = normed_teacher(torch.float32)
    gan = extended(teacher, 3, dtype=torch.float32, lambda_s=1.0, lambda_bn=1.0)
    before = copy.deepcopy(teacher.state_dict())
    arrived = []
    for name, model in (("G", gan.generator), ("D", gan.discriminator), ("S", gan.rival.student)):
        for weight in model.parameters():
            weight.register_post_accumulate_grad_hook(lambda _, name=name: arrived.append(name))
    for real, z in batches(2, 3, torch.float32):
        arrived.clear()
        assert gan.step(real, z).isfinite().all()
        for name, model in (("G", gan.generator), ("D", gan.discriminator), ("S", gan.rival.student)):
            assert arrived.count(name) == len(list(model.parameters()))
    assert all(weight.grad is None for weight in teacher.parameters())
    assert not any(module.training or module._forward_pre_hooks for module in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_student_that_nothing_is_set_against_changes_no_bit():
    states = []
    for student in (None, (make_student(), DISTILLING)):
        gan = build(config(1.0, 5.0), (1, 32, 32), freeze(make_teacher()), Context(1), True, student)
        assert gan.rival is None
        losses = [gan.step(real, z) for real, z in batches(3, dtype=torch.float32)]
        assert torch.stack(losses)[:, 5:7].isnan().all()
        states.append([*gan.generator.state_dict().values(), *gan.discriminator.state_dict().values()])
        states[-1].append(torch.stack(losses)[:, [0, 1, 2, 3, 4, 7]])
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_a_rivals_dropout_follows_the_seed():
    settings = config(batch_of="used", steps=3, lambda_s=5.0, lr=0.01)
    found = []
    for globally, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(globally)
        before = torch.get_rng_state()
        with seeds.seeded(0, "student"):
            student = build_classifier("alexnet_half", CLASSES, 2, 1)
        found.append(trained(settings, seed, student=(student, DISTILLING))[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_rival_is_fought_with_its_weight_and_changes_the_generator():
    found = [
        trained(config(batch_of="used", steps=4, lambda_s=weight), student=(make_student(), DISTILLING))
        for weight in (0.0, 1.0, 50.0)
    ]
    assert not torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[1][0], found[2][0])
    assert all(math.isnan(point.losses["divergence"]) for point in found[0][1])
    assert all(point.losses["divergence"] >= 0 for point in found[1][1])
    last = found[2][1][-1].losses
    expected = last["adversarial"] - 5 * last["diversity"] - 50 * last["divergence"]
    assert last["g_loss"] == pytest.approx(expected, rel=1e-5)


def test_images_come_nearer_to_the_teachers_statistics():
    settings = GanConfig(
        lambda_e=0,
        lambda_d=0,
        lambda_bn=10.0,
        width=2,
        latent=LATENT,
        batch_size=20,
        batch_of="used",
        steps=40,
        lr=0.01,
    )
    proxy = proxy_images().expand(-1, 3, -1, -1).contiguous()
    gan = build(settings, (3, 32, 32), normed_teacher(torch.float32), Context(0), False)
    losses = [point.losses["bn_loss"] for point in progress_of(GanTraining(gan, proxy, 20, Context(0)))]
    assert losses[-1] < 0.8 * losses[0]


def test_without_a_discriminator_the_classifier_alone_teaches():
    settings = config(1.0, 5.0, batch_of="used", steps=6, lr=0.01)
    teacher = freeze(make_teacher())
    weights, progress = trained(settings, adversarial=False, teacher=teacher)
    assert [point.step for point in progress] == [1, 2, 3, 4, 5, 6]
    assert all(math.isnan(point.losses["d_loss"]) and point.losses["adversarial"] == 0 for point in progress)
    for point in progress:
        losses = point.losses
        assert losses["g_loss"] == pytest.approx(losses["entropy"] - 5 * losses["diversity"], rel=1e-5)
    assert not torch.equal(weights, trained(settings)[0])
    # The proxy's images play no part.
    gan = build(settings, (1, 32, 32), teacher, Context(0), False)
    list(progress_of(GanTraining(gan, proxy_images().flip(3), 20, Context(0))))
    assert torch.equal(torch.cat([value.flatten() for value in gan.generator.state_dict().values()]), weights)
