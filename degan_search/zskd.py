"""Images made from the teacher alone: zero-shot knowledge distillation (ZSKD, Nayak et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from degan_search import runtime
from degan_search.checkpoint import Parts, Values
from degan_search.config import ZskdConfig
from degan_search.data.images import denormalise
from degan_search.errors import UserError
from degan_search.fit import DivergedError, Progress
from degan_search.networks.frozen import freeze

SIZE = 32
"""Height and width of the images in pixels."""
FLOOR = 1e-4
"""Added to each concentration, as in the released code: a Dirichlet distribution takes none that is 0."""
REPORTS = 50


def class_similarity(teacher: nn.Module) -> Float[Tensor, "k k"]:
    """Return how alike the teacher takes its classes to be, from the weights of its last linear layer alone.

    Cosine similarity of the classes' weight rows, each row of it then brought to [0, 1] by its own minimum
    and maximum, as in the paper: 1 for the class itself, 0 for the class least like it. Float64, on the CPU.

    Raises:
        UserError: a TorchScript teacher, or one without nn.Linear.
    """
    if isinstance(teacher, torch.jit.ScriptModule):
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
    cosine = (rows @ rows.T).fill_diagonal_(1).clamp(max=1)  # rounding may leave 1
    low = cosine.amin(dim=1, keepdim=True)
    # Where all classes have one direction, a row has no range.
    return torch.where(low < 1 - 1e-9, (cosine - low) / (1 - low), 1.0)


def targets(
    similarity: Float[Tensor, "k k"], config: ZskdConfig, rng: np.random.Generator
) -> Float[Tensor, "images k"]:
    """Draw the outputs that the images shall have: `config.images` rows, scale by scale, class by class.

    A row of class k is drawn from the Dirichlet distribution of concentration scale * similarity[k]. Scales have
    equal shares, and the classes within a scale too, to one row. Probabilities in [0, 1], rows of sum 1, float32
    on the CPU. NumPy draws them: its sampler, unlike torch's, keeps to the distribution where concentrations are tiny.
    """
    concentrations, classes = similarity.cpu().double().numpy(), len(similarity)
    drawn = []
    for scale, share in zip(config.scales, np.array_split(np.arange(config.images), len(config.scales)), strict=True):
        counts = np.bincount(share % classes, minlength=classes)
        drawn += [rng.dirichlet(scale * concentrations[k] + FLOOR, counts[k]) for k in range(classes)]
    return torch.from_numpy(np.concatenate(drawn)).float()


def synthesise(
    teacher: nn.Module, config: ZskdConfig, channels: int, seed: int, device: str, parts: Parts | None = None
) -> Generator[Progress, None, UInt8[Tensor, "n c 32 32"]]:
    """Make the images, yielding progress about 50 times over all batches; they are the generator's return value.

    Each batch starts from uniform noise in [-1, 1]. Adam moves its pixels, kept in that range, until the teacher's
    softmax at `config.temperature` is as `targets` drew it. In the progress, `loss` is the batch's mean cross-entropy
    in nats, and `score` is minus what of it is left to gain, the KL divergence from the targets: 0 at best.

    Args:
        teacher: takes [n, channels, 32, 32] in [-1, 1] and gives logits; it is copied, and stays as it is.
        config: how many images, and how they are optimised.
        channels: of the images, 1 or 3.
        seed: the same one gives the same images, bit for bit.
        device: where they are made and returned, as bytes in the order of `targets`.
        parts: where what it needs to go on later is added.

    Raises:
        UserError: the teacher has no linear layer to look into, see `class_similarity`.
        DivergedError: the loss is not finite.
    """
    numbers = np.random.default_rng(runtime.stream_seed(seed, "zskd", "targets"))
    wanted = targets(class_similarity(teacher), config, numbers).to(device)
    parts = parts or Parts()
    noise = parts.stream("noise", runtime.generator(seed, "zskd", "noise", device=device))
    now = parts.add("now", Values(device, step=0, images=[], pixels=None))
    frozen = freeze(teacher).to(device)
    batches = torch.split(wanted, config.batch_size)
    of = len(batches) * config.iterations
    every = max(1, of // REPORTS)
    for batch in batches[len(now.images) :]:
        if now.pixels is None:
            pixels = torch.rand(len(batch), channels, SIZE, SIZE, generator=noise, device=device) * 2 - 1
            now.pixels = pixels.contiguous(memory_format=torch.channels_last)
        least = float(torch.special.entr(batch).sum(dim=1).mean())
        left = config.iterations * (len(now.images) + 1) - now.step
        for loss in _optimise(now.pixels, batch, frozen, config, left, parts):
            now.step += 1
            reported = now.step % every == 0 or now.step == of
            if reported or now.step % config.iterations == 0:
                mean = _finite(loss, now.step)
            if reported:
                yield Progress("zskd", now.step, of, least - mean, mean)
        now.images.append(denormalise(now.pixels).contiguous())
        now.pixels = None
    return torch.cat(now.images)


def _optimise(
    pixels: Float[Tensor, "n c h w"],
    wanted: Float[Tensor, "n k"],
    teacher: nn.Module,
    config: ZskdConfig,
    steps: int,
    parts: Parts,
) -> Iterator[Tensor]:
    """Move pixels in place towards the wanted outputs, yielding after each step the mean loss before it."""
    pixels.requires_grad_()
    adam = parts.add("adam", torch.optim.Adam([pixels], lr=config.lr, fused=True))
    for _ in range(steps):
        # Summed: the gradients of a mean over many images would come near Adam's epsilon.
        loss = F.cross_entropy(teacher(pixels) / config.temperature, wanted, reduction="sum")
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        with torch.no_grad():
            pixels.clamp_(-1, 1)
        yield loss.detach() / len(wanted)
    pixels.requires_grad_(False)


def _finite(loss: Tensor, step: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise DivergedError(f"zskd: loss is {value} at step {step}")
    return value
