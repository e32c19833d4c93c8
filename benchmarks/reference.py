"""The released DeGAN procedure in plain torch: what "times faster" is measured against.

It does the work of the authors' released code in the order in which that does it, in float32, and leaves as it was:

- torch's own LocalResponseNorm, contiguous tensors, Adam weight by weight (neither fused nor foreach);
- images one by one from PIL through `ToTensor` and `Normalize`, in a `DataLoader`;
- two backward passes of the discriminator; gradients of all parameters of the classifier, and of the discriminator in
  the generator's pass; in distillation gradients of the teacher, of the generator and of the noise's images;
- binary cross-entropy on sigmoid outputs, entropy on probabilities with 1e-5 inside the logarithm;
- kernels that need not be deterministic;
- numbers read back at each step, and a Python loop over the predicted classes of its images;
- fresh noise for each batch of distillation, and batch by batch where the student is scored.

Left out, so that it is faster here than as released: classes filtered inside each batch after all images were read
(here the images come filtered), images and files written and 1,000 images looked at after each epoch of the GAN, the
test images after each epoch of distillation, cross-entropy at weight 0. No further processes read images, as both sides
shall run on the same cores; denormals are flushed for both. Patience and lengths are those of `FitConfig`.

Weights, noise and the order of images are given, so that it can be fed what the package's own steps are fed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from degan_search.networks.layers import LocalResponseNorm2
from degan_search.settings.trial import DistillConfig, GanConfig
from degan_search.stages.image_sources import EPOCH
from degan_search.training.loop import ENDLESS, LR_FACTORS, Progress

INSIDE_LOG = 1e-5
SURE = 0.9
"""Largest class probability above which a generated image counts as sure."""


def plain(model: nn.Module) -> nn.Module:
    """Return a copy as the released code has it: torch's own layers, contiguous, gradients for every parameter."""
    return with_stock_norms(model).to(memory_format=torch.contiguous_format).requires_grad_(True)


def with_stock_norms(model: nn.Module) -> nn.Module:
    """Return a copy with torch's own LocalResponseNorm."""
    copied = copy.deepcopy(model)
    for name, layer in model.named_modules():
        if isinstance(layer, LocalResponseNorm2):
            copied.set_submodule(name, nn.LocalResponseNorm(2, alpha=1e-4, beta=0.75, k=1.0))
    return copied


def adam(model: nn.Module, lr: float, beta1: float, beta2: float) -> torch.optim.Adam:
    """Return Adam as it was: one weight after the other."""
    return torch.optim.Adam(model.parameters(), lr=lr, betas=(beta1, beta2), foreach=False)


@contextmanager
def any_kernels() -> Iterator[None]:
    """Let torch take its fastest kernels, where the package asks for deterministic ones."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


class ProxyImages(Dataset[Tensor]):
    """Proxy images, each turned from PIL to [-1, 1] whenever it is asked for."""

    def __init__(self, images: np.ndarray) -> None:
        channels = images.shape[1]
        self.images = np.ascontiguousarray(images[:, 0] if channels == 1 else images.transpose(0, 2, 3, 1))
        half = (0.5,) * channels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self.transform(Image.fromarray(self.images[index]))
        return image


def real_batches(images: np.ndarray, order: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield batches of uint8 images [N, C, H, W] in [-1, 1], in the order of the given index tensors."""
    sampler = map(Tensor.tolist, order)
    rng = torch.Generator()  # else the loader takes a number of torch's default generator
    yield from DataLoader(ProxyImages(images), batch_sampler=sampler, generator=rng)


class GanLosses(NamedTuple):
    """What the released code prints or adds up at a step."""

    discriminator: float
    generator: float
    adversarial: float
    entropy: float
    diversity: float


@dataclass
class Gan:
    """The networks of a DeGAN with their optimisers; the classifier in eval mode, the others in train mode."""

    config: GanConfig
    generator: nn.Module
    discriminator: nn.Module
    """Gives logits; the sigmoid is applied here."""
    teacher: nn.Module
    sure: list[int] = field(default_factory=list)
    unsure: list[int] = field(default_factory=list)
    """Generated images by predicted class, sure or not."""

    def __post_init__(self) -> None:
        rates = self.config.lr, self.config.beta1, self.config.beta2
        self.adam_g, self.adam_d = adam(self.generator, *rates), adam(self.discriminator, *rates)

    @any_kernels()
    def step(self, real: Tensor, z: Tensor) -> GanLosses:
        """Update the discriminator on real and on fake images, then the generator."""
        criterion = nn.BCELoss()
        self.discriminator.zero_grad()
        output = torch.sigmoid(self.discriminator(real))
        on_real = criterion(output, torch.ones_like(output))
        on_real.backward()

        fake = self.generator(z)
        logits = self.teacher(fake)
        y = F.softmax(logits, dim=1)
        entropy = torch.mean(torch.sum(-y * torch.log(y + INSIDE_LOG), dim=1))
        w = torch.mean(y, dim=0)
        diversity = -torch.sum(w * torch.log(w))
        output = torch.sigmoid(self.discriminator(fake.detach()))
        on_fake = criterion(output, torch.zeros_like(output))
        on_fake.backward()
        self.adam_d.step()

        self.generator.zero_grad()
        output = torch.sigmoid(self.discriminator(fake))
        adversarial = criterion(output, torch.ones_like(output))
        total = adversarial + self.config.lambda_e * entropy - self.config.lambda_d * diversity
        total.backward()
        self.adam_g.step()
        self._count(logits)
        return GanLosses((on_real + on_fake).item(), total.item(), adversarial.item(), entropy.item(), diversity.item())

    def _count(self, logits: Tensor) -> None:
        if not self.sure:
            self.sure, self.unsure = [0] * logits.shape[1], [0] * logits.shape[1]
        largest, labels = F.softmax(logits, dim=1).max(dim=1)
        for probability, label in zip(largest, labels, strict=True):
            if probability.item() > SURE:
                self.sure[label.item()] += 1
            else:
                self.unsure[label.item()] += 1


@any_kernels()
def distill_step(
    student: nn.Module,
    stepper: torch.optim.Optimizer,
    generator: nn.Module,
    teacher: nn.Module,
    z: Tensor,
    temperature: float,
) -> float:
    """Update the student on images made from z, and return the loss T^2 KL(teacher || student)."""
    stepper.zero_grad()
    images = generator(z)
    teacher_logits = teacher(images)
    student_logits = student(images)
    divergence = nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(student_logits / temperature, dim=1), F.softmax(teacher_logits / temperature, dim=1)
    )
    loss = temperature**2 * divergence
    loss.backward()
    stepper.step()
    return float(loss.item())


@torch.no_grad()
@any_kernels()
def agreement(student: nn.Module, generator: nn.Module, teacher: nn.Module, noise: Iterable[Tensor]) -> float:
    """Return the share of images made from batches of noise that student and teacher put into the same class."""
    agreed = count = 0
    for z in noise:
        images = generator(z)
        agreed += int((student(images).argmax(dim=1) == teacher(images).argmax(dim=1)).sum().item())
        count += len(z)
    return agreed / count


def distill(
    student: nn.Module,
    generator: nn.Module,
    teacher: nn.Module,
    config: DistillConfig,
    noise: Iterator[Tensor],
    score_noise: Iterator[Tensor],
) -> Iterator[Progress]:
    """Train a student in place on generated images, yielding its progress after each epoch; the best weights stay.

    Args:
        student: any; it ends in eval mode.
        generator: in eval mode, as the teacher.
        teacher: gives logits.
        config: with Adam.
        noise: batches of it to train on, without end.
        score_noise: batches of it to score on, without end.
    """
    per_epoch = config.steps_per_epoch or EPOCH
    scored = -(-config.score_images // config.batch_size)
    first = ENDLESS if config.steps is None else max(1, round(config.steps * config.first_phase))
    best, best_score, done, loss = copy.deepcopy(student.state_dict()), -1.0, 0, 0.0
    for factor, limit in zip(LR_FACTORS, (first, config.steps or ENDLESS), strict=True):
        student.load_state_dict(best)
        stepper = adam(student, config.lr * factor, config.beta1, config.beta2)
        epochs = waited = 0
        while done < limit and epochs < config.epochs and waited < config.patience:
            student.train()
            for _ in range(min(per_epoch, limit - done)):
                loss = distill_step(student, stepper, generator, teacher, next(noise), config.temperature)
                done += 1
            student.eval()
            epochs, waited = epochs + 1, waited + 1
            found = agreement(student, generator, teacher, (next(score_noise) for _ in range(scored)))
            if found > best_score:
                best, best_score, waited = copy.deepcopy(student.state_dict()), found, 0
            yield Progress("distill", done, config.steps, best_score, loss)
    student.load_state_dict(best)
    student.eval()
