"""Networks of the user's own: what they give is turned to logits, and their device is known."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Outputs = Literal["logits", "probabilities", "log_probabilities"]
SMALLEST = 1e-20
"""Probabilities below count as this one, whose logarithm is finite, and the gradient of it too."""
ROUNDING = 0.01
"""How far the sum of probabilities in half precision may be from 1."""


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network with parameters or buffers."""
    return next(itertools.chain(model.parameters(), model.buffers())).device


def scripted(model: nn.Module) -> bool:
    """Return whether a network is TorchScript, or holds some: its layers cannot be looked into."""
    return any(isinstance(layer, torch.jit.ScriptModule) for layer in model.modules())


def outputs_of(outputs: Float[Tensor, "n k"]) -> Outputs:
    """Return what a classifier's outputs for some images are.

    Probabilities are not below 0 and sum to 1 for each image; so do the exponentials of log-probabilities.
    """

    def are_shares(values: Tensor) -> bool:
        return bool((values >= 0).all() and ((values.sum(dim=1) - 1).abs() < ROUNDING).all())

    values = outputs.double()
    if are_shares(values):
        return "probabilities"
    return "log_probabilities" if are_shares(values.exp()) else "logits"


class OwnNetwork(nn.Module):
    """A network whose outputs are turned to logits: images [N, C, H, W] to [N, K].

    The logarithms of probabilities are logits: their softmax gives the probabilities again.
    """

    def __init__(self, network: nn.Module, outputs: Outputs = "logits") -> None:
        super().__init__()
        self.network, self.outputs = network, outputs
        # A frozen TorchScript module has neither parameters nor buffers that would tell its device.
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return logits."""
        given: Tensor = self.network(images)
        if self.outputs == "probabilities":
            return given.float().clamp_min(SMALLEST).log()
        return given.clamp_min(torch.tensor(SMALLEST).log().item()) if self.outputs == "log_probabilities" else given


def as_logits(network: nn.Module, outputs: Outputs) -> nn.Module:
    """Return the network itself if it gives logits and its device is known; else one that does."""
    known = next(itertools.chain(network.parameters(), network.buffers()), None) is not None
    return network if known and outputs == "logits" else OwnNetwork(network, outputs)
