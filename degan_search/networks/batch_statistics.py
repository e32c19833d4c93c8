"""How far images lie from those a network was trained on, by the statistics that its BatchNorm layers keep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import nan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degan_search.networks.own import scripted
from degan_search.system.errors import UserError

CHUNK = 512
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Sums = dict[nn.Module, Float[Tensor, "3 c"]]
"""For each BatchNorm layer, over the images and pixels of its input: sum, sum of squares, count."""


def norms(model: nn.Module) -> list[Any]:
    """Return the BatchNorm layers of a model; none for TorchScript, whose layers cannot be inspected."""
    if scripted(model):
        return []
    return [layer for layer in model.modules() if isinstance(layer, NORMS)]


@contextmanager
def gathered_statistics(model: nn.Module, dtype: torch.dtype = torch.float32) -> Iterator[Sums]:
    """Give the sums of each BatchNorm layer's inputs, gathered as the model runs in the block; gradients flow back."""
    sums: Sums = {}

    def gather(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        values = inputs[0].to(dtype).transpose(0, 1).flatten(1)
        found = torch.stack([values.sum(1), values.square().sum(1), torch.full_like(values[:, 0], values.shape[1])])
        sums[norm] = sums[norm] + found if norm in sums else found

    hooks = [norm.register_forward_pre_hook(gather) for norm in norms(model)]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def distances(sums: Sums) -> Float[Tensor, " layers"]:
    """Return each layer's squared distance of the gathered statistics from the stored ones, mean over channels.

    In each channel the squared 2-Wasserstein distance of two normal distributions, in units of the stored
    standard deviation: ((m - m0)^2 + (s - s0)^2) / s0^2. 0 for the images that made the statistics (Yin et al.
    2020, equation 4, compares the same moments).
    """
    found = []
    for layer, (total, squares, count) in sums.items():
        norm: Any = layer
        kept = (norm.running_var + norm.eps).sqrt()
        mean = total / count
        # eps as in the stored deviation: a root has no finite gradient at 0.
        deviation = ((squares / count - mean.square()).clamp_min(0) + norm.eps).sqrt()
        found.append((((mean - norm.running_mean).square() + (deviation - kept).square()) / kept.square()).mean())
    return torch.stack(found)


@torch.no_grad()
def statistics_distance(model: nn.Module, images: Float[Tensor, "n c h w"]) -> float:
    """Return the mean over BatchNorm layers of the distance between the images' statistics and the stored ones.

    A layer's distance is the root of `distances`. NaN for a network without BatchNorm, as LeNet, and for
    TorchScript.

    Args:
        model: in eval mode, in which it stays.
        images: in [-1, 1], two or more, on the model's device.

    Raises:
        UserError: fewer than two images.
    """
    if len(images) < 2:
        raise UserError(f"{len(images)} images have no statistics: at least 2 are needed")
    if not norms(model):
        return nan
    with gathered_statistics(model, torch.float64) as sums:
        for chunk in torch.split(images, CHUNK):
            model(chunk)
    return distances(sums).sqrt().mean().item()
