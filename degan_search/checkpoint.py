"""Files that are whole or not there: bytes and network weights, written atomically."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from degan_search.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically and durably: a hidden file beside it, fsync, rename.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, hidden = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(hidden).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(hidden).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def tensors_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return named tensors (a network's state, images) as safetensors bytes: no pickled code inside."""
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def read_tensors(data: bytes, what: str) -> dict[str, Tensor]:
    """Return the tensors that `tensors_bytes` wrote.

    Raises:
        UserError: the bytes are not whole safetensors; `what` names them.
    """
    try:
        return load(data)
    except SafetensorError as error:
        raise UserError(f"{what} is not a whole safetensors file: {error}") from None
