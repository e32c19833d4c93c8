"""Images made from the teacher alone: zero-shot knowledge distillation (ZSKD, Nayak et al. 2019)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from degan_search.data.images import denormalise
from degan_search.networks.frozen import freeze
from degan_search.networks.own import scripted
from degan_search.settings.trial import ZskdConfig
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError, Progress

FLOOR = 1e-4
"""Added to each concentration, as in the released code: those of a Dirichlet distribution must be above 0."""
REPORTS = 50
"""Reports over all batches, evenly spaced."""


def class_similarity(teacher: nn.Module) -> Float[Tensor, "k k"]:
    """Return how alike the teacher takes its classes to be, from the weights of its last linear layer alone.

    Cosine similarity of the classes' weight rows, each row of it then brought to [0, 1] by its own minimum
    and maximum, as in the paper: 1 for the class itself, 0 for the class least like it. Float64, on the CPU.

    Raises:
        UserError: a TorchScript teacher, or one without nn.Linear.
    """
    if scripted(teacher):
        raise UserError(
            "method 'zskd' cannot look into a TorchScript teacher, as it needs the weights of its last linear layer; "
            "give the teacher as a state dict (.safetensors or .pt)"
        )
    layers = [module for module in teacher.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError(
            "method 'zskd' needs the class weights of the teacher's last nn.Linear, but the teacher has none; "
            "give one whose last layer is linear"
        )
    rows = F.normalize(layers[-1].weight.detach().cpu().double(), dim=1)
    cosine = (rows @ rows.T).fill_diagonal_(1).clamp(max=1)  # rounding may give more than 1
    low = cosine.amin(dim=1, keepdim=True)
    # Where the rows of all classes point in one direction, all similarities are equal and cannot be scaled to [0, 1].
    return torch.where(low < 1 - 1e-9, (cosine - low) / (1 - low), 1.0)


def targets(
    similarity: Float[Tensor, "k k"], config: ZskdConfig, rng: np.random.Generator
) -> Float[Tensor, "images k"]:
    """Draw the outputs that the images are to give: `config.images` rows, scale by scale, class by class.

    A row of class k is drawn from the Dirichlet distribution of concentration scale * similarity[k]. Each scale has the
    same number of rows, and within it each class, give or take one. Probabilities in [0, 1], rows of sum 1, float32
    on the CPU. NumPy draws them: its sampler, unlike torch's, keeps to the distribution where concentrations are tiny.
    """
    concentrations = similarity.cpu().double().numpy()
    drawn = [
        rng.dirichlet(scale * concentrations[k] + FLOOR, count)
        for scale, counts in zip(config.scales, shares(config, len(similarity)), strict=True)
        for k, count in enumerate(counts)
    ]
    return torch.from_numpy(np.concatenate(drawn)).float()


def shares(config: ZskdConfig, classes: int) -> list[list[int]]:
    """Return how many images each class has of each scale."""
    parts = np.array_split(np.arange(config.images), len(config.scales))
    return [np.bincount(part % classes, minlength=classes).tolist() for part in parts]


class ZskdSynthesis:
    """The making of images whose outputs of the teacher are as `targets` drew them, batch by batch.

    Each batch starts from uniform noise in [-1, 1]. Adam moves its pixels, kept in that range, for `config.iterations`
    steps towards the wanted softmax of the teacher at `config.temperature`. The same seed gives the same images, bit
    for bit.

    By the profile `released` a batch has images of one class and scale; the first of them starts from noise, each later
    one from the batch before; and after each step all pixels of the batch are stretched to [-1, 1] by its own extremes.
    """

    def __init__(self, teacher: nn.Module, config: ZskdConfig, shape: tuple[int, int, int], context: Context) -> None:
        """Draw the targets.

        Args:
            teacher: takes [n, channels, height, width] in [-1, 1] and gives logits; it is copied, and stays as it is.
            config: how many images, and how they are optimised.
            shape: channels, height and width of the images.
            context: the seed, and the device where they are made.

        Raises:
            UserError: the teacher has no linear layer to look into, see `class_similarity`.
        """
        numbers = np.random.default_rng(seeds.stream_seed(context.seed, "zskd", "targets"))
        wanted = targets(class_similarity(teacher), config, numbers).to(context.device)
        self.config, self.shape, self.device = config, shape, context.device
        self.noise_rng = context.generator("zskd", "noise")
        self.teacher = freeze(teacher).to(context.device)
        self.released = config.profile == "released"
        parts = [count for counts in shares(config, wanted.shape[1]) for count in counts if count]
        groups = torch.split(wanted, parts if self.released else len(wanted))
        self.batches = [batch for group in groups for batch in torch.split(group, config.batch_size)]
        self.firsts = {sum(-(-count // config.batch_size) for count in parts[:place]) for place in range(len(parts))}
        """Of the released code's batches, those that start from noise."""
        self.steps = len(self.batches) * config.iterations
        self.steps_done = 0
        self.made: list[UInt8[Tensor, "n c h w"]] = []
        """The batches of images that are ready."""
        self._begin_batch()

    @property
    def done(self) -> bool:
        """Whether all images are made."""
        return self.steps_done == self.steps

    @property
    def images(self) -> UInt8[Tensor, "n c h w"]:
        """The images made so far, as bytes on the device, in the order of `targets`."""
        return torch.cat(self.made)

    def step(self) -> Progress | None:
        """Move a batch's pixels once; returns the progress about 50 times over all batches.

        In the progress, `loss` is the batch's mean cross-entropy in nats before the step, and `score` is minus the KL
        divergence from the targets: 0 at best.

        Raises:
            DivergedError: the loss is not finite.
        """
        wanted = self.batches[len(self.made)]
        loss = self._move_pixels(wanted)
        self.steps_done += 1
        reported = self.steps_done % max(1, self.steps // REPORTS) == 0 or self.done
        ended = self.steps_done % self.config.iterations == 0
        if not (reported or ended):
            return None
        mean = _finite(loss, self.steps_done)
        if ended:
            self._end_batch()
        if not reported:
            return None
        least = float(torch.special.entr(wanted).sum(dim=1).mean())
        return Progress("zskd", self.steps_done, self.steps, least - mean, mean)

    def state_dict(self) -> dict[str, Any]:
        """Return the images that are ready, the pixels under way with their optimiser, and the stream of noise."""
        return {
            "steps_done": self.steps_done,
            "made": self.made,
            "pixels": self.pixels,
            "adam": self.adam.state_dict(),
            "noise_rng": self.noise_rng.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.steps_done = state["steps_done"]
        self.made = [images.to(self.device) for images in state["made"]]
        self.noise_rng.set_state(state["noise_rng"])
        self._optimise(state["pixels"].to(self.device))
        self.adam.load_state_dict(state["adam"])

    def _begin_batch(self) -> None:
        """Draw the next batch's first pixels, or go on with those of the last one."""
        count, goes_on = len(self.batches[len(self.made)]), self.released and len(self.made) not in self.firsts
        if goes_on:
            self._optimise(self.pixels.detach()[:count].clone())
            return
        noise = torch.rand(count, *self.shape, generator=self.noise_rng, device=self.device)
        self._optimise((noise * 2 - 1).contiguous(memory_format=torch.channels_last))

    def _optimise(self, pixels: Float[Tensor, "n c h w"]) -> None:
        self.pixels = pixels.requires_grad_()
        self.adam = torch.optim.Adam([pixels], lr=self.config.lr, fused=True)

    def _move_pixels(self, wanted: Float[Tensor, "n k"]) -> Tensor:
        """Move the pixels in place towards the wanted outputs; returns the mean loss before."""
        # Summed: the gradients of a mean over many images would come near Adam's epsilon.
        loss = F.cross_entropy(self.teacher(self.pixels) / self.config.temperature, wanted, reduction="sum")
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        with torch.no_grad():
            if self.released:
                low, high = self.pixels.aminmax()
                self.pixels.sub_(low).mul_(2 / (high - low)).sub_(1)
            self.pixels.clamp_(-1, 1)
        return loss.detach() / len(wanted)

    def _end_batch(self) -> None:
        """Keep the images, and begin the next batch if there is one."""
        self.made.append(denormalise(self.pixels.detach()).contiguous())
        if not self.done:
            self._begin_batch()


def _finite(loss: Tensor, step: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise DivergedError(f"zskd: loss is {value} at step {step}")
    return value
