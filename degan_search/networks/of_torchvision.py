"""Classifiers of torchvision, by its own names: `torchvision/resnet18`."""

from __future__ import annotations

import inspect
import sys
from enum import EnumType
from functools import cache
from typing import Any

import torch
from torch import nn

from degan_search.networks.image_input import ImageInput
from degan_search.networks.names import Named, Wanted, first_logits, forbid, refused
from degan_search.system.errors import UserError, close_matches

PREFIX = "torchvision/"
_AUXILIARY = ("googlenet", "inception_v3")
"""With outputs beside the logits in train mode, and weights whose drawing warns unless it is asked for."""


def build(name: Named, wanted: Wanted) -> nn.Module:
    """Build a classifier of torchvision with random weights; logits [N, classes], in train mode too.

    With other than 3 channels the first convolution is replaced by one of the same settings.

    Raises:
        UserError: no classifier of torchvision, or options that it does not take.
    """
    from torchvision import models

    model = _known(name)
    forbid(name, "weights", "num_classes", "progress", "weights_backbone")
    for option in name.options.keys() - _options(model):  # most of its networks let unknown ones pass
        raise UserError(
            f"network {name.text!r} has no option {option!r}; {close_matches(option, sorted(_options(model)))}"
        )
    options: dict[str, Any] = {**_sized(model, wanted.size), **name.options}
    if model in _AUXILIARY:
        options = {"aux_logits": False, "init_weights": True, **options}
    try:
        network: nn.Module = models.get_model(model, weights=None, num_classes=wanted.classes, **options)
    except Exception as error:  # what an option leads to
        raise refused(name, error) from None
    if options.get("aux_logits"):
        network.register_forward_hook(first_logits)
    if wanted.channels != 3:
        _replace_first(network, wanted.channels, name)
    return network


def image_input(name: Named) -> ImageInput:
    """Return the input of torchvision's own weights of this network.

    Raises:
        UserError: no classifier of torchvision.
    """
    return _image_input(_known(name))


@cache
def _image_input(model: str) -> ImageInput:
    from torchvision import models

    transforms = models.get_model_weights(model).DEFAULT.transforms()
    size = transforms.crop_size
    return ImageInput(size[0], size[-1], len(transforms.mean), tuple(transforms.mean), tuple(transforms.std))


@cache
def _classifiers() -> tuple[str, ...]:
    from torchvision import models

    return tuple(models.list_models(module=models))


def _known(name: Named) -> str:
    """Return the name within torchvision of a classifier."""
    from torchvision import models

    model = name.what.removeprefix(PREFIX)
    if model in _classifiers():
        return model
    if model in models.list_models():
        raise UserError(f"network {name.text!r} is no image classifier; torchvision/resnet18 is one, for example")
    raise UserError(f"unknown network {name.text!r}; {close_matches(model, _classifiers())}")


@cache
def _options(model: str) -> frozenset[str]:
    """Return the options that a network may have: the parameters of all that its module of torchvision defines."""
    from torchvision import models

    module = sys.modules[models.get_model_builder(model).__module__]
    own = [one for one in vars(module).values() if getattr(one, "__module__", None) == module.__name__]
    found = [
        key
        for one in own
        if callable(one) and not isinstance(one, EnumType)
        for key in inspect.signature(one).parameters
    ]
    return frozenset(found) - {"self", "args", "kwargs", "weights", "progress", "num_classes", "x", "input"}


def _sized(model: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return the options by which networks of a fixed size are told it."""
    if model.startswith("vit_"):
        if size[0] != size[1]:
            raise UserError(f"network 'torchvision/{model}' takes squares, not {size[0]}x{size[1]}")
        return {"image_size": size[0]}
    return {"input_size": size} if model.startswith("maxvit") else {}


def _replace_first(network: nn.Module, channels: int, name: Named) -> None:
    for place, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            if layer.groups != 1:
                break
            parent, _, own = place.rpartition(".")
            with torch.device(layer.weight.device):
                new = nn.Conv2d(
                    channels,
                    layer.out_channels,
                    layer.kernel_size,  # type: ignore[arg-type]
                    layer.stride,  # type: ignore[arg-type]
                    layer.padding,  # type: ignore[arg-type]
                    layer.dilation,  # type: ignore[arg-type]
                    bias=layer.bias is not None,
                    padding_mode=layer.padding_mode,
                )
            setattr(network.get_submodule(parent), own, new)
            return
    raise UserError(f"network {name.text!r} takes images of 3 channels, not {channels}")
