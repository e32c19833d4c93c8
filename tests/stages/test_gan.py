"""One DeGAN step against the paper's equations written again in plain float64; lengths; divergence."""

import copy
import math
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings import lengths
from degan_search.settings.gan_losses import GAN_LOSSES
from degan_search.settings.trial import DistillConfig, GanConfig
from degan_search.stages import gan as degan
from degan_search.stages import gan_training
from degan_search.stages.gan_training import GanTraining
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError, progress_of
from degan_search.training.losses import discriminator_loss, distillation_loss, generator_loss

LATENT, BATCH, CLASSES, LR, BETA1, BETA2 = 3, 6, 5, 2e-4, 0.5, 0.999
LAMBDAS = [(0.0, 0.0), (0.0, 5.0), (1.0, 5.0), (0.3, 0.0)]


def config(lambda_e=0.0, lambda_d=5.0, **changes):
    return GanConfig(lambda_e=lambda_e, lambda_d=lambda_d, width=2, latent=LATENT, batch_size=BATCH, **changes)


def make_teacher(name="lenet", channels=1):
    with seeds.seeded(0, "test"):
        model = build_classifier(name, CLASSES, 2, channels)
    for parameter in model.parameters():
        parameter.data *= 3  # outputs that differ from image to image
    return model.eval()


def make_gan(lambda_e, lambda_d, teacher, channels=1, seed=1):
    gan = degan.build(config(lambda_e, lambda_d), channels, teacher, Context(seed))
    gan.generator[-2].weight.data *= 10  # images with contrast
    return gan


def batches(count, channels=1, dtype=torch.float64):
    rng = torch.Generator().manual_seed(2)
    for _ in range(count):
        real = torch.rand(BATCH, channels, 32, 32, generator=rng, dtype=torch.float64) * 2 - 1
        z = torch.randn(BATCH, LATENT, 1, 1, generator=rng, dtype=torch.float64)
        yield real.to(dtype), z.to(dtype)


# The paper, again: networks as functions of lists of weights, losses on probabilities, Adam in numpy.
def batch_norm(x, gamma, beta):
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * gamma[:, None, None] + beta[:, None, None]


def make_images(weights, z):
    x = z
    for block in range(4):
        kernel, gamma, beta = weights[3 * block : 3 * block + 3]
        x = F.conv_transpose2d(x, kernel, stride=2 if block else 1, padding=1 if block else 0)
        x = batch_norm(x, gamma, beta).clamp(min=0)
    return torch.tanh(F.conv_transpose2d(x, weights[12]))


def probability_real(weights, x):
    x = F.conv2d(x, weights[0], stride=2, padding=1)
    for block in range(3):
        x = torch.where(x > 0, x, 0.2 * x)
        kernel, gamma, beta = weights[1 + 3 * block : 4 + 3 * block]
        x = batch_norm(F.conv2d(x, kernel, stride=2, padding=1), gamma, beta)
    x = torch.where(x > 0, x, 0.2 * x)
    return 1 / (1 + torch.exp(-F.conv2d(x, weights[10], stride=2).flatten()))


def class_probabilities(weights, x):
    for kernel, bias in (weights[0:2], weights[2:4]):
        x = F.max_pool2d(F.conv2d(x, kernel, bias).clamp(min=0), 2)
    x = x.flatten(1)
    for matrix, bias in (weights[4:6], weights[6:8]):
        x = (x @ matrix.T + bias).clamp(min=0)
    return torch.softmax(x @ weights[8].T + weights[9], 1)


class Adam:
    """Kingma and Ba's update of one weight."""

    def __init__(self):
        self.m, self.v, self.t = 0.0, 0.0, 0

    def __call__(self, weight, gradient):
        self.t += 1
        weight, gradient = weight.detach().numpy(), gradient.numpy()
        self.m = BETA1 * self.m + (1 - BETA1) * gradient
        self.v = BETA2 * self.v + (1 - BETA2) * gradient**2
        m, v = self.m / (1 - BETA1**self.t), self.v / (1 - BETA2**self.t)
        return torch.from_numpy(weight - LR * m / (np.sqrt(v) + 1e-8)).requires_grad_()


class Paper:
    """DeGAN's weights, and its steps."""

    def __init__(self, gan, teacher):
        self.g, self.d, self.c = (
            [weight.detach().double().clone().contiguous().requires_grad_() for weight in model.parameters()]
            for model in (gan.generator, gan.discriminator, teacher)
        )
        self.adam_g, self.adam_d = [Adam() for _ in self.g], [Adam() for _ in self.d]
        self.lambda_e, self.lambda_d = gan.config.lambda_e, gan.config.lambda_d

    def step(self, real, z):
        fake = make_images(self.g, z)
        p_real, p_fake = probability_real(self.d, real), probability_real(self.d, fake.detach())
        d_loss = -torch.log(p_real).mean() - torch.log(1 - p_fake).mean()
        self.d_gradients = torch.autograd.grad(d_loss, self.d)
        self.d = [adam(*pair) for adam, *pair in zip(self.adam_d, self.d, self.d_gradients, strict=True)]

        adversarial = -torch.log(probability_real(self.d, fake)).mean()
        y = class_probabilities(self.c, fake)
        w = y.mean(0)
        entropy, diversity = -(y * torch.log(y)).sum(1).mean(), -(w * torch.log(w)).sum()
        g_loss = adversarial + self.lambda_e * entropy - self.lambda_d * diversity
        self.g_gradients = torch.autograd.grad(g_loss, self.g)
        self.g = [adam(*pair) for adam, *pair in zip(self.adam_g, self.g, self.g_gradients, strict=True)]
        if not (self.lambda_e or self.lambda_d):
            entropy = diversity = torch.tensor(math.nan)
        spread = fake.detach().numpy().std(0, ddof=1).mean()
        unused = torch.tensor(math.nan)  # divergence and BatchNorm loss, which are not the paper's
        return [value.item() for value in (d_loss, g_loss, adversarial, entropy, diversity, unused, unused, spread)]


def assert_close(ours, papers):
    for one, other in zip(ours, papers, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize(("lambda_e", "lambda_d"), LAMBDAS)
def test_steps_agree_with_the_papers_equations(lambda_e, lambda_d):
    teacher = make_teacher().double()
    gan = make_gan(lambda_e, lambda_d, freeze(teacher))
    gan.generator.double()
    gan.discriminator.double()
    paper = Paper(gan, teacher)
    for real, z in batches(3):
        np.testing.assert_allclose(gan.step(real, z).tolist(), paper.step(real, z), rtol=1e-6)
        # What is left in .grad after G's pass is of D's own loss alone.
        assert_close([weight.grad for weight in gan.discriminator.parameters()], paper.d_gradients)
        assert_close([weight.grad for weight in gan.generator.parameters()], paper.g_gradients)
        assert_close(gan.discriminator.parameters(), paper.d)
        assert_close(gan.generator.parameters(), paper.g)
    assert all(gradient.abs().max() > 0 for gradient in (*paper.g_gradients, *paper.d_gradients))


def test_the_weights_of_the_losses_change_the_generators_gradient():
    # So that the agreement above could fail: no two pairs have the same gradients.
    teacher = make_teacher().double()
    seen = []
    for lambda_e, lambda_d in LAMBDAS:
        paper = Paper(make_gan(lambda_e, lambda_d, teacher), teacher)
        paper.step(*next(batches(1)))
        seen.append(torch.cat([gradient.flatten() for gradient in paper.g_gradients]))
    for one in range(len(seen)):
        for other in range(one):
            assert (seen[one] - seen[other]).norm() > 1e-3 * seen[one].norm()


def test_gradients_reach_each_network_once_and_the_teacher_never():
    original = make_teacher("alexnet", 3)
    gan = make_gan(1.0, 5.0, freeze(original), channels=3)
    before = copy.deepcopy(gan.teacher.state_dict())
    arrived = []
    for name, model in (("G", gan.generator), ("D", gan.discriminator)):
        for weight in model.parameters():
            weight.register_post_accumulate_grad_hook(lambda _, name=name: arrived.append(name))
    for real, z in batches(2, 3, torch.float32):
        arrived.clear()
        gan.step(real, z)
        assert arrived.count("G") == len(list(gan.generator.parameters()))
        assert arrived.count("D") == len(list(gan.discriminator.parameters()))
    assert all(weight.grad is None for model in (original, gan.teacher) for weight in model.parameters())
    assert not any(module.training for module in gan.teacher.modules())
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(value, before[name]) for name, value in gan.teacher.state_dict().items())
    assert all(weight.requires_grad for weight in gan.discriminator.parameters())


class Untouchable(nn.Module):
    """A classifier that nobody may call."""

    def forward(self, x):
        raise AssertionError("the classifier was called")


def test_without_weights_the_classifier_is_not_called_and_it_is_dcgan_bit_for_bit():
    gan = make_gan(0.0, 0.0, Untouchable())
    with pytest.raises(AssertionError, match="classifier"):
        make_gan(0.0, 0.1, Untouchable()).step(*next(batches(1, dtype=torch.float32)))
    generator, discriminator = copy.deepcopy(gan.generator), copy.deepcopy(gan.discriminator)
    adam_g, adam_d = (
        torch.optim.Adam(model.parameters(), lr=LR, betas=(BETA1, BETA2), fused=True)
        for model in (generator, discriminator)
    )
    for real, z in batches(4, dtype=torch.float32):
        losses = gan.step(real, z)
        fake = generator(z)
        adam_d.zero_grad()
        d_loss = discriminator_loss(discriminator(real), discriminator(fake.detach()))
        d_loss.backward()
        adam_d.step()
        adam_g.zero_grad()
        g_loss = generator_loss(discriminator(fake))
        g_loss.backward()
        adam_g.step()
        assert torch.equal(losses[:3], torch.stack([d_loss, g_loss, g_loss]))
        assert losses[3:5].isnan().all()
    for ours, plain in ((gan.generator, generator), (gan.discriminator, discriminator)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, plain.state_dict()[name]), name


# Not the paper's: a student against which the generator is set, BatchNorm's statistics, and no discriminator

DISTILLING = DistillConfig(lr=0.01, beta1=0.5, temperature=4.0)
EXTENSIONS = [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)]


def make_student(name="lenet_half", channels=1):
    with seeds.seeded(5, "test"):
        return build_classifier(name, CLASSES, 2, channels)


def extended(teacher, channels=1, adversarial=True, distilling=DISTILLING, dtype=torch.float64, **lambdas):
    """A GAN with the losses that are not the paper's, in float64, and a rival that it may need."""
    settings = config(**{"lambda_e": 0.5, "lambda_d": 2.0} | lambdas)
    student = make_student(channels=channels).to(dtype), distilling
    gan = degan.build(settings, channels, teacher, Context(1), adversarial, student)
    for model in (gan.generator, gan.discriminator):
        if model:
            model.to(dtype)
    gan.generator[-2].weight.data *= 10
    return gan


def normed_teacher(dtype=torch.float64):
    """An AlexNet whose BatchNorms keep the statistics of bright noise, and whose outputs differ."""
    with seeds.seeded(0, "test"):
        model = build_classifier("alexnet", CLASSES, 8, 3)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            model(torch.rand(64, 3, 32, 32))
    model[-1].weight.data *= 5
    return freeze(model.to(dtype))


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
        gan = degan.build(config(1.0, 5.0), 1, freeze(make_teacher()), Context(1), True, student)
        assert gan.rival is None
        losses = [gan.step(real, z) for real, z in batches(3, dtype=torch.float32)]
        assert torch.stack(losses)[:, 5:7].isnan().all()
        states.append([*gan.generator.state_dict().values(), *gan.discriminator.state_dict().values()])
        states[-1].append(torch.stack(losses)[:, [0, 1, 2, 3, 4, 7]])
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def trained(settings, seed=0, adversarial=True, student=None, teacher=None):
    gan = degan.build(settings, 1, teacher or freeze(make_teacher()), Context(seed), adversarial, student)
    progress = list(progress_of(GanTraining(gan, proxy_images(), 20, Context(seed))))
    return torch.cat([value.flatten() for value in gan.generator.state_dict().values()]), progress


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
    gan = degan.build(settings, 3, normed_teacher(torch.float32), Context(0), False)
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
    gan = degan.build(settings, 1, teacher, Context(0), False)
    list(progress_of(GanTraining(gan, proxy_images().flip(3), 20, Context(0))))
    assert torch.equal(torch.cat([value.flatten() for value in gan.generator.state_dict().values()]), weights)


@pytest.mark.parametrize("adversarial", [True, False])
def test_faults_are_found_with_and_without_a_discriminator(adversarial):
    settings = config(1.0, 5.0, batch_of="used", steps=5)
    gan = degan.build(settings, 1, freeze(make_teacher()), Context(0), adversarial)
    nn.init.zeros_(gan.generator[-2].weight)
    with pytest.raises(DivergedError, match="one image only at step 1"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))
    gan = degan.build(settings, 1, freeze(make_teacher()), Context(0), adversarial)
    next(gan.teacher.parameters()).data.fill_(math.nan)
    with pytest.raises(DivergedError, match="not finite at step 1"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))


def test_a_discriminator_that_is_not_finite_is_found_though_none_may_be_there():
    settings = config(1.0, 5.0, batch_of="used", steps=5)
    gan = degan.build(settings, 1, freeze(make_teacher()), Context(0))
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


def proxy_images(count=20):
    return torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_training_reports_at_the_rungs_and_at_the_end():
    settings = config(batch_of="used", steps=200)
    gan = degan.build(settings, 1, freeze(make_teacher()), Context(0))
    training = GanTraining(gan, proxy_images(), 20, Context(0), report_at=(3, 8, 13))
    some = list(islice(progress_of(training), 7))
    assert [progress.step for progress in some] == [3, 4, 8, 12, 13, 16, 20]  # 2% of 200 is 4
    assert {progress.of for progress in some} == {200}
    settings = config(batch_of="used", steps=5)
    gan = degan.build(settings, 1, freeze(make_teacher()), Context(0))
    all_of_it = list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))
    assert [progress.step for progress in all_of_it] == [1, 2, 3, 4, 5]
    last = all_of_it[-1]
    assert last.losses["g_loss"] == pytest.approx(last.losses["adversarial"] - 5 * last.losses["diversity"], rel=1e-6)
    assert 0 <= last.losses["entropy"] <= last.losses["diversity"] <= math.log(CLASSES)


def test_a_generator_of_one_image_is_refused():
    settings = config(batch_of="used", steps=5)
    gan = degan.build(settings, 1, freeze(make_teacher()), Context(0))
    nn.init.zeros_(gan.generator[-2].weight)
    with pytest.raises(DivergedError, match="one image only at step 1"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))


@pytest.mark.parametrize("network", ["generator", "discriminator", "teacher"])
def test_losses_that_are_not_finite_are_refused(network):
    settings = config(batch_of="used", steps=5)
    gan = degan.build(settings, 1, freeze(make_teacher()), Context(0))
    next(getattr(gan, network).parameters()).data.fill_(math.nan)
    with pytest.raises(DivergedError, match="not finite at step 1"):
        list(progress_of(GanTraining(gan, proxy_images(), 20, Context(0))))
