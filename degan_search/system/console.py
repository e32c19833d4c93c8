"""Consoles: what is printed on a terminal or into a file, and the one output of a notebook's cell that is kept up."""

from __future__ import annotations

import html
import io
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import render
from rich.status import Status

from degan_search.system.errors import visible

WIDTH = 120
"""Characters in a line of a notebook's output."""
LINES = 200
"""Lines that a notebook's output keeps at most."""
PAUSE = 0.3
"""Seconds between two texts of a notebook's status line at least."""


class PlainConsole(Console):
    """Prints text as it is: names and reasons may come from somebody else, and rich would read [brackets] as markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"soft_wrap": False, "markup": False, "emoji": False, **options})

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, with control characters written out."""
        super().print(*(visible(item) if isinstance(item, str) else item for item in objects), **options)


class LiveConsole(PlainConsole):
    """A notebook's: all that is printed, a status and a table stand in one output of the cell, which is replaced."""

    def __init__(self) -> None:
        # Without a terminal, rich's own displays show nothing; in a notebook they need a package that may be missing.
        super().__init__(file=io.StringIO(), width=WIDTH, force_jupyter=False, force_terminal=False, color_system=None)
        self.lines: list[str] = []
        self.now = ""
        self.rows: Sequence[Mapping[str, object]] = ()
        self.output: Any = None
        """IPython's handle of the output, once there is one."""
        self.shown = 0.0
        """When, on the monotonic clock, it was last replaced."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Add lines to the output."""
        super().print(*objects, **options)
        stream = self.file
        assert isinstance(stream, io.StringIO)
        added = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        if added:
            self.lines = [*self.lines, *added][-LINES:]
            self.show()

    @contextmanager
    def status(self, status: Any, **options: Any) -> Iterator[Status]:  # type: ignore[override]
        """Show a status, in rich's markup, while the block runs."""
        yield _LiveStatus(status, self)
        self.show("")

    def show(self, now: str | None = None, rows: Sequence[Mapping[str, object]] | None = None) -> None:
        """Replace the output; `now`: its status line, `rows`: its table. None: as it was."""
        from IPython.display import display

        self.now = self.now if now is None else visible(now)
        self.rows = self.rows if rows is None else rows
        self.shown = time.monotonic()
        said = "\n".join([*self.lines, *([self.now] if self.now else [])])
        table = _table(self.rows)
        data = {"text/html": f"{table}<pre>{html.escape(said)}</pre>", "text/plain": said}
        if self.output is None:
            self.output = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self.output.update(data, raw=True)


class _LiveStatus(Status):
    """A status whose text goes into a notebook's output."""

    def __init__(self, status: Any, console: LiveConsole) -> None:
        super().__init__(status, console=console)
        self.live = console
        console.show(render(str(status)).plain)

    def update(self, status: Any = None, **options: Any) -> None:
        """Show another text, unless the last one is too new."""
        if status is not None and time.monotonic() - self.live.shown >= PAUSE:
            self.live.show(render(str(status)).plain)


def console_here(quiet: bool = False) -> PlainConsole:
    """Return the console for this process: a notebook's, or one of plain lines; `quiet`: one that prints nothing.

    In a notebook tqdm and Ray, once they are imported, ask for a package that nothing here needs: they no longer do.
    """
    notebook = PlainConsole().is_jupyter
    if notebook:
        warnings.filterwarnings("ignore", "IProgress not found")
        logging.getLogger("ray.widgets").setLevel(logging.WARNING)
    if quiet:
        return PlainConsole(quiet=True, force_jupyter=False)
    return LiveConsole() if notebook else PlainConsole()


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows of the same keys as HTML; "" for none."""
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(visible(str(value)))}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
