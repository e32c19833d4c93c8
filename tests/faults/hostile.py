"""What is hostile in somebody else's files, and how it is refused."""

import io

import pytest
from PIL import Image

from degan_search.system.errors import UserError

ESCAPES = "\x1b[2J\x1b]0;title\x07 \u202eevil [red]x[/red] :smile:"


def png(size=(8, 8), mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "PNG")
    return stream.getvalue()


def refused(action, *says):
    with pytest.raises(UserError) as error:
        action()
    for part in says:
        assert part in str(error.value)
