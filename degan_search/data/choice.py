"""What may follow the path of the user's own images, as in `parquet:PATH?image=photo&label=kind`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from degan_search.system.errors import UserError, close_matches

BITS = range(8, 17)


@dataclass(frozen=True)
class Choice:
    """How the user's own images are to be read where their file leaves it open; None: as the file says."""

    image: str | None = None
    """The column of a Parquet file, or the array of a NumPy archive, that holds the images."""
    label: str | None = None
    """The one that holds the labels; "" for none."""
    bits: int | None = None
    """The depth of images that are stored in 16 bits."""


PLAIN = Choice()


def parse(kind: str, text: str, known: tuple[str, ...]) -> tuple[Path, Choice]:
    """Return the whole path, with ~ expanded, and the choice of `PATH?image=a&label=b&bits=12`.

    A file whose own name has such an end is taken as it is.

    Args:
        kind: of the images, for messages: folder, parquet, npz.
        text: what follows the kind's colon.
        known: the fields of `Choice` that this kind has.

    Raises:
        UserError: an unknown or repeated word, a depth that is none of BITS, or ~NAME of an unknown user.
    """
    try:
        whole = Path(text).expanduser().absolute()
        found = re.fullmatch(r"(.+?)\?(\w+=[^?]*)", text, re.DOTALL)
        if not found or os.path.lexists(whole):  # not Path.exists, which raises for some names
            return whole, PLAIN
        path = Path(found[1]).expanduser().absolute()
    except RuntimeError as error:
        raise UserError(f"cannot read '{kind}:{text}': {error}") from None
    given: dict[str, str] = {}
    for part in found[2].split("&"):
        name, _, value = part.partition("=")
        if name not in known:
            raise UserError(f"{kind}:{text} asks for {name!r}; {close_matches(name, known)}")
        if name in given:
            raise UserError(f"{kind}:{text} says {name} twice")
        given[name] = value
    bits = given.get("bits")
    if bits is not None and bits not in map(str, BITS):
        raise UserError(f"{kind}:{text}: bits = {bits!r} must be a whole number from {BITS[0]} to {BITS[-1]}")
    return path, Choice(given.get("image") or None, given.get("label"), int(bits) if bits else None)
