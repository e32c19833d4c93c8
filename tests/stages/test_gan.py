"""One DeGAN step against the paper's equations written again in plain float64."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from degan_search.networks.frozen import freeze
from degan_search.training.losses import discriminator_loss, generator_loss
from tests.stages.gan_networks import BETA1, BETA2, LR, Untouchable, batches, make_gan, make_teacher

LAMBDAS = [(0.0, 0.0), (0.0, 5.0), (1.0, 5.0), (0.3, 0.0)]


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
