"""How far images lie from those a network was trained on, by the statistics that its BatchNorm layers keep."""

from __future__ import annotations

from math import nan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degan_search.errors import UserError

CHUNK = 512
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@torch.no_grad()
def statistics_distance(model: nn.Module, images: Float[Tensor, "n c h w"]) -> float:
    """Return the mean over BatchNorm layers of the distance between the images' statistics and the stored ones.

    In each layer and channel the 2-Wasserstein distance of two normal distributions, in units of the stored
    standard deviation: ((m - m0)^2 + (s - s0)^2) / s0^2; the root of its mean over channels. 0 for the
    images that made the statistics (Yin et al. 2020, equation 4, compares the same moments). NaN for a
    network without BatchNorm, as LeNet, and for TorchScript, whose layers cannot be looked into.

    Args:
        model: in eval mode, in which it stays.
        images: in [-1, 1], two or more, on the model's device.

    Raises:
        UserError: fewer than two images.
    """
    if len(images) < 2:
        raise UserError(f"{len(images)} images have no statistics: at least 2 are needed")
    norms: list[Any] = [layer for layer in model.modules() if isinstance(layer, NORMS)]
    if not norms or isinstance(model, torch.jit.ScriptModule):
        return nan
    moments: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def gather(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        moments[norm].append(
            torch.stack([values.sum(1), values.square().sum(1), torch.full_like(values[:, 0], values.shape[1])])
        )

    hooks = [norm.register_forward_pre_hook(gather) for norm in norms]
    try:
        for chunk in torch.split(images, CHUNK):
            model(chunk)
    finally:
        for hook in hooks:
            hook.remove()
    distances = []
    for norm in norms:
        total, squares, count = torch.stack(moments[norm]).sum(0)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        kept_mean, kept = norm.running_mean, (norm.running_var + norm.eps).sqrt()
        distances.append((((mean - kept_mean).square() + (deviation - kept).square()) / kept.square()).mean().sqrt())
    return torch.stack(distances).mean().item()
