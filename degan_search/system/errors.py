"""Exceptions whose message is for the user, and hints for a misspelt name."""

from __future__ import annotations

import difflib
import re
import shlex
import warnings
from collections.abc import Iterable

LISTED = 40
"""Most names that a message lists."""
LONGEST = 2000
"""Most characters of a message: a value in it may come from an untrusted file."""
CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Characters that change how a terminal shows text (control and direction characters, but not tab and newline).

They are written for use inside the [] of a regular expression.
"""
_UNSEEN = re.compile(rf"[{CONTROLS}\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return text with control characters written out, an escape as \x1b; tabs and newlines stay.

    Lone surrogates, as in file names that are not Unicode, are written out too: they cannot be printed.
    """
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def command(*words: object) -> str:
    """Return this project's command with these words, quoted so that a shell takes it as it is printed."""
    return shlex.join(["degan-search", *map(str, words)])


class UserError(ValueError):
    """Input that cannot be used; the message says what was wrong, the value, and what would be right."""

    def __init__(self, message: str) -> None:
        message = visible(message)
        super().__init__(message if len(message) <= LONGEST else f"{message[:LONGEST]} ... (cut)")


class NoticeWarning(UserWarning):
    """Something about the user's own input that is no error and that the user should know; shown as one line."""


class BrokenFileWarning(NoticeWarning):
    """A file that cannot be read and was left out; the message names it and says what is wrong."""


class IncompleteError(UserError):
    """A sweep that ended before all of it was done; what is finished is kept."""

    exit_code = 1


class InterruptedRun(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, raised once files being written are complete; `hint` says how to go on."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(hint)
        self.number, self.hint = number, hint

    @property
    def exit_code(self) -> int:
        """The code by which a shell reports a signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


def close_matches(word: str, known: Iterable[str]) -> str:
    """Return the part of a message that names what was probably meant, and what is known."""
    known = list(known)
    near = difflib.get_close_matches(word[:LONGEST], known, n=3)
    if near and len(known) > LISTED:
        return f"did you mean {' or '.join(near)}?"
    listed = ", ".join(known[:LISTED]) + (", ..." if len(known) > LISTED else "")
    return (f"did you mean {' or '.join(near)}? " if near else "") + f"known: {listed}"


def notice(text: str) -> None:
    """Tell the user; the command line shows each text once, as a line."""
    warnings.warn(text, NoticeWarning, stacklevel=2)
