"""The one exception that a user's own input may cause, and the hint that goes with a wrong name."""

import difflib
from collections.abc import Iterable

LISTED = 40
"""Names that a message lists at most."""


class UserError(ValueError):
    """Input that cannot be used; the message says what was wrong, the value, and what would be right."""


def close_matches(word: str, known: Iterable[str]) -> str:
    """The part of a message that names what was probably meant, and what there is."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=3)
    if near and len(known) > LISTED:
        return f"did you mean {' or '.join(near)}?"
    listed = ", ".join(known[:LISTED]) + (", ..." if len(known) > LISTED else "")
    return (f"did you mean {' or '.join(near)}? " if near else "") + f"known: {listed}"
