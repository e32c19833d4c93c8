"""MosaicKD in plain torch, written from its paper and its released code's order of work, apart from the package's own.

Images are pixels in [0, 1] that a normaliser brings to what the networks take; losses are of probabilities; each step
computes the gradients of all weights, and nobody uses those of the wrong network.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Norm:
    """A BatchNorm in train mode, with its statistics."""

    def __init__(self, scale, shift, mean, variance):
        self.scale, self.shift, self.mean, self.variance = scale, shift, mean, variance

    def __call__(self, x):
        return F.batch_norm(x, self.mean, self.variance, self.scale, self.shift, training=True, momentum=0.1, eps=1e-5)


class Net:
    """The state of a network as a list; what is trained has a gradient."""

    def __init__(self, model):
        self.state = [value.detach().clone() for value in model.state_dict().values()]
        names = list(model.state_dict())
        trained = {name for name, _ in model.named_parameters()}
        self.weights = [value.requires_grad_(name in trained) for name, value in zip(names, self.state, strict=True)]
        self.trained = [value for value in self.weights if value.requires_grad]


class PlainGenerator(Net):
    """Noise to pixels in [0, 1]."""

    def __call__(self, z):
        first, bias, *norm = self.weights[:6]
        x = (z @ first.T + bias).reshape(len(z), -1, 8, 8)
        x = Norm(*norm)(x)
        for start in (7, 13):  # one of a norm's five entries counts batches
            kernel, *norm = self.weights[start : start + 5]
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = F.leaky_relu(Norm(*norm)(F.conv2d(x, kernel, padding=1)), 0.2)
        return torch.sigmoid(F.conv2d(x, self.weights[19], self.weights[20], padding=1))


class PlainDiscriminator(Net):
    """Images to a logit for each patch."""

    def __call__(self, x):
        first, bias, second, *norm = self.weights[:7]
        x = F.leaky_relu(F.conv2d(x, first, bias, 2, 1), 0.2)
        x = F.leaky_relu(Norm(*norm)(F.conv2d(x, second, None, 2, 1)), 0.2)
        return F.conv2d(x, self.weights[8])


class PlainMosaic:
    """The joint training, a step of the generator a call."""

    def __init__(self, generator, discriminator, student: nn.Module, teacher: nn.Module, settings, rounds):
        self.generator, self.discriminator = PlainGenerator(generator), PlainDiscriminator(discriminator)
        self.student, self.teacher, self.settings, self.rounds, self.done = student, teacher, settings, rounds, 0
        adam = {"lr": settings.lr, "betas": (0.5, 0.999), "foreach": False}
        self.adam_g = torch.optim.Adam(self.generator.trained, **adam)
        self.adam_d = torch.optim.Adam(self.discriminator.trained, **adam)
        self.sgd = torch.optim.SGD(
            student.parameters(), settings.student_lr, momentum=0.9, weight_decay=settings.weight_decay, foreach=False
        )

    def step(self, real, z, more):
        """Update discriminator and generator on `real` and `z`, then the student on each (noise, proxy images)."""
        self.set_rates()
        images = normalised(self.generator(z))
        fake_said, real_said = torch.sigmoid(self.discriminator(images.detach())), self.discriminator(real).sigmoid()
        loss_d = -(torch.log(1 - fake_said).sum() + torch.log(real_said).sum()) / (2 * len(z)) * self.settings.local
        self.take(self.adam_d, loss_d)
        theirs, ours = self.teacher(images).softmax(1), self.student(images).softmax(1)
        mean = theirs.mean(0)
        local = -torch.log(torch.sigmoid(self.discriminator(images))).sum() / len(z)
        align = -(theirs * torch.log(theirs)).sum(1).mean()
        adversary = -(theirs * torch.log(theirs / ours)).sum(1).mean()
        balance = (mean * torch.log2(mean)).sum()
        weights = self.settings
        loss_g = weights.adversary * adversary + weights.align * align + weights.local * local
        loss_g = loss_g + weights.balance * balance
        self.take(self.adam_g, loss_g)
        for noise, proxy in more:
            with torch.no_grad():
                batch = torch.cat([normalised(self.generator(noise)), proxy])
                wanted = (self.teacher(batch) / weights.temperature).softmax(1)
            found = (self.student(batch) / weights.temperature).softmax(1)
            loss_s = (wanted * torch.log(wanted / found)).sum() / len(batch) * weights.temperature**2
            self.take(self.sgd, loss_s)
        self.done += 1
        losses = {"d_loss": loss_d, "g_loss": loss_g, "adversarial": local, "entropy": align}
        losses |= {"diversity": -balance * math.log(2), "divergence": -adversary, "student": loss_s}
        return {name: value.item() for name, value in losses.items()}

    def set_rates(self):
        factor = (1 + math.cos(math.pi * self.done / self.rounds)) / 2
        for optimiser, rate in (
            (self.adam_g, self.settings.lr),
            (self.adam_d, self.settings.lr),
            (self.sgd, self.settings.student_lr),
        ):
            optimiser.param_groups[0]["lr"] = rate * factor

    def take(self, optimiser, loss):
        for other in (self.adam_g, self.adam_d, self.sgd):
            other.zero_grad()
        loss.backward()
        optimiser.step()


def normalised(images):
    """Pixels in [0, 1] to [-1, 1], as by a mean and a deviation of 0.5."""
    return (images - 0.5) / 0.5
