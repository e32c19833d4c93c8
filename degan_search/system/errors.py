"""The one exception that a user's own input may cause, and the hint that goes with a wrong name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LISTED = 40
"""Names that a message lists at most."""
LONGEST = 2000
"""Characters of a message at most: a value in it may be somebody else's."""
CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""What could style, move or turn round a terminal's text, as a regular expression's class: all but tab and newline."""
_UNSEEN = re.compile(rf"[{CONTROLS}\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return text with control characters written out, an escape as \x1b; tabs and newlines stay.

    Half characters, as in names of files that are no Unicode, are written out too: they cannot be printed.
    """
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


class UserError(ValueError):
    """Input that cannot be used; the message says what was wrong, the value, and what would be right."""

    def __init__(self, message: str) -> None:
        message = visible(message)
        super().__init__(message if len(message) <= LONGEST else f"{message[:LONGEST]} ... (cut)")


class BrokenFileWarning(UserWarning):
    """A file that cannot be read and was left out; the message names it and says what is wrong."""


class IncompleteError(UserError):
    """A sweep that ended before all of it was done; what is finished is kept."""

    exit_code = 1


class InterruptedRun(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after what was being written is whole; `hint` says how to go on."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint)
        self.number, self.hint = number, hint

    @property
    def exit_code(self) -> int:
        """As a shell tells a signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


def close_matches(word: str, known: Iterable[str]) -> str:
    """The part of a message that names what was probably meant, and what there is."""
    known = list(known)
    near = difflib.get_close_matches(word[:LONGEST], known, n=3)
    if near and len(known) > LISTED:
        return f"did you mean {' or '.join(near)}?"
    listed = ", ".join(known[:LISTED]) + (", ..." if len(known) > LISTED else "")
    return (f"did you mean {' or '.join(near)}? " if near else "") + f"known: {listed}"
