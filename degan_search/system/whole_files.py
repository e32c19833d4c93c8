"""Atomic writes: a file is complete or not there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

HIDDEN = ".tmp-"
"""Prefix of a file's name until the file is complete."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically and durably: a hidden file beside it, fsync, rename.

    Raises:
        OSError: the folder cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the replacement is atomic; readers skip names that begin with a dot.
    hidden = path.with_name(f"{HIDDEN}{secrets.token_hex(4)}-{path.name}")
    try:
        with hidden.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_torn(folder: Path) -> None:
    """Remove the unfinished files that a killed process left below a folder; nobody may write there meanwhile."""
    for file in folder.rglob(f"{HIDDEN}*"):
        file.unlink(missing_ok=True)
