"""Limits on files from untrusted sources, and checks that are made before they are read."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from encodings.aliases import aliases
from pathlib import Path
from typing import IO

from degan_search.system.errors import UserError

MODEL_BYTES = 4 * 2**30
"""Most bytes of a file of weights, and of what it unpacks to."""
SET_BYTES = 8 * 2**30
"""Most bytes of an image set's pixels in memory: 2.8 million images of 3x32x32."""
IMAGE_BYTES = 256 * 2**20
"""Most bytes of one encoded image."""
IMAGE_PIXELS = 2**26
"""Largest height times width of one image before it is scaled."""
BATCH_BYTES = 256 * 2**20
"""Most bytes of encoded images read at a time."""
ROW_BYTES = 64 * 2**20
"""Most bytes of a ledger file, and of what it unpacks to; a pack may have as many for each thousand rows."""
ROW_VALUES = 500_000
"""Most reports of a trial."""
DIRECTORY_BYTES = 16 * 2**20
"""Most bytes of a zip archive's list of contents."""
PICKLE_BYTES = 32 * 2**20
"""Most bytes of the names, shapes and numbers in a file of torch.save; the tensors lie beside them."""
NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("_core", "core") for name in ("scalar", "_reconstruct")),
    "builtins.bytes",  # of an array without numbers
)
"""What numpy's numbers and arrays in a checkpoint import, as torch names it; `Unread` is taken for each."""
PLAIN_STATE = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(
        f"torch {kind}Storage"
        for kind in ["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
    ),
    # What checkpoints hold beside the weights: a scheduler's milestones, a script's arguments.
    "collections Counter",
    "argparse Namespace",
    "torch Size",
    "torch device",
    *(f"torch {kind}" for kind in ["float64", "float32", "float16", "bfloat16", "int64"]),
    *(" ".join(name.rsplit(".", 1)) for name in NUMPY),
    "_codecs encode",  # makes the bytes of numpy's numbers from text
    "__builtin__ bytes",
}
"""The names that a pickled state dict of dense tensors imports, or a checkpoint with one in it.

torch allows more, such as `bytearray`, with which a small file could take much memory.
"""
_BYTE_CODECS = [pair for pair in aliases.items() if pair[1].endswith("_codec")]
COSTLY_CODECS = {name.replace("_", "") for pair in _BYTE_CODECS for name in pair} | {"idna", "punycode"}
"""What `encode` could be asked for, so that a small file takes much memory (hex, again and again) or time (idna)."""
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""Beginning of what torch.save wrote before version 1.6: so many pickles, then the tensors' numbers."""
LEGACY_PICKLES = 5


@contextmanager
def open_file(path: Path, what: str, most: int) -> Iterator[IO[bytes]]:
    """Open a plain file of at most `most` bytes; `what` names it in messages.

    Raises:
        UserError: not there, not readable, too large, or a folder, pipe or device.
    """
    with ExitStack() as stack:
        try:
            about = path.stat()
            plain = stat.S_ISREG(about.st_mode)  # opening a pipe would wait for its writer
            file = stack.enter_context(path.open("rb")) if plain else None
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise UserError(f"{what} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        if file is None:
            raise UserError(f"{what} is a folder, pipe or device; a plain file is needed")
        if about.st_size > most:
            raise UserError(f"{what} has {about.st_size:,} bytes; at most {most:,} are read")
        yield file


def read(path: Path, what: str, most: int) -> bytes:
    """Return the bytes of a plain file; raises as `open_file`."""
    with open_file(path, what, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def check_zip(file: IO[bytes], what: str, most: int, stored: bool = False) -> dict[str, zipfile.ZipInfo]:
    """Return a zip archive's contents by name, after checking how much they would unpack to.

    With `stored` none of them may be compressed.

    Raises:
        UserError: not a zip archive, a list of contents that is too long, a name that is there twice, or more than
            `most` bytes unpacked.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2**16 - 22))
    end = file.read()
    place = end.rfind(b"PK\5\6")
    if place < 0 or len(end) < place + 22:
        raise UserError(f"{what} is no whole zip archive")
    # Size of the list of contents. Archives above 4 GiB give it in an earlier record, which Python takes anywhere.
    directory = int.from_bytes(end[place + 12 : place + 16], "little") % (2**32 - 1)
    if (long := end.rfind(b"PK\6\6", 0, place)) >= 0:
        directory = max(directory, int.from_bytes(end[long + 40 : long + 48], "little"))
    if directory > DIRECTORY_BYTES:
        raise UserError(f"{what} has a list of contents of {directory:,} bytes; at most {DIRECTORY_BYTES:,} are read")
    try:
        with zipfile.ZipFile(file) as archive:
            contents = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{what} is no whole zip archive: {error}") from None
    unpacked = sum(entry.file_size for entry in contents)
    if unpacked > most:
        raise UserError(f"{what} unpacks to {unpacked:,} bytes; at most {most:,} are read")
    if stored and any(entry.compress_type != zipfile.ZIP_STORED for entry in contents):
        raise UserError(f"{what} holds compressed parts, which torch never writes; save it again with torch.save")
    if any(not entry.orig_filename.isascii() or "\0" in entry.orig_filename for entry in contents):
        raise UserError(f"{what} holds a part whose name is not plain")  # other programs may read another name
    if len({entry.filename.lower() for entry in contents}) < len(contents):
        raise UserError(f"{what} holds two parts of one name")
    return {entry.filename: entry for entry in contents}


class Unread:
    """What stands for numpy's numbers and arrays beside the tensors of a checkpoint: nothing of them is read or run."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def is_legacy(data: bytes) -> bool:
    """Return whether bytes begin as what torch.save wrote before version 1.6."""
    return data.startswith(LEGACY)


def check_state(data: bytes, what: str) -> None:
    """Refuse bytes that should not be given to `torch.load(weights_only=True)`.

    Raises:
        UserError: as `check_zip`, not an archive of torch.save's, TorchScript, or anything but plain tensors, with
            numpy's numbers beside them.
    """
    if is_legacy(data):
        front = io.BytesIO(data[:PICKLE_BYTES])
        for _ in range(LEGACY_PICKLES):
            _check_pickle(front, what)
        return
    contents = check_zip(io.BytesIO(data), what, MODEL_BYTES, stored=True)
    pickles = [name for name in contents if name.lower().endswith(".pkl")]
    # What does not begin like this, torch reads as a pickle without an archive around it.
    if not data.startswith(b"PK\3\4") or len(pickles) != 1 or is_script(contents):
        raise UserError(f"{what} is no archive of torch.save's with a state dict")
    if contents[pickles[0]].file_size > PICKLE_BYTES:
        raise UserError(f"{what} has more than {PICKLE_BYTES:,} bytes beside its tensors")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickled = archive.read(pickles[0])
    except Exception as error:  # zipfile raises many kinds
        raise UserError(f"{what} is broken: {error}") from None
    _check_pickle(io.BytesIO(pickled), what)


def _check_pickle(stream: IO[bytes], what: str) -> None:
    """Read to the end of a pickle, and refuse it if it imports what is not in PLAIN_STATE; raises as `check_state`."""
    costly, encodes = "", False
    try:
        for order, value, _ in pickletools.genops(stream):
            if order.name == "GLOBAL":
                if value not in PLAIN_STATE:
                    raise UserError(f"{what} asks for {value!r}, which no plain state dict needs")
                encodes |= value == "_codecs encode"
            elif isinstance(value, str) and re.sub("[^a-z0-9]", "", value.lower()) in COSTLY_CODECS:
                costly = value
        if encodes and costly:
            raise UserError(f"{what} may ask for the encoding {costly[:40]!r}, which no plain state dict needs")
    except UserError:
        raise
    except Exception as error:  # pickletools raises many kinds
        raise UserError(f"{what} is broken: {error}") from None


def is_script(contents: Iterable[str]) -> bool:
    """Return whether an archive with these parts is TorchScript: a program, not weights alone."""
    return any("/code/" in name or name.lower().endswith("constants.pkl") for name in contents)
