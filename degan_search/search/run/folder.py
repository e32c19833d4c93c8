"""A run's folder: its lock, the space and options that it was begun with, and files in it that are broken."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from degan_search import ledger
from degan_search.search.run.jobs import JOBS
from degan_search.search.run.options import Options
from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from degan_search.settings import paths
from degan_search.settings.resolve import flatten
from degan_search.storage import layout
from degan_search.storage.about import about_run
from degan_search.storage.layout import ABOUT, CACHE, CLASSES, SPACE
from degan_search.system import provenance
from degan_search.system.errors import UserError, command
from degan_search.system.whole_files import write_bytes
from degan_search.trial import named_files

LOCK = ".lock"
WRITER = ".writer.json"


@contextlib.contextmanager
def writer(folder: Path) -> Iterator[None]:
    """Be the only process that writes into a run's folder, which is made if it is missing.

    The lock belongs to the operating system, which releases it when the process ends, however that happens.

    Raises:
        UserError: another process has the lock; says which, and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / WRITER
    try:
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        try:
            who = json.loads(note.read_text(encoding="utf-8"))
            about = f"process {who['pid']} on {who['host']} since {who['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            about = "another process"
        raise UserError(f"{folder} is being written by {about}: wait for it, or stop it first") from None
    try:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_bytes(note, json.dumps({"host": platform.node(), "pid": os.getpid(), "since": now}).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
        lock.release()


def check_name(options: Options) -> None:
    """Refuse a name that is not a plain folder name.

    Raises:
        UserError: it is not.
    """
    if Path(options.name).name != options.name or options.name in ("", ".", "..", CACHE):
        raise UserError(f"--name {options.name!r} must be a plain folder name other than {CACHE!r}")


def check_new(folder: Path) -> None:
    """Refuse a folder that has files in it already.

    Raises:
        UserError: says what to do.
    """
    if folder.exists() and (not folder.is_dir() or any(not file.name.startswith(".") for file in folder.iterdir())):
        hint = f"`{command('resume', folder)}` goes on with it; or " if (folder / ABOUT).is_file() else ""
        raise UserError(f"{folder} is already there; {hint}choose another --name, or move it away")


def check_writable(folder: Path, what: str) -> None:
    """Make the folder if it is missing, and write a file in it; `what` names the folder in the message.

    Raises:
        UserError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{what} cannot be written: {error.strerror or error}") from None


def start(space: schema.Space, options: Options, files: Mapping[str, str] | None = None) -> None:
    """Write what a run begins or goes on with: `space.yaml`, and `run.json` with options, versions, hashes of files."""
    (options.folder / layout.LEDGER).mkdir(exist_ok=True)
    write_bytes(options.folder / SPACE, space_file.dump(space).encode())
    begun = provenance.provenance() | {"options": options.saved(), "space": plain(space)}
    begun[named_files.FILES] = dict(files or {})
    begun[CLASSES] = _about(options.folder).get(CLASSES, {})  # of a run that goes on
    write_bytes(options.folder / ABOUT, json.dumps(begun, indent=1).encode())


def add_class_names(folder: Path, names: Mapping[str, Sequence[str]]) -> None:
    """Add the names of teachers' classes, by the teacher's hash, to `run.json`, if the run has one.

    So whoever reads the run knows them without the teacher or any image.
    """
    if known := _about(folder):
        known[CLASSES] |= {teacher: list(own) for teacher, own in names.items()}
        write_bytes(folder / ABOUT, json.dumps(known, indent=1).encode())


def _about(folder: Path) -> dict[str, Any]:
    """Return what `run.json` says; nothing where there is none, or a broken one."""
    if not (found := about_run(folder)):
        return {}
    return found | {CLASSES: found[CLASSES] if isinstance(found.get(CLASSES), dict) else {}}


def remove_if_empty(folder: Path) -> None:
    """Remove a run in which no trial began, so that its name is free again."""
    begun = [file for part in (JOBS, layout.LEDGER) for file in (folder / part).glob("*")]
    if not begun:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Begun:
    """What a run was begun with."""

    space: schema.Space
    options: dict[str, Any]
    versions: dict[str, Any]
    changed: list[str]
    """Settings in which the space differs from that, for people."""


def begun(folder: Path, file: str | None = None) -> Begun:
    """Read what a run was begun with; `file`: a space to go on with, by default the run's own `space.yaml`.

    `space` is the file's; `changed` compares it with the space in `run.json`, if one is there.

    Raises:
        UserError: there is no run, or its files are broken.
    """
    if not (folder / layout.LEDGER).is_dir():
        raise UserError(f"{folder} is no run that could go on: it has no folder {layout.LEDGER!r}")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if not isinstance(about, dict) or not isinstance(about.get("options") or {}, dict):
            raise ValueError("it holds no settings")
    except FileNotFoundError:
        about = {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder / ABOUT} is broken, move it away to go on with default options: {error}") from None
    space = space_file.load(file or str(folder / SPACE), own=file is not None)
    before = space_file.parsed(about["space"], f"space in {folder / ABOUT}") if "space" in about else space
    if file and differences(before, space):
        space = with_whole_paths(space)
    versions = {name: about.get(name) for name in ("versions", "git_commit")}
    return Begun(space, about.get("options") or {}, versions, differences(before, space))


def differences(before: schema.Space, after: schema.Space) -> list[str]:
    """Return each setting in which two spaces differ, such as `search.trials: 16 before, 24 now`; not descriptions."""
    old, new = (dict(flatten(plain(space) | {"description": ""})) for space in (before, after))
    names = [name for name in (old | new) if old.get(name, ...) != new.get(name, ...)]
    return [f"{name}: {_shown(old, name)} before, {_shown(new, name)} now" for name in names]


def set_aside_broken(folder: Path) -> list[Path]:
    """Rename files of a run's ledger that cannot be read, so that readers skip them; return them.

    A trial whose row is set aside runs again, as its job is known. Accuracies are measured again if networks are there.
    """
    broken = []
    for file in ledger.broken(folder):
        aside = file.with_name(f"{file.name}.broken")
        file.replace(aside)
        broken.append(aside)
    return broken


def plain(space: schema.Space) -> dict[str, Any]:
    """Return a space as `run.json` has it."""
    values: dict[str, Any] = space.model_dump(mode="json", by_alias=True)
    return values


def with_whole_paths(space: schema.Space) -> schema.Space:
    """Return a space whose paths mean the same wherever a later command is called."""
    return space_file.parsed(paths.with_whole_paths(plain(space)), "space")


def _shown(values: dict[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "nothing"
