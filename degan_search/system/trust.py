"""What the user vouches for: code that settings of their own have named, on this machine.

A run or a space that somebody else made may name any code. It runs only if the same code was named here before, or if
the environment variable TRUSTED is 1.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

TRUSTED = "DEGAN_SEARCH_TRUSTED"
_VOUCHED: set[str] = set()
"""Hashes of what was vouched for in this process."""


def vouch(code: bytes) -> None:
    """Remember code, for this process and, if the home folder can be written, for later ones."""
    digest = hashlib.sha256(code).hexdigest()
    _VOUCHED.add(digest)
    try:
        if digest not in _known():
            _place().parent.mkdir(parents=True, exist_ok=True)
            with _place().open("a", encoding="ascii") as file:
                file.write(f"{digest}\n")
    except OSError:  # a home folder that cannot be written
        return


def vouched(code: bytes) -> bool:
    """Return whether this very code may run."""
    digest = hashlib.sha256(code).hexdigest()
    return os.environ.get(TRUSTED) == "1" or digest in _VOUCHED or digest in _known()


def _place() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "degan_search" / "vouched"


def _known() -> set[str]:
    try:
        return set(_place().read_text(encoding="ascii").split())
    except (OSError, ValueError, RuntimeError):
        return set()
