"""Reads a folder of images: which of its files are images, which class each has, and what is passed over."""

import json
import os
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from degan_search.data.choice import PLAIN, Choice
from degan_search.data.files import FORMATS, check_count, decode, most_images, reading
from degan_search.data.images import ImageSet
from degan_search.data.wanted import EVERYTHING, Wanted
from degan_search.data.write import ABOUT, folder_names
from degan_search.system import untrusted
from degan_search.system.errors import NoticeWarning, UserError

SUFFIXES = {".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
SUFFIXES |= {".pbm", ".pgm", ".pnm", ".ppm"}
"""Names that say "image": such a file is read, or it is an error. Other files are looked into."""
RAW = {".3fr", ".arw", ".cr2", ".dng", ".erf", ".kdc", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".sr2", ".srw"}
"""Cameras' raw files begin like TIFF, which would give their thumbnails."""
SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information", "@eadir"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
DOUBTFUL = (b"BM", b"P", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes that other files have as well: Pillow looks further."""
READABLE = ", ".join(FORMATS)
NAMED = 5  # files and folders that a message lists
ABOUT_BYTES = 2**20
_EXPECTED = "expected images, or one subfolder of images for each class"


@dataclass
class _Place:
    """What one folder holds."""

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    """Files that are no images."""


@dataclass(frozen=True)
class Found:
    """The images of a folder in sorted order; of class folders, each image's class, and all classes' names."""

    files: list[Path]
    labels: list[int] | None
    classes: tuple[str, ...]


def find(folder: Path) -> Found:
    """The image files of a folder: its own, or those of its subfolders (classes), in them or in one folder further.

    Files are taken by their content, whatever their name. What is passed over is said in a NoticeWarning, but for files
    of operating systems. Class folders that `generate` wrote have the names and numbers that it gave them.

    Raises:
        UserError: no folder, no or too many images, a class without images that can be read, a link that leads
            outside or nowhere, or a pipe or device.
    """
    if not os.path.isdir(folder):  # noqa: PTH112  (also False for a name that no file system allows)
        raise UserError(f"{folder} is not a folder; {_EXPECTED}")
    with reading(folder, "a folder of images"):
        root = folder.resolve()
        own = _look(folder, root)
        inner = {place: _look(place, root) for place in sorted(own.folders)}
        passed = list(own.others)
        if not own.images:
            by_class, numbers, classes = _classes(folder, root, inner, passed)
        elif any(inside.images for inside in inner.values()):
            raise UserError(f"{folder} has images both of its own and in subfolders; {_EXPECTED}")
        else:
            by_class, numbers, classes = {folder: own.images}, None, ()
            passed += inner
        check_count(folder, sum(map(len, by_class.values())))
        files = sorted(path for images in by_class.values() for path in images)
        _check_files(folder, root, files)
    if passed:
        _tell(folder, passed)
    depth = len(folder.parts)
    labels = None if numbers is None else [numbers[path.parts[depth]] for path in files]
    return Found(files, labels, classes)


def read_folder(folder: Path, choice: Choice = PLAIN, wanted: Wanted = EVERYTHING) -> ImageSet:
    """A user's folder as RGB, 32x32 or of the wanted size, labelled by subfolder in sorted order, or unlabelled.

    Images that are not wanted are not decoded.

    Raises:
        UserError: as `find` and `Wanted.pick`, a broken image, or images of an unknown depth.
    """
    found = find(folder)
    labels = None if found.labels is None else np.array(found.labels, np.int64)
    rows, labels, classes = wanted.pick(folder, len(found.files), labels, found.classes, size=wanted.decoded)
    sources = ((str(found.files[row]), found.files[row]) for row in rows)
    images = decode(sources, len(rows), wanted.decoded, wanted.fit, folder, choice.bits)
    return ImageSet(str(folder), images, labels, classes)


def count(folder: Path, choice: Choice = PLAIN) -> int:
    """The number of images in a folder, none of which is decoded; raises as `find`."""
    return len(find(folder).files)


def _classes(
    folder: Path, root: Path, inner: dict[Path, _Place], passed: list[Path]
) -> tuple[dict[Path, list[Path]], dict[str, int], tuple[str, ...]]:
    """Return the images of each class folder, the folders' numbers, and the classes' names; adds to `passed`."""
    by_class: dict[Path, list[Path]] = {}
    further: set[str] = set()
    for place, inside in inner.items():
        by_class[place] = inside.images
        passed += inside.others
        if inside.images:
            passed += inside.folders
        elif below := _below(place, inside, root):
            by_class[place] = below[1].images
            passed += below[1].others
            further.add(below[0])
    if not any(by_class.values()) or len(further) > 1:
        where = f"images in subfolders of several names ({', '.join(sorted(further)[:NAMED])})"
        raise UserError(f"{folder} has {where if further else f'no images ({READABLE})'}; {_EXPECTED}")
    written = _written(folder)
    numbers = {name: label for label, name in enumerate(folder_names(written))}
    if written and {place.name for place in by_class} <= numbers.keys():
        return by_class, numbers, written
    for place, images in by_class.items():
        if not images and (rest := inner[place].others + inner[place].folders):
            raise UserError(
                f"class {place.name!r} of {folder} has no image that can be read, only {_listed(place, rest)}: "
                f"give it images ({READABLE}), or move it away"
            )
    passed += (place for place, images in by_class.items() if not images)
    names = sorted(place.name for place, images in by_class.items() if images)
    return by_class, {name: label for label, name in enumerate(names)}, tuple(names)


def _below(place: Path, inside: _Place, root: Path) -> tuple[str, _Place] | None:
    """Return the one folder of a class folder that holds its images, as in class/images/0.jpeg; None if none does."""
    found = {path: look for path in inside.folders if (look := _look(path, root)).images}
    if len(found) > 1:
        raise UserError(
            f"{place} has no images of its own, but {_listed(place, list(found))} in it have: "
            f"name the folder whose subfolders are the classes, such as folder:{place}"
        )
    return next(((path.name, look) for path, look in found.items()), None)


def _look(place: Path, root: Path) -> _Place:
    """Sort what is in a folder; stops at more images than a set may have."""
    found = _Place()
    most = most_images()
    for path in place.iterdir():
        name = path.name.lower()
        if name in SYSTEM or name.startswith("._") or name == ABOUT:
            continue
        if path.suffix.lower() in SUFFIXES:
            found.images.append(path)
        elif name.startswith("."):
            continue
        elif path.is_dir():
            found.folders.append(path)
        else:
            (found.images if _is_image(path, root) else found.others).append(path)
        if len(found.images) > most:
            check_count(place, len(found.images))
    return found


def _is_image(path: Path, root: Path) -> bool:
    """Return whether a file whose name does not say so is an image; nothing outside the folder is opened."""
    try:
        if path.suffix.lower() in RAW or not path.resolve().is_relative_to(root):
            return False
        with untrusted.open_file(path, str(path), untrusted.IMAGE_BYTES) as file, warnings.catch_warnings():
            start = file.read(12)
            if start.startswith(SIGNATURES) or (start[:4], start[8:]) == (b"RIFF", b"WEBP"):
                return True
            if not start.startswith(DOUBTFUL):
                return False
            warnings.simplefilter("ignore")
            file.seek(0)
            with Image.open(file, formats=FORMATS):
                return True
    except Exception:  # a pipe, a file that may not be read, or no image after all: Pillow raises many kinds
        return False


def _check_files(folder: Path, root: Path, files: list[Path]) -> None:
    inside = {place: place.resolve().is_relative_to(root) for place in {path.parent for path in files}}
    for path in files:
        if stat.S_ISREG(path.lstat().st_mode) and inside[path.parent]:
            continue  # without resolving each of very many
        if not path.is_file():
            raise UserError(f"{path} is a folder, pipe, device or broken link; a plain file is needed")
        if not path.resolve().is_relative_to(root):
            raise UserError(f"{path} is a link to {path.resolve()}, outside {folder}; copy the image instead")


def _written(folder: Path) -> tuple[str, ...]:
    """Return the class names that `generate` left in a folder, those without images among them; else ()."""
    try:
        about = json.loads(untrusted.read(folder / ABOUT, ABOUT, ABOUT_BYTES))
        names = about["classes"]
        text = isinstance(names, list) and all(isinstance(name, str) for name in names)
    except (UserError, ValueError, KeyError, TypeError, RecursionError):  # somebody else's file of this name
        return ()
    return tuple(names) if text and len(set(names)) == len(names) else ()


def _listed(folder: Path, paths: Sequence[Path]) -> str:
    more = f", ... ({len(paths)} in all)" if len(paths) > NAMED else ""
    return ", ".join(str(path.relative_to(folder)) for path in sorted(paths)[:NAMED]) + more


def _tell(folder: Path, passed: list[Path]) -> None:
    warnings.warn(
        f"{folder}: {len(passed)} passed over, as they hold no image that can be read ({READABLE}): "
        f"{_listed(folder, passed)}",
        NoticeWarning,
        stacklevel=3,
    )
