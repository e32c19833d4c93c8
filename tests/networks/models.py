"""Small networks and their inputs, for the tests of networks."""

import torch
from torch import Tensor, nn

SMALL = {"inception_v3": 1, "resnet18": 4, "resnet34": 4, "resnet32": 4, "wrn_40_2": 2, "wrn_40_1": 4}
SMALL |= {"wrn_16_2": 2, "wrn_16_1": 4}
"""Widths at which the deep networks, whose full size is slow here, still have every layer."""


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def images(count: int, channels: int) -> Tensor:
    return torch.rand(count, channels, 32, 32) * 2 - 1


def used(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A model in train mode whose BatchNorms are no longer at their first values."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(3):
            model(inputs)
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())
