"""A first look at a teacher and its proxies, before anything is trained: what it sees in them, and what looks wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from degan_search.data import folders, proxies
from degan_search.data.images import normalise
from degan_search.data.sets import user_set
from degan_search.evaluation.relatedness import MEASURES, ORDER, random_network, view_of
from degan_search.evaluation.some_images import FEWEST, some_images
from degan_search.networks.batch_statistics import statistics_distance
from degan_search.networks.front import Classifier
from degan_search.networks.image_input import NORMALISATIONS, ImageInput, changed
from degan_search.networks.own import scripted
from degan_search.settings.image_input import InputConfig
from degan_search.settings.trial import TeacherConfig
from degan_search.stages import teacher as teachers
from degan_search.stages.students import parameters_of
from degan_search.stages.teacher_file import Teacher
from degan_search.system.errors import UserError
from degan_search.training.measures import infomax, predict

GIVEN = "as given"
BYTES, ORDERS = "range: [0, 255]", ("RGB", "BGR")
"""Other ways of giving images to a network: pixels as bytes, and the other order of channels."""
TRIED = 300
"""Images of each proxy on which other ways of giving them are tried."""
FEW = 500
"""Images below which a GAN is likely to repeat them."""
MEASURED_FILES = 100
"""Files of a folder whose own size is looked at."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the teacher sees in a proxy."""

    proxy: str
    images: int | None
    """How many the proxy has; None: more than were looked at."""
    looked_at: int
    own_side: int | None
    """The shorter side of its images in pixels, half of them less; None: not known."""
    seconds: float
    """To load an image."""
    shares: Float[np.ndarray, " k"]
    """Of the images, by the class that the teacher sees."""
    confidence: float
    """Mean of the largest probability."""
    measures: dict[str, float]
    """Those of `relatedness.MEASURES` that need no true image."""


@dataclass(frozen=True)
class Way:
    """How well a way of giving images to the network fits, on the proxy where it fits best."""

    name: str
    """A normalisation's, `BYTES`, one of `ORDERS`, or `GIVEN`."""
    bn_distance: float
    """Of the network's inputs from those that its BatchNorm layers remember; NaN without such layers."""
    infomax: float
    """How sure and how varied the outputs are, in nats."""


@dataclass(frozen=True, eq=False)
class Look:
    """What a first look found: the teacher, its parameters, proxies (the most related first), and ways of giving them.

    The first way is the one given; there are none if no other was tried.
    """

    teacher: Teacher
    parameters: int
    script: bool
    """Whether it is TorchScript, so that its network's name says nothing."""
    seen: tuple[Seen, ...]
    ways: tuple[Way, ...]


def look(
    config: TeacherConfig,
    names: Sequence[str],
    data_dir: Path | None = None,
    images: int = 2000,
    device: str = "cpu",
    show: Callable[[str], None] = lambda text: None,
) -> Look:
    """Return what a teacher of the user's own sees in proxies; nothing is trained, and no true image is read.

    Args:
        config: the teacher's; `path` is given.
        names: of the proxies.
        data_dir: folder of the image sets.
        images: of each proxy, at most.
        device: where the networks run.
        show: is told what is being done.

    Raises:
        UserError: no proxy, an unknown or too small one, one twice, or a teacher that does not fit.
    """
    if not names:
        raise UserError("no proxy given: at least one is needed, as --proxy folder:PATH")
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise UserError(f"proxy {twice!r} is given twice")
    if images < FEWEST:
        raise UserError(f"images = {images}: {FEWEST} or more are needed")
    for name in names:
        proxies.check(name)
    show("Reading the teacher")
    teacher = teachers.obtain(config, None, Path(), device=device)
    model = teacher.model(device)
    plain = random_network(teacher.takes.channels).to(device)
    seen, ways = [], []
    for name in names:
        show(f"Looking at {name}")
        some = some_images(name, images, data_dir, teacher.takes)
        loaded = some.images
        view = view_of(model, plain, loaded)
        chances = view.logits.double().softmax(dim=1)
        shares = view.logits.argmax(dim=1).bincount(minlength=teacher.classes).double() / len(loaded)
        measures = {key: measure.of(view, None) for key, measure in MEASURES.items() if not measure.true}
        confidence = float(chances.max(dim=1).values.mean())
        sides = {_own_side(part, data_dir) for part in proxies.joined(name)}
        side = sides.pop() if len(sides) == 1 else None
        seen.append(Seen(name, some.total, len(loaded), side, some.seconds, shares.numpy(), confidence, measures))
        few = torch.from_numpy(loaded[np.random.default_rng(0).permutation(len(loaded))[:TRIED]]).to(device)
        ways.append(_ways(model, teacher.takes, few))
    upwards = [1 if MEASURES[key].direction == "min" else -1 for key in ORDER]
    seen.sort(key=lambda one: [sign * one.measures[key] for sign, key in zip(upwards, ORDER, strict=True)])
    return Look(teacher, parameters_of(model, teacher), scripted(model), tuple(seen), _best(ways))


def doubts(found: Look) -> list[str]:
    """Return what looks wrong, a sentence each: how images are given, what the teacher sees, small or few images."""
    takes, classes = found.teacher.takes, found.teacher.classes
    lines = _doubts_of_ways(found.ways)
    undecided = [one for one in found.seen if one.measures["mean_entropy"] > 0.9 * np.log(classes)]
    single = [one for one in found.seen if one.shares.max() > 0.9 and one not in undecided]
    for fault, faulty in (("is undecided", undecided), ("sees one class", single)):
        if not faulty:
            continue
        what = f"The teacher {fault} in nearly every image of {', '.join(one.proxy for one in faulty)}"
        everywhere = len(faulty) == len(found.seen)
        lines.append(
            f"{what}: the preprocessing or the weights are probably wrong"
            if everywhere
            else f"{what}: it tells little about what the teacher knows"
        )
    for one in found.seen:
        if one.own_side is not None and one.own_side < min(takes.size):
            lines.append(
                f"{one.proxy}: half of its images are {one.own_side} pixels or less on their shorter side, and are "
                f"enlarged to the teacher's {takes.height}x{takes.width}"
            )
        if one.images is not None and one.images < FEW:
            lines.append(
                f"{one.proxy}: {one.images} images are few for a GAN, whose step takes 32 or more; some {FEW} help"
            )
    return lines


def _doubts_of_ways(ways: Sequence[Way]) -> list[str]:
    if not ways:
        return []
    given, *others = ways
    if not np.isnan(given.bn_distance):
        best = min(others, key=lambda way: way.bn_distance)
        if best.bn_distance > 0.8 * given.bn_distance:
            return []
        figures = (
            "its inputs' distance from what its BatchNorm layers remember is "
            f"{best.bn_distance:.2f}, not {given.bn_distance:.2f}"
        )
    else:
        best = max(others, key=lambda way: way.infomax)
        if best.infomax < 1.25 * given.infomax + 0.2:
            return []
        figures = f"its outputs tell {best.infomax:.2f} nats about an image, not {given.infomax:.2f}"
    ask = {
        BYTES: f"write teacher.input: {{{BYTES}}} in the file",
        **{order: f"try --order {order.lower()}" for order in ORDERS},
    }.get(best.name, f"try --normalise {best.name}")
    return [f"Another preprocessing fits the teacher better, {best.name}: {figures}; {ask}"]


def _own_side(name: str, data_dir: Path | None) -> int | None:
    """Return the median shorter side of a proxy's images as they are, if that is soon known."""
    bases = proxies.own_bases(name)
    own = user_set(bases[0]) if bases else None
    if own is None:
        return int(min(proxies.load(name, "train", data_dir, 1).images.shape[2:]))
    if own.kind.load is not folders.read_folder:
        return None
    files = folders.find(own.path).files
    sides = []
    for file in files[:: max(1, len(files) // MEASURED_FILES)]:
        with Image.open(file) as image:
            sides.append(min(image.size))
    return int(median(sides))


def _ways(model: nn.Module, takes: ImageInput, images: UInt8[Tensor, "n c h w"]) -> list[Way]:
    """Return how well each way of giving images fits on these."""
    configs = {name: InputConfig(normalise=name) for name in NORMALISATIONS}
    inputs = {GIVEN: takes}
    for name, config in {**configs, BYTES: InputConfig(range=(0.0, 255.0))}.items():
        other = changed(takes, config, "teacher.input")
        if other != takes:
            inputs[name] = other
    if takes.channels == 3:
        inputs[ORDERS[not takes.bgr]] = replace(takes, bgr=not takes.bgr)
    assert isinstance(model, Classifier)
    return [_way(model, name, images, own) for name, own in inputs.items()]


def _way(model: Classifier, name: str, images: UInt8[Tensor, "n c h w"], takes: ImageInput) -> Way:
    turned = Classifier(model.network, takes, model.outputs).to(images.device).eval()
    return Way(name, statistics_distance(turned, normalise(images)), infomax(predict(turned, images)))


def _best(ways: Sequence[Sequence[Way]]) -> tuple[Way, ...]:
    """Return each way with its best figures over the proxies."""
    return tuple(
        replace(
            same[0],
            bn_distance=min(way.bn_distance for way in same),
            infomax=max(way.infomax for way in same),
        )
        for same in zip(*ways, strict=True)
    )
