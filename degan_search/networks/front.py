"""A classifier behind its front: images in [-1, 1] of any size become what the network takes, its outputs logits."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from degan_search.networks.image_input import GRAY, ImageInput
from degan_search.networks.own import SMALLEST, Outputs

Images = Float[Tensor, "n c h w"]


class Classifier(nn.Module):
    """A network that takes images in [-1, 1], of any size, with 1 or 3 channels, and gives logits.

    The logarithms of probabilities are logits: their softmax gives the probabilities again. States have the names of
    the network's own, as if it stood alone.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, takes: ImageInput, outputs: Outputs = "logits") -> None:
        super().__init__()
        self.network, self.takes, self.outputs = network, takes, outputs
        # Of x in [-1, 1]: ((x + 1) / 2 - mean) / std. A frozen TorchScript module has nothing else that tells its
        # device.
        # On the CPU first: to divide by a tensor of the device `meta`, torch loads its compiler, which takes a second.
        mean, std = (torch.tensor(v, device="cpu").reshape(1, -1, 1, 1) for v in (takes.mean, takes.std))
        here = torch.get_default_device()
        self.register_buffer("scale", (0.5 / std).to(here), persistent=False)
        self.register_buffer("shift", ((0.5 - mean) / std).to(here), persistent=False)

    def forward(self, images: Images) -> Float[Tensor, "n k"]:
        """Return logits; gradients reach the images."""
        given: Tensor = self.network(self.prepared(images))
        if self.outputs == "probabilities":
            return given.float().clamp_min(SMALLEST).log()
        return given.clamp_min(torch.tensor(SMALLEST).log().item()) if self.outputs == "log_probabilities" else given

    def prepared(self, images: Images) -> Images:
        """Return images as the network takes them; the very same if they are so already."""
        images = with_channels(resized(images, self.takes.size), self.takes.channels)
        images = images.flip(1) if self.takes.bgr else images
        return images if self.takes.signed else images * self.scale + self.shift

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Return the network's state."""
        return self.network.state_dict(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Load a state of the network's."""
        return self.network.load_state_dict(*arguments, **options)


def resized(images: Images, size: tuple[int, int]) -> Images:
    """Return images brought to a height and width, each side by itself, bilinear with antialias; differentiable.

    The same images if they have that size. Two matrix products, whose gradients, unlike those of torch's own function,
    are the same at each run on a GPU, and which can be exported to ONNX.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    with torch.autocast(images.device.type, enabled=False):
        values = images.float()
        rows, columns = (
            _weights(before, after).to(values.device) for before, after in zip(images.shape[-2:], size, strict=True)
        )
        scaled: Tensor = rows @ values @ columns.T
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return scaled.contiguous(memory_format=torch.channels_last) if channels_last else scaled


def with_channels(images: Images, channels: int) -> Images:
    """Return images with 1 or 3 channels: RGB turns to gray by ITU-R 601 luma, gray to RGB by repeating."""
    if images.shape[1] == channels:
        return images
    if channels == 1:
        weights = torch.tensor(GRAY, device=images.device, dtype=images.dtype).reshape(1, 3, 1, 1)
        return (images * weights).sum(dim=1, keepdim=True)
    return images.expand(-1, channels, -1, -1)


@lru_cache(maxsize=64)
def _weights(before: int, after: int) -> Float[Tensor, "after before"]:
    """Return the matrix that brings a line of pixels to another length; each of its rows has sum 1."""
    lines = torch.eye(before)[None, None]  # each column is a line with one pixel lit
    return F.interpolate(lines, (after, before), mode="bilinear", antialias=True)[0, 0]


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network with parameters or buffers."""
    return next(itertools.chain(model.parameters(), model.buffers())).device
