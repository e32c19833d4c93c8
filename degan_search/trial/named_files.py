"""Files that a run names but does not hold, known by a hash: a teacher's file, networks' code, images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import cast

from degan_search.data import folders, proxies, shards
from degan_search.data.sets import SETS, parquet_of, user_set
from degan_search.data.synthetic import SPLITS
from degan_search.settings.paths import whole
from degan_search.settings.trial import TeacherConfig, TrialConfig
from degan_search.storage.about import about_run
from degan_search.system import untrusted
from degan_search.system.errors import UserError

CODE = ".py"
FILES = "files"
"""Where `run.json` has the hashes."""


def fingerprints(configs: Iterable[TrialConfig], data_dir: Path | None = None) -> dict[str, str]:
    """Return a hash of the content of each file or folder that trials name, by its name.

    Of a set in `data_dir` that is `cifar10/train`, wherever that folder is; only Parquet is looked at.

    Raises:
        UserError: one cannot be read.
    """
    made = list(configs)
    sets = [name for config in made for name in sets_of(config)]
    networks = [name for config in made for name in (config.teacher.network, config.student.network)]
    return _hashes([*(config.teacher.path for config in made), *map(_code, networks)], sets, data_dir)


def sets_of(config: TrialConfig) -> list[str]:
    """Return the names of the images that a trial's settings name."""
    return [*teachers_sets(config.teacher), config.proxy, *config.bank.proxies, *config.bank.judges]


def teachers_sets(teacher: TeacherConfig) -> list[str]:
    """Return the names of the images that a teacher's settings name."""
    return [name for name in (teacher.dataset, teacher.check) if name is not None]


def differences(known: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names that have another hash now."""
    return [name for name, digest in now.items() if known.get(name, digest) != digest]


def shown(names: Iterable[str], data_dir: Path | None) -> str:
    """Return what messages call files, by the names of their hashes: with their place."""

    def one(name: str) -> str:
        base, _, split = name.rpartition("/")
        path = next((parquet_of(base, known, data_dir) for known in SPLITS if base in SETS and known == split), None)
        return str(path.absolute()) if path else name

    return ", ".join(map(one, names))


def recorded(run: Path) -> dict[str, str]:
    """Return the hashes that a run was begun with; none for a run of an older version."""
    files = about_run(run).get(FILES)
    return (
        {name: digest for name, digest in files.items() if isinstance(digest, str)} if isinstance(files, dict) else {}
    )


def check(run: Path, teachers: Iterable[str | None], sets: Iterable[str], data_dir: Path | None) -> None:
    """Refuse files that are not those that a run was begun with.

    Args:
        run: the run's folder.
        teachers: values of `teacher.path`; None for a teacher that is trained.
        sets: names of images.
        data_dir: folder of the image sets.

    Raises:
        UserError: names what has changed, or cannot be read.
    """
    known = recorded(run)
    code = [name for name in known if name.endswith(CODE)]
    if known and (changed := differences(known, _hashes([*teachers, *code], sets, data_dir, known))):
        raise UserError(
            f"{shown(changed, data_dir)}: the content is not what {run} was begun with; put it back, or begin a new run"
        )


def _code(network: str) -> str | None:
    """Return the file of a network of the user's own code, FILE.py:FUNCTION."""
    file, colon, _ = network.rpartition(f"{CODE}:")
    return f"{file}{CODE}" if colon else None


def _hashes(
    teachers: Iterable[str | None],
    sets: Iterable[str],
    data_dir: Path | None,
    only: Mapping[str, str] | None = None,
) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in dict.fromkeys(teachers):
        if path is not None and (only is None or path in only):
            what = f"network {path!r}" if path.endswith(CODE) else f"teacher.path {whole(path)!r}"
            found[path] = _digest([("", Path(whole(path)))], what)
    for base in dict.fromkeys(base for name in sets for base in proxies.bases(name)):
        if user_set(base):
            if only is None or base in only:
                found[base] = _digest(_parts(base), base)
            continue
        for split in SPLITS:
            place, name = parquet_of(base, split, data_dir), f"{base}/{split}"
            if place and (only is None or name in only):
                found[name] = _digest(((file.name, file) for file in shards.shards(place)), name)
    return found


def _parts(base: str) -> Iterator[tuple[str, Path]]:
    """Yield each file of a user's own set, with its name in the set."""
    own = user_set(base)
    assert own is not None, "it is a user's own"
    path = own.path
    if base.startswith("folder:"):
        files = folders.find(path).files
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    elif base.startswith("parquet:") and not path.exists():  # shards, by the beginning of their names
        files, path = shards.shards(path), path.parent
    else:  # the split of an archive may follow its name, as in npz:FILE/train
        path = next((place for place in (path, *path.parents) if place.is_file()), path)
        files = [path]
    for file in files:
        yield file.relative_to(path).as_posix(), file


def _digest(files: Iterable[tuple[str, Path]], what: str) -> str:
    total = hashlib.sha256()
    for name, path in files:
        with untrusted.open_file(path, what if name in ("", ".") else str(path), untrusted.SET_BYTES) as file:
            total.update(
                f"{name}\0{hashlib.file_digest(cast(BufferedReader, file), 'sha256').hexdigest()}\n".encode(
                    errors="surrogateescape"
                )
            )
    return total.hexdigest()
