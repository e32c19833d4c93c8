"""The checkpoints of a running trial: the last two, so that if one is broken the trial goes on from the other."""

from __future__ import annotations

from typing import Any

from degan_search.storage import Place
from degan_search.system.errors import UserError
from degan_search.training.resumable import read_state, state_bytes

KEEP_LAST = 2
PREFIX = "checkpoint-"


def save(place: Place, state: dict[str, Any]) -> None:
    """Write a checkpoint into a trial's folder, and delete those before the last one.

    Raises:
        OSError: the disk refused; the checkpoints before are still there.
    """
    before = _names(place)
    number = _number(before[-1]) + 1 if before else 0
    place.write(f"{PREFIX}{number:06d}", state_bytes(state))
    for name in before[: -(KEEP_LAST - 1)]:
        place.delete(name)


def load(place: Place) -> dict[str, Any] | None:
    """Return the last whole checkpoint of a trial, or None."""
    for name in reversed(_names(place)):
        try:
            return read_state(place.read(name), name)
        except (UserError, FileNotFoundError):
            continue
    return None


def clear(place: Place) -> None:
    """Delete a trial's checkpoints, and what is left of one that a killed process was writing."""
    for name in _names(place):
        place.delete(name)
    place.remove_torn()


def _names(place: Place) -> list[str]:
    names = [name for name in place.names() if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal()]
    return sorted(names, key=_number)


def _number(name: str) -> int:
    return int(name.removeprefix(PREFIX))
