"""Files from somebody else: how large they may be, and what is looked at before they are read."""

from __future__ import annotations

import io
import os
import pickletools
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from degan_search.system.errors import UserError

MODEL_BYTES = 4 * 2**30
"""A file of weights, and what it unpacks to."""
SET_BYTES = 8 * 2**30
"""The pixels of an image set in memory: 2.8 million images of 3x32x32."""
IMAGE_BYTES = 256 * 2**20
"""One encoded image."""
IMAGE_PIXELS = 2**26
"""Height times width of one image before it is scaled."""
BATCH_BYTES = 256 * 2**20
"""Encoded images read at a time."""
ROW_BYTES = 64 * 2**20
"""A ledger file, and what it unpacks to; `packed` may have as much for each thousand rows."""
ROW_VALUES = 500_000
"""Reports of a trial."""
DIRECTORY_BYTES = 16 * 2**20
"""The list of contents of a zip archive."""


PICKLE_BYTES = 32 * 2**20
"""The names, shapes and numbers in a file of torch.save; tensors lie beside them."""
PLAIN_STATE = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(
        f"torch {kind}Storage"
        for kind in ["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
    ),
}
"""What a pickled state dict of dense tensors asks for. torch allows more (`bytearray`), some of which takes memory."""


@contextmanager
def opened(path: Path, what: str, most: int) -> Iterator[IO[bytes]]:
    """Open a plain file of at most `most` bytes; `what` names it in messages.

    Raises:
        UserError: not there, not readable, too large, or a folder, pipe or device.
    """
    with ExitStack() as stack:
        try:
            about = path.stat()
            plain = stat.S_ISREG(about.st_mode)  # to open a pipe would be to wait for its writer
            file = stack.enter_context(path.open("rb")) if plain else None
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise UserError(f"{what} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        if file is None:
            raise UserError(f"{what} is a folder, pipe or device; a plain file is needed")
        if about.st_size > most:
            raise UserError(f"{what} has {about.st_size:,} bytes; at most {most:,} are read")
        yield file


def read(path: Path, what: str, most: int) -> bytes:
    """Return the bytes of a plain file; raises as `opened`."""
    with opened(path, what, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def check_zip(file: IO[bytes], what: str, most: int, stored: bool = False) -> dict[str, zipfile.ZipInfo]:
    """Return a zip archive's contents by name after a look at what they would unpack to.

    With `stored` none of them may be compressed.

    Raises:
        UserError: no zip archive, an absurd list of contents, a name twice, or more than `most` bytes unpacked.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2**16 - 22))
    end = file.read()
    place = end.rfind(b"PK\5\6")
    if place < 0 or len(end) < place + 22:
        raise UserError(f"{what} is no whole zip archive")
    # The list's size; archives of more than 4 GiB say it in a record before, which Python believes wherever it is.
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
        raise UserError(f"{what} holds a part whose name is not plain")  # other readers may take it for another
    if len({entry.filename.lower() for entry in contents}) < len(contents):
        raise UserError(f"{what} holds two parts of one name")
    return {entry.filename: entry for entry in contents}


def check_state(data: bytes, what: str, most: int = MODEL_BYTES) -> None:
    """Refuse bytes that `torch.load(weights_only=True)` should not be given; they may be a state dict otherwise.

    Raises:
        UserError: as `check_zip`, no zip archive of torch.save's, TorchScript, or more than plain tensors.
    """
    contents = check_zip(io.BytesIO(data), what, most, stored=True)
    pickles = [name for name in contents if name.lower().endswith(".pkl")]
    # torch takes what does not begin like this for a pickle without an archive around it.
    if not data.startswith(b"PK\3\4") or len(pickles) != 1 or is_script(contents):
        raise UserError(f"{what} is no archive of torch.save's with a state dict")
    if contents[pickles[0]].file_size > PICKLE_BYTES:
        raise UserError(f"{what} has more than {PICKLE_BYTES:,} bytes beside its tensors")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for order, value, _ in pickletools.genops(archive.read(pickles[0])):
                if order.name == "GLOBAL" and value not in PLAIN_STATE:
                    raise UserError(f"{what} asks for {value!r}, which no plain state dict needs")
    except UserError:
        raise
    except Exception as error:  # pickletools raises many kinds
        raise UserError(f"{what} is broken: {error}") from None


def is_script(contents: Iterable[str]) -> bool:
    """Return whether an archive with these parts is TorchScript: a program, not weights alone."""
    return any("/code/" in name or name.lower().endswith("constants.pkl") for name in contents)
