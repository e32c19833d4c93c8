"""Consoles: what is printed on a terminal or into a file, and the one output of a notebook's cell that is kept up."""

from __future__ import annotations

import html
import io
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape, render
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
    """A notebook's: text, a status, a table and a figure stand in one output of the cell, which is replaced."""

    def __init__(self) -> None:
        # Without a terminal, rich's own displays show nothing; in a notebook they need a package that may be missing.
        super().__init__(file=io.StringIO(), width=WIDTH, force_jupyter=False, force_terminal=False, color_system=None)
        self.lines: list[str] = []
        self.now = ""
        self.rows: Sequence[Mapping[str, object]] = ()
        self.figure = ""
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

    def show(
        self, now: str | None = None, rows: Sequence[Mapping[str, object]] | None = None, figure: str | None = None
    ) -> None:
        """Replace the output; `now`: its status line, `rows`: its table, `figure`: HTML below it. None: as it was."""
        from IPython.display import display

        self.now = self.now if now is None else visible(now)
        self.rows = self.rows if rows is None else rows
        self.figure = self.figure if figure is None else figure
        self.shown = time.monotonic()
        said = "\n".join([*self.lines, *([self.now] if self.now else [])])
        table = _table(self.rows)
        data = {"text/html": f"{table}{self.figure}<pre>{html.escape(said)}</pre>", "text/plain": said}
        if self.output is None:
            self.output = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self.output.update(data, raw=True)


class Count:
    """Shows how many of something are done: one line that is rewritten, or where that cannot be a line each tenth."""

    def __init__(self, console: Console, what: str, of: int, unit: str) -> None:
        self.console, self.what, self.of, self.unit = console, what, of, unit
        self.done = 0.0
        self.tenths = 0
        """How many were done at the last line printed."""
        self.status = console.status(escape(str(self))) if of else nullcontext()
        self.shown: Status | None = None

    def __str__(self) -> str:
        return f"{self.what}: {int(self.done)} of {self.of} {self.unit}"

    def __enter__(self) -> Self:
        """Show it, if there is something to do."""
        self.shown = self.status.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take the rewritten line away."""
        self.status.__exit__(kind, error, at)

    def add(self, done: float = 1) -> None:
        """Count more as done."""
        self.done += done
        if self.shown:
            self.shown.update(escape(str(self)))
        rewritten = self.console.is_terminal or isinstance(self.console, LiveConsole)
        if not rewritten and (tenths := 10 * int(self.done) // self.of) > self.tenths:
            self.tenths = tenths
            self.console.print(str(self), markup=False, highlight=False, soft_wrap=True)


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
