"""The state dict of one network, found in what people save of a training, and why it does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from degan_search.networks.table import CLASSIFIERS, build_classifier, own_classes
from degan_search.settings.trial import TeacherConfig
from degan_search.system.errors import UserError

State = dict[str, Tensor]
PLACES = ("state_dict", "model_state_dict", "model", "net", "network", "teacher", "weights", "params")
"""Keys under which trainings save the network itself, the usual ones first; averages of its weights (`ema`) come last.
"""
WRAPPERS = ("module", "_orig_mod")
"""What `DataParallel`, `AveragedModel` and `torch.compile` put before a network's names, or amid them."""
COUNTED_BATCHES = "num_batches_tracked"
"""What BatchNorm counts, and older files do not have."""
COUNTED = "n_averaged"
"""An entry of `AveragedModel` beside the network's."""
DEPTH = 3
"""Dictionaries around a state dict at most."""
USUAL = tuple(
    f"torchvision/{name}"
    for name in (
        *("resnet18", "resnet34", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "vgg16"),
        *("densenet121", "efficientnet_b0", "shufflenet_v2_x1_0", "squeezenet1_1", "alexnet"),
    )
)
"""Networks of torchvision that a message tries, where a file does not fit."""
LISTED, LONGEST = 5, 100
"""Names that a message lists at most, and how much of each."""


@dataclass(frozen=True)
class Found:
    """A state dict, its names as the network has them; where it lay; and what the user should know of that."""

    state: State
    place: str
    note: str = ""


def find_state(loaded: object, wanted: Mapping[str, Tensor], what: str) -> Found:
    """Return the state dict that fits a network best, of all that a loaded file holds.

    Names lose a common beginning, and the wrappers' parts, where they then are the network's. Where no state has the
    network's names, one with the same tensors in the same order is taken (`in_order`).

    Args:
        loaded: what the file holds.
        wanted: the network's own state dict.
        what: names the file in messages.

    Raises:
        UserError: there is none; or several fit, and none has a usual name.
    """
    found = [Found(plain_names(state, wanted), place) for place, state in _states(loaded)]
    if not found:
        keys = f"; it has {_listed(map(str, loaded))}" if isinstance(loaded, Mapping) and loaded else ""
        raise UserError(f"{what} holds no plain state dict, tensors by name{keys}")
    fitting = [one for one in found if not misfit(one.state, wanted)]
    if not fitting:
        renamed = [in_order(one, wanted, what) for one in found]
        fitting = [one for one in renamed if one is not None]
    if not fitting:
        return max(found, key=lambda one: len(one.state.keys() & wanted.keys()))
    best, *others = sorted(fitting, key=lambda one: _rank(one.place))
    if not others:
        return best
    places = ", ".join(repr(one.place) for one in others)
    if _rank(best.place) == _rank(others[0].place):
        raise UserError(f"{what} holds several networks that fit: {best.place!r}, {places}; save the one meant alone")
    return Found(best.state, best.place, f"{what} holds several networks: {best.place!r} is taken, not {places}")


def plain_names(state: State, wanted: Mapping[str, Tensor]) -> State:
    """Return the state with the names of which the network has most: as they are, or without what was put before."""
    variants = [state]
    bare = {name: value for name, value in state.items() if name != COUNTED}
    names = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in bare}
    variants.append({names[name]: value for name, value in bare.items()})
    while True:
        last = variants[-1]
        heads = {name.partition(".")[0] for name in last}
        if len(heads) != 1 or any("." not in name for name in last):
            break
        variants.append({name.partition(".")[2]: value for name, value in last.items()})
    whole = [one for one in variants if one is state or len(one) == len(bare)]  # no two names became one
    return max(whole, key=lambda one: len(one.keys() & wanted.keys()))


def in_order(found: Found, wanted: Mapping[str, Tensor], what: str) -> Found | None:
    """Return the state by the network's names, if it has the same tensors in the same order under others; else None.

    The same: of one shape, and with one last part of the name, such as weight or running_mean.
    """

    def counted(name: str) -> bool:
        return name.endswith(COUNTED_BATCHES)

    theirs = {name: value for name, value in found.state.items() if not counted(name)}
    ours = {name: value for name, value in wanted.items() if not counted(name)}
    kinds = ([(name.rpartition(".")[2], value.shape) for name, value in state.items()] for state in (theirs, ours))
    if len(theirs) < 2 or len({str(kind) for kind in kinds}) > 1:
        return None
    first, last = next(iter(theirs)), list(theirs)[-1]
    note = f"{what} has other names than the network ({first} ... {last}): its tensors are taken in their order"
    return Found(dict(zip(ours, theirs.values(), strict=True)), found.place, note)


def misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return what is missing, unexpected or of another shape, for people; "" if the state fits the network."""
    # BatchNorm of before 2017 counted no batches, and nothing here looks at the count.
    missing = [name for name in wanted if name not in state and not name.endswith(COUNTED_BATCHES)]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {_shape(state[name])}, not {_shape(wanted[name])}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    return "; ".join(f"{kind}: {_listed(names)}" for kind, names in parts if names)


def state_of_classes(loaded: object, name: str, width: int | None = None, **images: Any) -> int:
    """Return how many classes the head has in a loaded file that holds a state dict of this network.

    Args:
        loaded: what the file holds.
        name: the network.
        width: as in `build_classifier`.
        images: `channels` and `size`, as in `build_classifier`.

    Raises:
        UserError: the network cannot be built, or no state dict in the file has its head.
    """
    if (told := own_classes(name)) is not None:
        return told
    wanted, other = (_on_meta(name, classes, width, **images) for classes in (10, 11))
    found = {classes for _, state in _states(loaded) if (classes := _head(plain_names(state, wanted), wanted, other))}
    if len(found) != 1:
        counts = f"heads of {', '.join(map(str, sorted(found)))} classes" if found else "no head of its kind"
        raise UserError(f"the file has {counts} for network {name!r}: say teacher.classes")
    return found.pop()


def nearest(state: State) -> str:
    """Return which network has exactly these tensors, of the table and the usual ones of torchvision, for people."""
    for name in (*CLASSIFIERS, *USUAL):
        known, other = _on_meta(name, 10, None), _on_meta(name, 11, None)
        own = plain_names(state, known)
        first, classes = next(iter(known)), _head(own, known, other)
        if not classes or classes > 10**6 or first not in own or not own[first].ndim:
            continue
        width = None
        if name in CLASSIFIERS:
            width = max(1, round(CLASSIFIERS[name].width * len(own[first]) / len(known[first])))
        if (width or 0) <= 4096 and not misfit(own, _on_meta(name, classes, width)):
            more = f" and teacher.width {width}" if width else ""
            return f"it fits teacher.network {name!r} with {classes} classes{more}"
    return "no network of the table has these tensors"


def describe(config: TeacherConfig, classes: int) -> str:
    """Return the network of these settings in words."""
    width = config.width or (CLASSIFIERS[config.network].width if config.network in CLASSIFIERS else None)
    return f"network {config.network!r} with {classes} classes" + (f" and width {width}" if width else "")


def _head(state: Mapping[str, Tensor], wanted: State, other: State) -> int:
    """Return the classes of a state, from the tensors whose first dimension differs in the two; 0 if not told."""
    heads = [name for name, value in wanted.items() if value.shape != other[name].shape]
    found = {len(state[name]) for name in heads if name in state and state[name].ndim == wanted[name].ndim}
    return found.pop() if heads and len(found) == 1 and all(name in state for name in heads) else 0


def _states(loaded: object) -> Iterator[tuple[str, State]]:
    """Yield every dictionary of tensors by name in a loaded file, with the keys that lead to it."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], object]] = [((), loaded)]
    while waiting:
        place, value = waiting.pop()
        if not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        if value and all(isinstance(name, str) and isinstance(one, Tensor) for name, one in value.items()):
            yield ".".join(place), dict(value)  # an OrderedDict may carry further attributes
        elif len(place) < DEPTH:
            waiting += [((*place, str(name)), one) for name, one in value.items()]


def _rank(place: str) -> int:
    """Return how unusual a place is for the network itself; averages of weights come last."""
    if "ema" in place.lower():
        return len(PLACES) + 1
    return min((PLACES.index(part) for part in place.split(".") if part in PLACES), default=len(PLACES))


def _on_meta(name: str, classes: int, width: int | None, **images: Any) -> State:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # no weights are drawn, save by some users' code
        return build_classifier(name, classes, width, **images).state_dict()


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"


def _listed(names: Iterable[str]) -> str:
    given = [name[:LONGEST] for name in names]
    more = f" and {len(given) - LISTED} more" if len(given) > LISTED else ""
    return ", ".join(given[:LISTED]) + more
