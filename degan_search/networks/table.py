"""Every classifier that can be named: the table of this project's own, and the table of kinds of names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import nn

from degan_search.networks import alexnet, inception, lenet, of_code, of_onnx, of_timm, of_torchvision
from degan_search.networks.image_input import ImageInput, signed
from degan_search.networks.names import Named, Wanted, one_line, parts
from degan_search.networks.resnet import ZeroPadding, resnet
from degan_search.networks.wide_resnet import wide_resnet
from degan_search.system.errors import UserError, close_matches

LARGEST = 512
"""Most pixels of a side that the search for the smallest size tries."""


@dataclass(frozen=True)
class Network:
    """How to build a classifier of this project's own, and what it is made for.

    `build(classes, channels, width, size=(height, width))` makes it and says what `width` counts; `channels` and
    `width` are the paper's; `smallest` is the least side of an image in pixels. `revision` is raised when what it
    computes, or its first weights, change: teachers trained before are then trained again.
    """

    build: Callable[..., nn.Module]
    channels: int
    width: int
    smallest: int = 1
    revision: int = 1


CLASSIFIERS: dict[str, Network] = {
    "alexnet": Network(alexnet.alexnet, channels=3, width=48, smallest=alexnet.SMALLEST),
    "alexnet_half": Network(alexnet.alexnet, channels=3, width=24, smallest=alexnet.SMALLEST),
    "lenet": Network(lenet.lenet, channels=1, width=6, smallest=lenet.SMALLEST, revision=2),
    "lenet_half": Network(lenet.lenet, channels=1, width=3, smallest=lenet.SMALLEST, revision=2),
    "inception_v3": Network(inception.inception_v3, channels=3, width=16, smallest=inception.SMALLEST, revision=2),
    "resnet18": Network(partial(resnet, blocks=(2, 2, 2, 2), he=False), channels=3, width=64, revision=2),
    "resnet34": Network(partial(resnet, blocks=(3, 4, 6, 3)), channels=3, width=64),
    "resnet32": Network(partial(resnet, blocks=(5, 5, 5), shortcut=ZeroPadding), channels=3, width=16),
    **{
        f"wrn_{depth}_{factor}": Network(partial(wide_resnet, depth=depth, factor=factor), channels=3, width=16)
        for depth in (40, 16)
        for factor in (2, 1)
    },
}


@dataclass(frozen=True)
class Kind:
    """A kind of names: its form for people, which texts are of it, how to build them and what images they take.

    `weights` says whether the name gives weights too; `fixed_classes` how many classes, if the name says it.
    """

    form: str
    recognises: Callable[[str], bool]
    build: Callable[[Named, Wanted], nn.Module]
    image_input: Callable[[Named], ImageInput]
    weights: bool = False
    fixed_classes: Callable[[Named], int | None] = lambda name: None


def _build_own(name: Named, wanted: Wanted) -> nn.Module:
    network = _own(name)
    if min(wanted.size) < network.smallest:
        raise _too_small(name.text, wanted.size, network.smallest)
    width = network.width if wanted.width is None else wanted.width
    return network.build(wanted.classes, wanted.channels, width, size=wanted.size)


def _own(name: Named) -> Network:
    if name.what not in CLASSIFIERS:
        forms = ", ".join(kind.form for kind in KINDS[1:])
        raise UserError(
            f"unknown classifier {name.text!r}; {close_matches(name.what, sorted(CLASSIFIERS))}, or {forms}"
        )
    if name.options:
        raise UserError(f"network {name.text!r} takes no options; its width is a setting")
    return CLASSIFIERS[name.what]


KINDS: tuple[Kind, ...] = (
    Kind("NAME", lambda what: True, _build_own, lambda name: signed(_own(name).channels)),
    Kind(
        "torchvision/NAME",
        lambda what: what.startswith(of_torchvision.PREFIX),
        of_torchvision.build,
        of_torchvision.image_input,
    ),
    Kind("timm/NAME", lambda what: what.startswith(of_timm.PREFIX), of_timm.build, of_timm.image_input),
    Kind(
        "FILE.onnx",
        lambda what: what.endswith(of_onnx.SUFFIX),
        of_onnx.build,
        of_onnx.image_input,
        weights=True,
        fixed_classes=of_onnx.classes,
    ),
    Kind("FILE.py:FUNCTION or package.module:FUNCTION", lambda what: ":" in what, of_code.build, of_code.image_input),
)
"""The kinds of names; the first takes every text that no other recognises, and of the others the first that does."""


def kind_of(name: str) -> tuple[Kind, Named]:
    """Return the kind of a name, and its parts.

    Raises:
        UserError: options in another form than `?option=value&option=value`.
    """
    named = parts(name)
    return next((kind for kind in KINDS[1:] if kind.recognises(named.what)), KINDS[0]), named


def is_builtin(name: str) -> bool:
    """Return whether a name is one of this project's own classifiers."""
    return name in CLASSIFIERS


def revision(name: str) -> int:
    """Return how often a network of this project's own was changed, and once more; 1 for all others."""
    return CLASSIFIERS[name].revision if is_builtin(name) else 1


def has_weights(name: str) -> bool:
    """Return whether a network that is built by this name has trained weights already, as of an ONNX file."""
    return kind_of(name)[0].weights


def own_classes(name: str) -> int | None:
    """Return how many classes the name itself says, as of an ONNX file; None if any number can be asked for.

    Raises:
        UserError: it cannot be read.
    """
    kind, named = kind_of(name)
    return kind.fixed_classes(named)


def build_classifier(
    name: str,
    classes: int,
    width: int | None = None,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """Build the classifier of this name (see KINDS), in train mode.

    Its weights are drawn from torch's default generator (seed it first), if the name does not give them.

    Args:
        name: one of CLASSIFIERS, or another of KINDS.
        classes: logits that it gives, [N, classes].
        width: of this project's own networks alone; else the table's.
        channels: of the images that it takes, [N, channels, height, width]; else what `default_input` says.
        size: height and width of the images in pixels; else what `default_input` says.

    Raises:
        UserError: unknown name, a width, a number of classes or of channels below 1, images that are too small, or
            what the network's library or the user's code says.
    """
    kind, named = kind_of(name)
    if channels is None or size is None:
        given = kind.image_input(named)
        channels, size = given.channels if channels is None else channels, given.size if size is None else size
    counts = {"width": 1 if width is None else width, "classes": classes, "channels": channels}
    for what, value in {**counts, "height": size[0], "breadth": size[1]}.items():
        if value < 1:
            raise UserError(f"{what} of classifier {name!r} is {value}; it must be 1 or more.")
    if width is not None and kind is not KINDS[0]:
        raise UserError(
            f"network {name!r} takes no width (it is {width}); its options stand in its name, ?OPTION=VALUE"
        )
    return kind.build(named, Wanted(classes, channels, size, width)).train()


def default_input(name: str) -> ImageInput:
    """Return the images that a network says it takes, else 32x32 in 3 channels and [-1, 1].

    Raises:
        UserError: unknown name, or one that cannot be looked up.
    """
    kind, named = kind_of(name)
    return kind.image_input(named)


def channels(name: str) -> int:
    """Return the image channels that a network says it takes; raises as `default_input`."""
    return default_input(name).channels


def check_name(
    name: str, channels: int | None = None, size: tuple[int, int] | None = None, width: int | None = None
) -> None:
    """Refuse a name of which no classifier can be built for these images; each is tried once in a process.

    No weights are drawn where the network's code can do without, and torch's default generator does not advance.

    Raises:
        UserError: as `build_classifier`, or it gives no logits [N, classes], or the smallest size that works.
    """
    given = default_input(name) if channels is None or size is None else None
    _check(name, channels or (given.channels if given else 0), size or (given.size if given else (0, 0)), width)


@lru_cache(maxsize=256)
def _check(name: str, channels: int, size: tuple[int, int], width: int | None) -> None:
    kind, named = kind_of(name)
    if kind.weights:  # it was tried when it was read
        build_classifier(name, kind.fixed_classes(named) or 1, width, channels, size)
        return
    if kind is KINDS[0]:  # the table says for which images it is; torch takes half a second to learn shapes of outputs
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            build_classifier(name, 1, width, channels, size)
        return
    fault = _fault(name, channels, size, width)
    if fault is None:
        return
    if kind.build is not of_code.build:
        low = high = min(size)
        while high <= LARGEST and _fault(name, channels, (high, high), width, ("meta",)) is not None:
            low, high = high, 2 * high
        if high <= LARGEST and high > min(size):
            while high - low > 1:
                middle = (low + high) // 2
                works = _fault(name, channels, (middle, middle), width, ("meta",)) is None
                low, high = (low, middle) if works else (middle, high)
            raise _too_small(name, size, high)
    raise fault


def _fault(
    name: str, channels: int, size: tuple[int, int], width: int | None, devices: tuple[str, ...] = ("meta", "cpu")
) -> UserError | None:
    """Return why a network does not work, None if it does: without weights if it can be, else with some."""
    found = None
    for device in devices:
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
                warnings.simplefilter("ignore")  # of layers that such small images leave empty
                network = build_classifier(name, 3, width, channels, size).eval()
                logits = network(torch.zeros(2, channels, *size))
        except UserError as error:
            found = error
        except Exception as error:  # of the network's own code
            found = UserError(
                f"network {name!r} does not work on images {channels}x{size[0]}x{size[1]}: {one_line(error)}"
            )
        else:
            shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            right = shape == (2, 3)
            return (
                None if right else UserError(f"network {name!r} gives {shape} for 2 images and 3 classes, not (2, 3)")
            )
    return found


def _too_small(name: str, size: tuple[int, int], smallest: int) -> UserError:
    return UserError(
        f"images of {size[0]}x{size[1]} are too small for network {name!r}: {smallest}x{smallest} at least"
    )
