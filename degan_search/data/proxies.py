"""Proxy sets by name: a set, a named subset, classes in brackets (cifar100/[flowers,trees]), or several joined by +."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from degan_search.data import unions
from degan_search.data.files import plain
from degan_search.data.images import Fit, ImageSet, Size
from degan_search.data.sets import (
    CIFAR100_CLASSES,
    SETS,
    SUPERCLASSES,
    USER_SETS,
    find_set,
    load_set,
    train_size,
    user_set,
)
from degan_search.data.synthetic import Split
from degan_search.data.unions import Part
from degan_search.data.wanted import Wanted
from degan_search.system.errors import UserError, close_matches


def _sorted(words: str) -> tuple[str, ...]:
    """The words as class names, in the order of their ids, which is the alphabet's."""
    return tuple(sorted(words.split()))


def _of_superclasses(*names: str) -> tuple[str, ...]:
    """The CIFAR-100 classes of these superclasses."""
    return _sorted(" ".join(SUPERCLASSES[name] for name in names))


_DRAWN, _ORDER = "cifar100/drawn_", "cifar100/order_"
_RELATED_90 = tuple(name for name in CIFAR100_CLASSES if name not in _of_superclasses("vehicles_1", "vehicles_2"))


def _class_order(seed: int) -> list[str]:
    """The classes of CIFAR-100 in the order in which they are learned: iCaRL's shuffle (its seed is 1993)."""
    return [CIFAR100_CLASSES[label] for label in np.random.RandomState(seed).permutation(100)]


# The paper's proxies for CIFAR-10 (Table 2), sorted by class id. The paper does not list the random samples:
# 1..5 are numpy.random.RandomState(k).choice(ids of unrelated_40, 10, replace=False); one survives in its code.
# Not the paper's: drawn_*, three random draws of each size from the 90, to see what makes a proxy related.
SUBSETS: dict[str, tuple[str, ...]] = {
    "cifar100/related_90": _RELATED_90,
    "cifar100/unrelated_40": _of_superclasses(
        "flowers",
        "food_containers",
        "fruit_and_vegetables",
        "household_electrical_devices",
        "household_furniture",
        "trees",
        "large_man_made_outdoor_things",
        "large_natural_outdoor_scenes",
    ),
    "cifar100/background_6": _sorted("cloud forest mountain plain road sea"),
    "cifar100/random_10_sample_1": _sorted(
        "bottle bowl oak_tree orchid palm_tree plate poppy rose skyscraper willow_tree"
    ),
    "cifar100/random_10_sample_2": _sorted("apple bottle cloud house keyboard mountain poppy sea television tulip"),
    "cifar100/random_10_sample_3": _sorted("bridge cloud lamp maple_tree mushroom plate poppy road rose wardrobe"),
    "cifar100/random_10_sample_4": _sorted("bridge chair cup lamp maple_tree orange plate road skyscraper willow_tree"),
    "cifar100/random_10_sample_5": _sorted("bowl bridge can castle orange palm_tree pear pine_tree road willow_tree"),
    "cifar100/random_10_released": _sorted("can couch house maple_tree mountain orange orchid rose telephone wardrobe"),
    **{
        f"{_DRAWN}{size:02}_{letter}": _sorted(
            " ".join(np.random.RandomState(10 * size + draw).choice(_RELATED_90, size, replace=False))
        )
        for size in (1, 2, 3, 5, 8, 12, 20, 30, 45, 65)
        for draw, letter in enumerate("abc")
    },
    # Of each class order, the old classes of the task `incremental`, and the new ones (Table 3 has 20 of each).
    **{
        f"{_ORDER}{seed}_{name}_{size}": _sorted(" ".join(_class_order(seed)[start : start + size]))
        for seed in range(1993, 2003)
        for size in (10, 20)
        for name, start in (("first", 0), ("next", size))
    },
}


def _classes(item: str, base: str, known: tuple[str, ...]) -> list[str]:
    """The classes of a set that one item in brackets means: a class, a CIFAR-100 superclass, or a range like K-Z."""
    same = [name for name in known if item == name] or [name for name in known if plain(item) == plain(name)]
    if same:
        return same
    if base == "cifar100" and plain(item) in SUPERCLASSES:
        return SUPERCLASSES[plain(item)].split()
    if re.fullmatch(".-.", item):
        span = [chr(code) for code in range(ord(item[0]), ord(item[2]) + 1)]
        if span and set(span) <= set(known):
            return span
    names = [*known, *(SUPERCLASSES if base == "cifar100" else ())]
    raise UserError(f"{base} has no class {item!r}; {close_matches(item, names)}")


def _parse(name: str) -> tuple[str, tuple[str, ...] | None]:
    """The set in a proxy's name, and the classes asked for, None for all; a user's own classes go unchecked."""
    if name in SUBSETS:
        return name.rsplit("/", 1)[0], SUBSETS[name]
    bracketed = re.fullmatch(r"(.+)/\[([^\[\]]*)\]", name)
    base, items = (bracketed[1], bracketed[2].split(",")) if bracketed else (name, None)
    own = user_set(base)
    stem, at, _ = base.partition("@")
    if not own and at and (stem in SUBSETS or "[" in stem):
        raise UserError(f"cannot read {name!r}: @SIZE stands right behind the name of a set, as in glyphs@64/[A-J]")
    if not own and stem not in SETS:
        # The many subsets of a kind are not listed unless one of them is meant.
        many = [kind for kind in (_DRAWN, _ORDER) if kind not in base]
        listed = [name for name in (*SETS, *SUBSETS) if not name.startswith(tuple(many))]
        raise UserError(
            f"no image set or subset {base!r}; {close_matches(stem, listed)}; classes can be chosen in "
            f"brackets, and a size, as in glyphs@64/[A-J]; your own images are "
            f"{', '.join(f'{kind}:PATH' for kind in USER_SETS)}"
        )
    if not own:
        find_set(base)  # refuses a wrong size
    if items is None:
        return base, None
    items = [item.strip() for item in items if item.strip()]
    if not items:
        raise UserError(f"{name!r} names no class between its brackets")
    if own:
        return base, tuple(items)
    known = find_set(base).classes
    if not known:
        raise UserError(f"{base} has no classes, so none can be chosen from it, as {name!r} asks")
    return base, tuple(dict.fromkeys(found for item in items for found in _classes(item, base, known)))


def _parts(name: str) -> list[Part]:
    """The sets that a name joins, which is one of most names.

    Raises:
        UserError: as `_parse`, or an image would be there twice: in training images and in those held out from them.
    """
    parts = [Part(one, *_parse(one)) for one in unions.names(name, {*SETS, *SUBSETS})]
    for number, second in enumerate(parts):
        for first in parts[:number]:
            if first.set != second.set:
                continue
            if first.classes is None or second.classes is None:
                raise UserError(f"{name!r} holds images twice: {first.name} and {second.name} are of one set")
            if both := [one for one in first.classes if one in second.classes]:
                raise UserError(
                    f"{name!r} holds images twice: {', '.join(both)} of {first.name} and of {second.name}; "
                    "name each class once"
                )
    return parts


def load(
    name: str,
    split: Split = "train",
    data_dir: Path | None = None,
    count: int | None = None,
    seed: int = 0,
    size: Size | None = None,
    fit: Fit = "crop",
    channels: int | None = None,
) -> ImageSet:
    """One split of the images that a name stands for; with `count`, that many of them, balanced by class.

    Of a user's folder or Parquet file only the images that are asked for are decoded, straight to the size. A union
    has the images of one part after those of another, with `count` as evenly as may be, and neither labels nor classes.

    Args:
        name: a set ("cifar10", "noise/uniform", "folder:PATH", "photos@96"), a key of SUBSETS, classes of a set
            ("cifar100/[flowers,trees]", "glyphs/[0-9,A]", "glyphs@64/[A-J]"), or a union ("glyphs/[K-Z]+photos").
        split: "train" or "test".
        data_dir: where downloaded sets lie; None means the environment variable DATA_DIR, else ./data.
        count: number of images, drawn without replacement; None for all.
        seed: of that draw.
        size: height and width of the images, 8 to 512 each; None: the set's own (a union's first part's), 32x32 for a
            user's folder or Parquet.
        fit: for images of another shape: "crop" keeps their aspect ratio and takes the middle, "stretch" takes all.
        channels: 1 or 3, as a network takes them (`to_input`); None: as they are (as a union's first part has them).

    Raises:
        UserError: unknown names, fewer images than count, files that are missing or cannot be read, another size or
            fit, more images than memory holds, or one twice in a union.
    """
    parts = _parts(name)
    wanted = Wanted(parts[0].classes, count, seed, size, fit, channels, name)
    if len(parts) == 1:
        return load_set(parts[0].base, split, data_dir, wanted)
    return unions.load(parts, split, data_dir, wanted)


def check(name: str) -> None:
    """Raise UserError if no images can have this name; nothing is decoded (a user's own files are looked at)."""
    for base in own_bases(name):
        train_size(base)


def joined(name: str) -> list[str]:
    """The names that a union joins, in its order; of any other name itself."""
    return [part.name for part in _parts(name)]


def own_bases(name: str) -> list[str]:
    """The user's own sets that a name means, without classes in brackets; those of this project are left out."""
    return [base for base in bases(name) if user_set(base)]


def bases(name: str) -> list[str]:
    """The whole sets that a name means, one for each that it joins, without classes in brackets."""
    return [part.base for part in _parts(name)]


def share(name: str) -> float:
    """The share of its set that a proxy is, by number of classes; 1 for a user's own, whose classes go unread.

    A union's is that of its images in all images of its sets.
    """
    parts = _parts(name)
    shares = [
        1.0 if part.classes is None or user_set(part.base) else len(part.classes) / len(find_set(part.base).classes)
        for part in parts
    ]
    if len(parts) == 1:
        return shares[0]
    used = sum(each * train_size(part.base) for each, part in zip(shares, parts, strict=True))
    return used / parent_size(name)


def has_test(name: str) -> bool:
    """Whether there is a test split: not of a user's own images."""
    return not own_bases(name)


def parent_size(name: str, data_dir: Path | None = None) -> int:
    """Training images of the whole sets before class filtering, which the paper's batch of 2,048 is counted in."""
    wholes = {part.set: part.base for part in _parts(name)}
    return sum(train_size(base, data_dir) for base in wholes.values())


def size(name: str, data_dir: Path | None = None) -> int | None:
    """Training images that a name stands for, without decoding any; None: of some classes it is not known."""
    sizes = [part.size(data_dir) for part in _parts(name)]
    known = [each for each in sizes if each is not None]
    return sum(known) if len(known) == len(sizes) else None


def classes_of(name: str) -> tuple[str, ...] | None:
    """The classes that a name stands for, () of unlabelled sets and unions; None: a user's own, which go unread."""
    parts = _parts(name)
    if len(parts) > 1:
        return ()
    base, classes = parts[0][1:]
    if user_set(base):
        return None
    return find_set(base).classes if classes is None else classes


def of_classes(name: str, classes: Sequence[str]) -> str:
    """The name of these classes of the set that a name is of, as in cifar100/[apple,bear] from cifar100/related_90."""
    return f"{_parse(name)[0]}/[{','.join(classes)}]"
