"""Networks of the user's own: whether they can be looked into, and what they give."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Outputs = Literal["logits", "probabilities", "log_probabilities"]
SMALLEST = 1e-20
"""Probabilities below count as this one, whose logarithm is finite, and the gradient of it too."""
ROUNDING = 0.01
"""How far the sum of probabilities in half precision may be from 1."""


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
