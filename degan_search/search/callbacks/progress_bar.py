"""The line on the terminal, or the table in a notebook, that says how a phase of a sweep stands."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from degan_search.ledger.columns import State
from degan_search.search.callbacks.live_figure import live_figure
from degan_search.system.console import LiveConsole
from degan_search.system.errors import visible

SHOW_SECONDS = 5.0
"""Between two texts of the bar while nothing begins or ends."""
AROUND = 4
"""Lines of a terminal that are left for the bar, whose text may take several, and for the cursor."""


@dataclass
class Tally:
    """How the trials of a cell ended, and the best of them."""

    ended: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    score: float = -math.inf
    trial: str = ""
    finished: list[tuple[int, float, str]] = field(default_factory=list)
    """Of each finished trial: how many of the phase had ended then, its score and name."""

    def count(self, trial: str, state: State, score: float, place: int) -> None:
        """Count a trial that ended, as the phase's `place`-th."""
        self.ended[state] += 1
        if state is State.COMPLETE and math.isfinite(score):
            self.finished.append((place, score, trial))
        if state is State.COMPLETE and score > self.score:
            self.score, self.trial = score, trial

    @property
    def best(self) -> str:
        """The best score and its trial, for people; "" if no trial has finished."""
        return f"{self.score:.3f} ({self.trial})" if self.trial else ""

    def row(self, phase: str, cell: str) -> dict[str, object]:
        """Return a row of a notebook's table."""
        finished, stopped, failed = (self.ended[state] for state in (State.COMPLETE, State.PRUNED, State.FAIL))
        return {
            "phase": phase,
            "cell": cell,
            "finished": finished,
            "stopped early": stopped,
            "failed": failed,
            "best score": self.best,
        }


class _Bar(Progress):
    """A bar with lines below it, as many as fit into the terminal."""

    lines: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar and the lines; in place of those that do not fit, their number."""
        yield from super().get_renderables()
        if not self.lines:
            return
        room = max(2, self.console.height - AROUND)
        shown = list(self.lines)
        if len(shown) > room:
            shown[room - 1 :] = [f"... and {len(shown) - room + 1} more cells"]
        yield from (Text(visible(line), no_wrap=True, overflow="ellipsis") for line in shown)


class ProgressBar:
    """Counts how the trials of a phase ended, and shows that, the time left, and the best score of each cell.

    Not one best over all cells: scores of different cells are, mostly, of different images.
    """

    def __init__(self, title: str, total: int, console: Console) -> None:
        self.title, self.total, self.console = title, total, console
        self.ended = dict.fromkeys(State, 0)
        self.cells: dict[str, Tally] = {}
        self.improved: list[str] = []
        """Cells that have a best score, the one that improved last in front."""
        self.shown = 0.0
        """When, on the monotonic clock, the text was last made."""
        self.bar = _Bar(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task(title, total=total)

    def __enter__(self) -> Self:
        """Show the bar."""
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take it away."""
        self.bar.stop()

    @property
    def done(self) -> int:
        """Trials that ended."""
        return sum(self.ended.values())

    @property
    def missing(self) -> int:
        """Trials that have not ended."""
        return self.total - self.done

    @property
    def due(self) -> bool:
        """Whether the text is so old that it should be made again."""
        return time.monotonic() - self.shown >= SHOW_SECONDS

    def count(self, trial: str, cell: str, state: State, score: float) -> None:
        """Count a trial of a cell that ended."""
        self.ended[state] += 1
        tally = self.cells.setdefault(cell, Tally())
        tally.count(trial, state, score, self.done)
        if tally.trial == trial:
            self.improved = [cell, *(other for other in self.improved if other != cell)]

    def expect(self, total: int, why: str) -> None:
        """Change the number of trials, and print why."""
        self.total = total
        self.console.print(why, highlight=False, soft_wrap=True)

    def show(self, running: int, left: str) -> str:
        """Bring the bar up to date and return its text for a log; `left`: the time that the rest takes, for people.

        Of several cells the log's text has the best score of the one that improved last; the bar, those of all.
        """
        self.shown = time.monotonic()
        stopped = f", {self.ended[State.PRUNED]} stopped early" if self.ended[State.PRUNED] else ""
        failed = f", {self.ended[State.FAIL]} failed" if self.ended[State.FAIL] else ""
        counts, rest = f"{self.title}: {self.done} done, {running} running{stopped}{failed}", left and f", {left}"
        several = len(self.cells) > 1
        bests = [f"best score {self.cells[cell].best}{several * f' of {cell}'}" for cell in self.improved]
        text = ", ".join([counts, *bests[:1]]) + rest
        self.bar.lines = bests if several else ()
        shown = counts + rest if several else text
        self.bar.update(self.task, completed=self.done, total=self.total, description=shown)
        if isinstance(self.console, LiveConsole):
            rows = [tally.row(self.title, cell) for cell, tally in self.cells.items()]
            drawing = live_figure({cell: tally.finished for cell, tally in self.cells.items()}, self.total)
            self.console.show(f"{shown} [{self.done}/{self.total}]", rows, drawing)
        return text

    def print_line(self, text: str) -> None:
        """Print the text as a line of its own, where nothing shows the bar."""
        if not (self.console.is_terminal or isinstance(self.console, LiveConsole)):
            self.console.print(f"{text} [{self.done}/{self.total}]", highlight=False, soft_wrap=True)

    def say(self, text: str, colour: str) -> None:
        """Print a line beside the bar."""
        self.console.print(text, style=colour, markup=False, highlight=False, soft_wrap=True)
