"""The state dict of one network, found in what people save of a training, and why it does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.settings.trial import TeacherConfig
from degan_search.system.errors import UserError

State = dict[str, Tensor]
PLACES = ("state_dict", "model_state_dict", "model", "net", "network", "teacher", "weights", "params")
"""Keys under which trainings save the network itself, the usual ones first; averages of its weights (`ema`) come last.
"""
WRAPPERS = ("module", "_orig_mod")
"""What `DataParallel`, `AveragedModel` and `torch.compile` put before a network's names, or amid them."""
COUNTED = "n_averaged"
"""An entry of `AveragedModel` beside the network's."""
DEPTH = 3
"""Dictionaries around a state dict at most."""
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

    Names lose a common beginning, and the wrappers' parts, where they then are the network's.

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


def misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return what is missing, unexpected or of another shape, for people; "" if the state fits the network."""
    # BatchNorm of before 2017 counted no batches, and nothing here looks at the count.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {_shape(state[name])}, not {_shape(wanted[name])}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    return "; ".join(f"{kind}: {_listed(names)}" for kind, names in parts if names)


def nearest(state: State) -> str:
    """Return which network of the table has exactly these tensors, with its settings, for people."""
    for name, network in CLASSIFIERS.items():
        known = _on_meta(name, 10, None)
        own = plain_names(state, known)
        first, last = next(iter(known)), [key for key in known if known[key].ndim == 2][-1]
        if first not in own or last not in own or not own[first].ndim or not own[last].ndim:
            continue
        width = max(1, round(network.width * len(own[first]) / len(known[first])))
        if width <= 4096 and len(own[last]) <= 10**6 and not misfit(own, _on_meta(name, len(own[last]), width)):
            return f"it fits teacher.network {name!r} with {len(own[last])} classes and teacher.width {width}"
    return "no network of the table has these tensors"


def describe(config: TeacherConfig, classes: int) -> str:
    """Return the network of these settings in words."""
    width = config.width or CLASSIFIERS[config.network].width
    return f"network {config.network!r} with {classes} classes and width {width}"


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


def _on_meta(name: str, classes: int, width: int | None) -> State:
    with torch.device("meta"):  # no weights are drawn
        return build_classifier(name, classes, width).state_dict()


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"


def _listed(names: Iterable[str]) -> str:
    given = [name[:LONGEST] for name in names]
    more = f" and {len(given) - LISTED} more" if len(given) > LISTED else ""
    return ", ".join(given[:LISTED]) + more
