"""Which sample grids the page holds itself, and which it links to."""

from __future__ import annotations

import base64
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from degan_search.ledger.columns import Phase, State

BEST = 3
"""Search trials of each cell whose grids the page holds."""
BYTES = 6_000_000
"""Largest size of all grids that the page holds, as base64; the best of each cell come first."""
LARGEST = 50_000_000
"""Largest size in bytes of a grid that the page links to, or that is served."""
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Grid:
    """A trial's grid of samples: a link from the page, and where the page holds it, the picture as a data URL.

    The size, width and height in pixels, is the picture's: a page that knows it does not move while it loads.
    """

    trial_id: str
    cell: str
    link: str
    picture: str | None
    size: tuple[int, int] | None


def find(run: Path, frame: pd.DataFrame, page: Path) -> list[Grid]:
    """Return the grids of a run's trials, those that the page holds first, the best trials leading."""
    folder = quote(Path(os.path.relpath((run / "trials").resolve(), page.parent.resolve())).as_posix())
    left, grids = BYTES, []
    held = _wanted(frame)
    about = frame.set_index("trial_id")["cell"].fillna("")
    for trial_id in [*held, *(name for name in about.index if name not in set(held))]:
        if (file := plain_file(run, trial_id)) is None:
            continue
        picture, size = _picture(file, left) if trial_id in held else (None, None)
        left -= len(picture or "")
        grids.append(Grid(trial_id, about[trial_id], f"{folder}/{trial_id}/samples.png", picture, size))
    return grids


def plain_file(run: Path, trial_id: str) -> Path | None:
    """Return a trial's sample grid if it is a file in the run's `trials`; None if a link leads elsewhere."""
    folder = (run / "trials").resolve()
    file = folder / trial_id / "samples.png"
    return file if file.resolve() == file and file.is_file() and file.stat().st_size <= LARGEST else None


def _wanted(frame: pd.DataFrame) -> list[str]:
    done = frame[(frame["state"] == State.COMPLETE)].sort_values("score", ascending=False, kind="stable")
    search = done[done["phase"] == Phase.SEARCH]
    rank = search.groupby("cell").cumcount()
    search = search.assign(rank=rank)[rank < BEST].sort_values("rank", kind="stable")
    return [*search["trial_id"], *done.loc[done["phase"] == Phase.FINAL, "trial_id"]]


def _picture(file: Path, left: int) -> tuple[str, tuple[int, int]] | tuple[None, None]:
    if file.stat().st_size * 4 / 3 + 100 > left:
        return None, None
    content = file.read_bytes()
    if len(content) < 24 or not content.startswith(PNG):
        return None, None
    picture = "data:image/png;base64," + base64.b64encode(content).decode()
    return picture, struct.unpack(">II", content[16:24])  # a PNG's first block is its width and height
