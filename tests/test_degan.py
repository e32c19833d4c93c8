"""One DeGAN step against the paper's equations written again in plain float64; lengths; divergence."""

import copy
import math
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from degan_search import degan, runtime
from degan_search.config import GanConfig
from degan_search.errors import UserError
from degan_search.fit import DivergedError
from degan_search.losses import discriminator_loss, generator_loss
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier

LATENT, BATCH, CLASSES, LR, BETA1, BETA2 = 3, 6, 5, 2e-4, 0.5, 0.999
LAMBDAS = [(0.0, 0.0), (0.0, 5.0), (1.0, 5.0), (0.3, 0.0)]


def config(lambda_e=0.0, lambda_d=5.0, **changes):
    return GanConfig(lambda_e=lambda_e, lambda_d=lambda_d, width=2, latent=LATENT, batch_size=BATCH, **changes)


def make_teacher(name="lenet", channels=1):
    with runtime.seeded(0, "test"):
        model = build_classifier(name, CLASSES, 2, channels)
    for parameter in model.parameters():
        parameter.data *= 3  # outputs that differ from image to image
    return model.eval()


def make_gan(lambda_e, lambda_d, teacher, channels=1, seed=1):
    gan = degan.build(config(lambda_e, lambda_d), channels, teacher, seed, "cpu")
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
        self.lambda_e, self.lambda_d = gan.lambda_e, gan.lambda_d

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
        return [value.item() for value in (d_loss, g_loss, adversarial, entropy, diversity, spread)]


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
    assert degan.lengths(GanConfig(), 500 * classes, 50_000) == (batch, 5000)
    assert degan.scaled_batch(2048, "set", 500 * classes, 50_000) == batch


def test_lengths_of_other_settings():
    assert degan.lengths(GanConfig(batch_size=64, batch_of="used"), 1000, 50_000) == (64, 200 * 16)
    assert degan.lengths(GanConfig(batch_size=64, batch_of="used", steps=7), 1000, 50_000) == (64, 7)
    assert degan.lengths(GanConfig(batch_size=64, batch_of="used", epochs=3), 64, 50_000) == (64, 3)
    assert degan.lengths(GanConfig(), 2, 50_000) == (2, 200)  # BatchNorm needs two
    with pytest.raises(UserError, match=r"the proxy has 63 images, fewer than gan\.batch_size = 64"):
        degan.lengths(GanConfig(batch_size=64, batch_of="used"), 63, 50_000)
    with pytest.raises(UserError, match="1 images"):
        degan.lengths(GanConfig(), 1, 50_000)


def proxy_images(count=20):
    return torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_training_reports_at_the_rungs_and_at_the_end():
    settings = config(batch_of="used", steps=200)
    gan = degan.build(settings, 1, freeze(make_teacher()), 0, "cpu")
    some = list(islice(degan.train(gan, settings, proxy_images(), 20, 0, report_at=(3, 8, 13)), 7))
    assert [progress.step for progress in some] == [3, 4, 8, 12, 13, 16, 20]  # 2% of 200 is 4
    assert {progress.of for progress in some} == {200}
    settings = config(batch_of="used", steps=5)
    gan = degan.build(settings, 1, freeze(make_teacher()), 0, "cpu")
    all_of_it = list(degan.train(gan, settings, proxy_images(), 20, 0))
    assert [progress.step for progress in all_of_it] == [1, 2, 3, 4, 5]
    last = all_of_it[-1]
    assert last.g_loss == pytest.approx(last.adversarial - 5 * last.diversity, rel=1e-6)
    assert 0 <= last.entropy <= last.diversity <= math.log(CLASSES)


def test_a_generator_of_one_image_is_refused():
    settings = config(batch_of="used", steps=5)
    gan = degan.build(settings, 1, freeze(make_teacher()), 0, "cpu")
    nn.init.zeros_(gan.generator[-2].weight)
    with pytest.raises(DivergedError, match="one image only at step 1"):
        list(degan.train(gan, settings, proxy_images(), 20, 0))


@pytest.mark.parametrize("network", ["generator", "discriminator", "teacher"])
def test_losses_that_are_not_finite_are_refused(network):
    settings = config(batch_of="used", steps=5)
    gan = degan.build(settings, 1, freeze(make_teacher()), 0, "cpu")
    next(getattr(gan, network).parameters()).data.fill_(math.nan)
    with pytest.raises(DivergedError, match="not finite at step 1"):
        list(degan.train(gan, settings, proxy_images(), 20, 0))
