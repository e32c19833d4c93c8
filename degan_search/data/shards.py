"""Which Parquet files a path stands for: one file, a folder of shards, or the shards of one split."""

from __future__ import annotations

import os
import re
from pathlib import Path

from degan_search.system.errors import UserError

SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{1,9})-of-(?P<of>\d{1,9})")
SPLIT = re.compile(r"(train|test|val|valid|validation|dev|eval)(?=[-_.]|\d|$)")
"""The beginning of a file's name that says that it is one part of several which should not be mixed."""
MOST = 100_000  # files


def shards(path: Path) -> list[Path]:
    """The files of `parquet:PATH` in sorted order: PATH, or all files of a folder, or those called PATH-*.parquet.

    Raises:
        UserError: a folder without such files, with several splits, with a shard missing, or with a link that leads
            outside. Whether a single file is there shows when it is opened.
    """
    if path.is_dir():
        files = _files(path)
        splits = sorted({_split(file) for file in files})
        if not files:
            below = sorted(inner.name for inner in path.iterdir() if inner.is_dir() and _files(inner))
            hint = f"; there are some in {', '.join(below)}: name one of these folders" if below else ""
            raise UserError(f"{path} is a folder without .parquet files{hint}")
        if len(splits) > 1:
            names = " or ".join(f"parquet:{path}/{split}" for split in splits if split)
            raise UserError(f"{path} holds files of several splits; write {names}, or name one file")
    elif not os.path.lexists(path) and path.parent.is_dir():
        files = [file for file in _files(path.parent) if path.name in (_split(file), _name(file))]
        if not files:
            return [path]
    else:
        return [path]
    _check(files)
    return files


def find_split(folder: Path, split: str) -> Path | None:
    """Where a split of a public set lies: SPLIT.parquet, or shards in the folder or in one inside; None if nowhere.

    Raises:
        UserError: several inner folders have it.
    """
    if (folder / f"{split}.parquet").is_file():
        return folder / f"{split}.parquet"
    if not folder.is_dir():
        return None
    inner = (place for place in sorted(folder.iterdir()) if place.is_dir() and not place.name.startswith("."))
    found = [place for place in (folder, *inner) if any(_name(file) == split for file in _files(place))]
    if len(found) > 1:
        there = ", ".join(str(place) for place in found)
        raise UserError(f"{split} is in several folders ({there}); keep one of them")
    return found[0] / split if found else None


def _files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))
    if len(files) > MOST:
        raise UserError(f"{folder} has {len(files):,} .parquet files; at most {MOST:,} are read")
    return files


def _name(file: Path) -> str:
    """The name that shards have in common, or ""."""
    found = SHARD.fullmatch(file.stem)
    return found["name"] if found else ""


def _split(file: Path) -> str:
    """The split that a file's name begins with, or ""."""
    found = SPLIT.match(file.stem)
    return found[0] if found else ""


def _check(files: list[Path]) -> None:
    """Refuse shards of which one is missing, and links that lead outside."""
    there: dict[tuple[str, int], set[int]] = {}
    root = files[0].parent.resolve()
    for file in files:
        if not file.resolve().is_relative_to(root):
            raise UserError(f"{file} is a link to {file.resolve()}, outside {root}; copy the file, or name it alone")
        if found := SHARD.fullmatch(file.stem):
            there.setdefault((found["name"], int(found["of"])), set()).add(int(found["number"]))
    for (name, of), numbers in there.items():
        missing = next((number for number in range(of) if number not in numbers), None)
        if missing is not None:
            raise UserError(f"{files[0].parent} has {len(numbers)} of {of} shards of {name!r}: {missing:05} is missing")
