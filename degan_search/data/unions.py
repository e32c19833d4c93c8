"""Names that join several sets, as in glyphs/[K-Z]+photos: their parts, and how many images each part gives."""

import os
import re
import sys
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from degan_search.data.images import CountError, ImageSet
from degan_search.data.sets import USER_SETS, find_set, load_set, train_size, user_set
from degan_search.data.synthetic import Split
from degan_search.data.wanted import Wanted, check_fits

_CLASSES = r"/\[[^\[\]]*\]$"
_OWN = re.compile(rf"(?:{'|'.join(USER_SETS)}):")


class Part(NamedTuple):
    """One of the names that a name joins: itself, its set, and the classes asked for, None for all."""

    name: str
    base: str
    classes: tuple[str, ...] | None

    @property
    def set(self) -> object:
        """What is equal for parts of one set, whatever size it is drawn at, and however its path is written."""
        return user_set(self.base) or self.base.partition("@")[0]

    def size(self, data_dir: Path | None) -> int | None:
        """Training images, without decoding any; None: of some classes it is not known."""
        whole = train_size(self.base, data_dir)
        if self.classes is None:
            return whole
        if user_set(self.base):
            return None
        entry = find_set(self.base)
        return whole * len(self.classes) // len(entry.classes) if entry.even and whole == entry.train_size else None


def names(name: str, known: Container[str]) -> list[str]:
    """The names that are joined by + in a name, in its order; a name that joins none is its only part.

    A + in brackets joins nothing. One behind the path of a user's own images joins if the name of a set follows it, or
    another path, as in "folder:a+folder:b"; but if there is a folder a+photos, "folder:a+photos" is that alone.

    Args:
        name: as above.
        known: names of sets and subsets, without size and classes.
    """
    pieces = re.split(r"\+(?![^\[\]]*\])", name)
    found = []
    while pieces:
        taken = _own_path(pieces, known) if _OWN.match(pieces[0]) else 1
        found.append("+".join(pieces[:taken]))
        del pieces[:taken]
    return found


def _own_path(pieces: Sequence[str], known: Container[str]) -> int:
    """Return how many pieces are the first path: as many as are there, else those up to the first name of a set."""
    most = next((number for number, piece in enumerate(pieces) if number and _OWN.match(piece)), len(pieces))
    ends = [end for end in range(1, most) if re.split(r"@|/\[", pieces[end], maxsplit=1)[0] in known] + [most]
    return max((end for end in ends if _is_there("+".join(pieces[:end]))), default=ends[0])


def _is_there(own: str) -> bool:
    path = re.sub(_CLASSES, "", own.partition(":")[2])
    try:
        return os.path.lexists(Path(path).expanduser())  # not Path.exists, which raises for some names
    except RuntimeError:  # ~NAME of an unknown user
        return False


def shares(name: str, count: int, totals: Sequence[int]) -> list[int]:
    """How many of `count` images each part gives, of which there are so many: as even as may be.

    A part that has too few gives all, and the others the more. What is left over the first parts give.

    Raises:
        CountError: count is below 1 or above the sum.
    """
    if not 1 <= count <= sum(totals):
        raise CountError(f"{name} has {sum(totals)} images; count must be 1 to that, not {count}", sum(totals))
    given, left = [0] * len(totals), count
    while left:
        able = [part for part, total in enumerate(totals) if given[part] < total]
        each = left // len(able)
        for part in able if each else able[:left]:
            more = min(each or 1, totals[part] - given[part])
            given[part] += more
            left -= more
    return given


def load(parts: Sequence[Part], split: Split, data_dir: Path | None, wanted: Wanted) -> ImageSet:
    """One split of the images of several sets, those of one after those of another, without labels and classes.

    Args:
        parts: the sets; all are brought to the shape of the first's images, where `wanted` has none.
        split: "train" or "test".
        data_dir: as `load_set`.
        wanted: of all together; its classes are not looked at.

    Raises:
        UserError: as `load_set`, of any of them or of all together.
    """
    totals = [_total(part, split, data_dir) for part in parts]
    given = totals if wanted.count is None else shares(wanted.name, wanted.count, totals)
    if wanted.size and wanted.channels:
        check_fits(wanted.name, sum(given), (wanted.channels, *wanted.size))
    images: list[np.ndarray] = []
    for part, some in zip(parts, given, strict=True):
        if some:
            count = None if wanted.count is None else some
            own = replace(wanted, classes=part.classes, count=count, name=part.name)
            images.append(load_set(part.base, split, data_dir, own).images)
            channels, height, width = images[0].shape[1:]
            wanted = replace(wanted, size=(height, width), channels=channels)
            check_fits(wanted.name, sum(given), (channels, height, width))
    return ImageSet(wanted.name, np.concatenate(images), None, ())


def _total(part: Part, split: Split, data_dir: Path | None) -> int:
    """The images that a part has; where its set does not tell, its labels are read, and no image is decoded."""
    if split == "train" and (known := part.size(data_dir)) is not None:
        return known
    try:
        return len(load_set(part.base, split, data_dir, Wanted(part.classes, sys.maxsize, name=part.name)))
    except CountError as error:
        return error.images
