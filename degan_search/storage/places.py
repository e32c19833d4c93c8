"""A place of files, a local folder or a store, which are read and written in the same way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from degan_search.storage import filesystems
from degan_search.system.errors import UserError, close_matches
from degan_search.system.whole_files import HIDDEN, remove_torn, write_bytes

if TYPE_CHECKING:
    import pyarrow.fs as pafs

PATIENCE = 300.0
"""Seconds for which a store that does not answer is tried again."""
FIRST_WAIT, LONGEST_WAIT = 0.25, 10.0
"""Seconds between two tries at most, at the beginning and at the end."""
SCHEMES = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss", "file")
"""Kinds of stores that an address may begin with; also `fsspec+NAME`, of a file system that fsspec knows."""
S3_OPTIONS = ("endpoint_override", "scheme", "region", "tls_ca_file_path")
"""What may follow the `?` in an s3:// address."""
_jitter = random.SystemRandom()
_log = logging.getLogger(__name__)
T = TypeVar("T")
Stamp = tuple[int, int]
"""Size in bytes and time of the last change: of a file here in nanoseconds, in a store in whole seconds."""


class Place(Protocol):
    """A folder, here or in a store; names in it are relative, with '/' between their parts. Cheap to pickle.

    Each method raises UserError for a name that is absolute or has an empty part, `.`, `..` or unseen characters.
    """

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it: it is whole or not there. Raises OSError: the disk or the store refused."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError: there is none."""

    def names(self, under: str = "") -> dict[str, int]:
        """Return the size in bytes of every file, or of those under a folder, by name; none if there is no folder.

        Names are relative to this place whatever `under` is. Those with a part that begins with a dot are left out.
        """

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""

    def remove_torn(self) -> None:
        """Delete what a killed process was writing; nobody may write here meanwhile."""

    def at(self, name: str) -> Place:
        """Return the place of a folder in this one."""


@dataclass(frozen=True)
class LocalPlace:
    """A folder on this machine, or on a network disk; it is made with the first file."""

    folder: Path

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file atomically and durably."""
        write_bytes(self.folder / checked(name), data)

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError: there is none."""
        try:
            return (self.folder / checked(name)).read_bytes()
        except (IsADirectoryError, NotADirectoryError) as error:  # in a store these are no files either
            raise FileNotFoundError(error.errno, "No such file", name) from None

    def names(self, under: str = "") -> dict[str, int]:
        """Return the size in bytes of every file by name."""
        return {name: size for name, (size, _) in self.stamps(under).items()}

    def stamps(self, under: str = "") -> dict[str, Stamp]:
        """Return size and time of the last change of every file by name."""
        top = self.folder / checked(under) if under else self.folder
        files = [top] if top.is_file() else (Path(at) / name for at, _, names in os.walk(top) for name in names)
        found = {}
        for file in files:
            name = file.relative_to(self.folder).as_posix()
            if _listed(name) and (stamp := stamp_of(file)):
                found[name] = stamp
        return found

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        with contextlib.suppress(NotADirectoryError):
            (self.folder / checked(name)).unlink(missing_ok=True)

    def remove_torn(self) -> None:
        """Delete what a killed process was writing."""
        remove_torn(self.folder)

    def at(self, name: str) -> LocalPlace:
        """Return the place of a folder in this one."""
        return LocalPlace(self.folder / checked(name))


@dataclass(frozen=True)
class RemotePlace:
    """A folder in a store. It connects with its first use, in whatever process that is.

    Each operation is tried again while the store does not answer, is overloaded or has a fault of its own.

    Raises (each operation):
        OSError: that went on for `patience` seconds.
        UserError: trying again does not help, as with wrong credentials or no such bucket; says what to set.
    """

    uri: str = field(repr=False)  # it may hold credentials
    """Such as `s3://bucket/runs/x?endpoint_override=127.0.0.1:9000&scheme=http`."""
    patience: float = PATIENCE

    @property
    def address(self) -> str:
        """The address for messages: without credentials and options."""
        return _shown(self.uri)

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file; in an object store by one request."""
        self._do("write", name, lambda files, path: filesystems.write(files, path, data))

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError: there is none."""
        return self._do("read", name, filesystems.read)

    def names(self, under: str = "") -> dict[str, int]:
        """Return the size in bytes of every file by name."""
        return {name: size for name, (size, _) in self.stamps(under).items()}

    def stamps(self, under: str = "") -> dict[str, Stamp]:
        """Return size and time of the last change of every file by name.

        Names that would lie outside a folder here are left out: a store may hold any.
        """
        found = self._do("list", under, filesystems.stamps)
        if under:
            found = {f"{under}/{name}" if name else under: stamp for name, stamp in found.items()}
        return {name: stamp for name, stamp in found.items() if _listed(name)}

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._do("delete", name, lambda files, path: files.delete_file(path))

    def remove_torn(self) -> None:
        """Delete what a killed process was writing; an object store keeps nothing of it."""
        for name in self._do("list", "", filesystems.stamps):
            if name.rpartition("/")[2].startswith(HIDDEN):
                self.delete(name)

    def at(self, name: str) -> RemotePlace:
        """Return the place of a folder in this one."""
        base, mark, options = self.uri.partition("?")
        return RemotePlace(f"{base.rstrip('/')}/{quote(checked(name))}{mark}{options}", self.patience)

    def _do(self, what: str, name: str, act: Callable[[pafs.FileSystem, str], T]) -> T:
        """Return what `act` does to a file in the store, tried again where that helps."""
        import pyarrow as pa

        inside = f"/{checked(name)}" if name or what != "list" else ""
        where = f"{self.address.rstrip('/')}{inside}"
        begun, wait = time.monotonic(), FIRST_WAIT
        while True:
            try:
                files, path = filesystems.connect(self.uri)
                return act(files, path + inside)
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as error:
                fault = filesystems.reason(error, where)
            waited = time.monotonic() - begun
            if waited + wait > self.patience:
                raise OSError(f"cannot {what} {where}: {fault}; tried for {waited:.0f} s") from None
            if wait == FIRST_WAIT:
                _log.warning("cannot %s %s: %s; trying for %.0f s", what, where, fault, self.patience)
            time.sleep(wait * _jitter.uniform(0.5, 1))  # not all workers at the same moment
            wait = min(2 * wait, LONGEST_WAIT)


def place(storage: str) -> Place:
    """Return the place with a folder's name or a store's address, such as `runs`, `file:///x` or `s3://bucket/runs`.

    Raises:
        UserError: an unknown kind of store, no bucket, or an unknown option.
    """
    scheme, mark, _ = storage.partition("://")
    if not mark:
        scheme, mark, _ = storage.partition(":/")
        if mark and scheme in SCHEMES:
            raise UserError(f"storage {storage!r}: an address has two slashes, as in {scheme}://bucket/runs")
        return LocalPlace(Path(storage))
    shown = repr(_shown(storage))
    if scheme not in SCHEMES and not scheme.startswith("fsspec+"):
        raise UserError(f"storage {shown}: {scheme!r} is no kind of store; {close_matches(scheme, SCHEMES)}")
    parts = urlsplit(storage)
    path = unquote(parts.path).strip("/")
    if scheme == "file" and parts.netloc in ("", "localhost"):
        return LocalPlace(Path(unquote(parts.path)))
    if scheme == "file" or parts.fragment or not (parts.netloc or scheme.startswith("fsspec+")):
        right = "file:///folder" if scheme == "file" else f"{scheme}://bucket/runs"
        raise UserError(f"storage {shown} is no address, as {right} is one ('#' is written %23)")
    if path and (fault := _fault(path)):
        raise UserError(f"storage {shown}: {fault}")
    for option, _ in parse_qsl(parts.query) if scheme == "s3" else ():
        if option not in S3_OPTIONS:
            raise UserError(f"storage {shown}: unknown option {option!r}; {close_matches(option, S3_OPTIONS)}")
    return RemotePlace(storage)


def split_run(address: str) -> tuple[str, str]:
    """Return storage and name of a run's address: `s3://bucket/runs/x?...` is `x` in `s3://bucket/runs?...`.

    Raises:
        UserError: as `place`, or an address without a name.
    """
    place(address)
    base, mark, options = address.partition("?")
    storage, slash, name = base.rstrip("/").rpartition("/")
    if not slash or storage.endswith(("/", ":")):
        raise UserError(f"{address!r} names no run, as s3://bucket/runs/x does")
    return storage + mark + options, unquote(name)


def working_copy(storage: str) -> Path:
    """Return the folder here that is the working copy of a storage in a store: the same one for the same address.

    It lies in `$XDG_CACHE_HOME` or `~/.cache`. Credentials and slashes at the end do not count; AWS_ENDPOINT_URL does.

    Raises:
        UserError: as `place`, or a folder's name.
    """
    found = place(storage)
    if not isinstance(found, RemotePlace):
        raise UserError(f"{storage!r} is a folder and needs no working copy")
    address = found.address.rstrip("/")
    query = urlsplit(storage).query
    options = filesystems.s3_options(query) if address.startswith("s3:") else dict(parse_qsl(query))
    key = hashlib.sha256(json.dumps([address, sorted(options.items())]).encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", address).strip("-.")[:60]
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "degan_search" / f"{readable}-{key}"


def _shown(uri: str) -> str:
    """Return an address without credentials and options."""
    parts = urlsplit(uri)
    return unquote(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _fault(name: str) -> str | None:
    """Return what is wrong with a name, if anything: it has to stay inside its place and be valid in every store."""
    if set(name.split("/")) & {"", ".", ".."} or "\\" in name or not name.isprintable():
        return f"{name!r} is no name inside a folder: parts without '..', '\\' and unseen characters are needed"
    return None


def checked(name: str) -> str:
    """Return a name that is fit for every place. Raises UserError: it is not."""
    if fault := _fault(name):
        raise UserError(fault)
    return name


def _listed(name: str) -> bool:
    return _fault(name) is None and not any(part.startswith(".") for part in name.split("/"))


def stamp_of(file: Path) -> Stamp | None:
    """Return size and time of the last change in nanoseconds of a file; None if there is none."""
    try:
        about = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return about.st_size, about.st_mtime_ns
