"""The one table of classifiers: a new teacher or student is one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from degan_search.networks.alexnet import alexnet
from degan_search.networks.image_input import ImageInput
from degan_search.networks.inception import inception_v3
from degan_search.networks.lenet import lenet
from degan_search.networks.resnet import ZeroPadding, resnet
from degan_search.system.errors import UserError, close_matches


@dataclass(frozen=True)
class Network:
    """How to build a classifier, and what it is made for.

    `build(classes, channels, width)` makes it for images of 32x32 pixels and says what `width` counts; `channels` and
    `width` are the paper's.
    """

    build: Callable[[int, int, int], nn.Module]
    channels: int
    width: int


CLASSIFIERS: dict[str, Network] = {
    "alexnet": Network(alexnet, channels=3, width=48),
    "alexnet_half": Network(alexnet, channels=3, width=24),
    "lenet": Network(lenet, channels=1, width=6),
    "lenet_half": Network(lenet, channels=1, width=3),
    "inception_v3": Network(inception_v3, channels=3, width=16),
    "resnet18": Network(partial(resnet, blocks=(2, 2, 2, 2)), channels=3, width=64),
    "resnet34": Network(partial(resnet, blocks=(3, 4, 6, 3)), channels=3, width=64),
    "resnet32": Network(partial(resnet, blocks=(5, 5, 5), shortcut=ZeroPadding), channels=3, width=16),
}


def build_classifier(
    name: str, classes: int, width: int | None = None, channels: int | None = None, size: tuple[int, int] = (32, 32)
) -> nn.Module:
    """Build the classifier `name` of CLASSIFIERS, at the table's width and channels unless told otherwise.

    It takes images [N, channels, 32, 32] in [-1, 1] and gives logits [N, classes]; it is in train mode, and
    its weights are drawn from torch's default generator (seed it first). Raises UserError for an unknown
    name, or for a width, a number of classes or of channels below 1.
    """
    if name not in CLASSIFIERS:
        raise UserError(f"unknown classifier {name!r}; {close_matches(name, sorted(CLASSIFIERS))}")
    network = CLASSIFIERS[name]
    width = network.width if width is None else width
    channels = network.channels if channels is None else channels
    for what, value in (("width", width), ("classes", classes), ("channels", channels)):
        if value < 1:
            raise UserError(f"{what} of classifier {name!r} is {value}; it must be 1 or more.")
    return network.build(classes, channels, width)


def default_input(name: str) -> ImageInput:
    """Return what a network says it takes (stand-in)."""
    return ImageInput(channels=channels(name))


def channels(network: str) -> int:
    """Return the image channels that a teacher's network takes: 1 or 3.

    Raises:
        UserError: unknown network.
    """
    if network not in CLASSIFIERS:
        raise UserError(f"teacher.network {network!r} is unknown; known: {', '.join(CLASSIFIERS)}")
    return CLASSIFIERS[network].channels
