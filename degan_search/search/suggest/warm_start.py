"""Where a search begins, by the best trials of earlier runs: `sweep --from RUN`.

Earlier runs may have had other teachers and proxies, so their scores are not compared with each other: a trial counts
by its rank in its own cell, and by how alike its task is. What is found is written into the space (`Space.earlier`), so
that a run that goes on needs no other run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from degan_search import ledger
from degan_search.data import proxies
from degan_search.ledger.columns import column_of, config_of
from degan_search.search.space.cell import Cell, cells
from degan_search.search.space.schema import Earlier, Parameter, Scalar, Space
from degan_search.search.suggest.box import axes
from degan_search.selection import choose
from degan_search.settings.resolve import flatten
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError

MOST = 3
"""Points of earlier runs that a cell tries, and the best trials of each earlier cell that are looked at."""
NEAR = 0.05
"""Two points whose places differ by less than this on every axis, each from 0 to 1, count as one."""


@dataclass(frozen=True)
class Candidate:
    """A point that a cell may try."""

    found: Earlier
    rank: int
    """Of the trial in its earlier cell, from 1."""
    said: tuple[str, ...]
    """What was changed to make it fit, for people."""

    @property
    def weight(self) -> float:
        """What it counts."""
        return self.found.alike / self.rank


def warm_started(space: Space, runs: Sequence[Path], folder: Path) -> tuple[Space, list[str]]:
    """Return the space with what its cells try first by earlier runs in place of what it had, and lines that say so.

    Args:
        space: with whole paths.
        runs: folders of the earlier runs.
        folder: the new run's.

    Raises:
        UserError: no run there, the new run itself, one without a finished trial, or one of which nothing fits.
    """
    if space.search.sampler == "grid":
        raise UserError("--from: search.sampler grid runs every combination, wherever it begins; use gp, the default")
    for run in runs:
        if run.resolve() == folder.resolve():
            raise UserError(f"--from {run} is the folder of the new run itself: choose another --name")
    frame = ledger.load(runs)
    searched = [cell for cell in cells(space) if cell.varies()]
    if not searched:
        raise UserError("--from: no cell of the space has parameters, so there is no search to begin")
    fitting = {cell.label: candidates(cell, frame) for cell in searched}
    for run in runs:
        name = run.resolve().name
        if choose.finished(frame[frame["run"] == name]).empty:
            raise UserError(f"--from {run}: no search trial of it has finished, so none is its best")
        if not any(one.found.run == name for found in fitting.values() for one in found):
            here = sorted({parameter for cell in searched for parameter in axes(cell)})
            raise UserError(
                f"--from {run}: it says nothing of this search: it searched none of {', '.join(here)} for a method of "
                "a cell here"
            )
    chosen = {cell.label: picked(cell, fitting[cell.label]) for cell in searched}
    earlier = [one.found for found in chosen.values() for one in found]
    return space.model_copy(update={"earlier": earlier}), [*_lines(chosen)]


def candidates(cell: Cell, frame: pd.DataFrame) -> list[Candidate]:
    """Return the best trials of each earlier cell as points of this one: of its task and method, its parameters alone.

    A number outside its range is moved to the range's end; a value that is none of a list is left out. An earlier run
    that searched none of these parameters has no candidate.

    Args:
        cell: the one that begins.
        frame: from `ledger.load`.
    """
    own, parameters = cell.example(), {name: axis.spec for name, axis in axes(cell).items()}
    methods = parameters.get("method", [own.method])
    assert isinstance(methods, list), "names are no range"
    mine = frame[(frame["config_task"] == own.task) & frame["config_method"].isin(methods)]
    found: list[Candidate] = []
    for _, trials in mine.groupby(["run", "config_method"], sort=False):
        by, done = choose.chosen_by(trials), choose.finished(trials)
        varied = {name for name in parameters if done[column_of(name)].astype(str).nunique() > 1}
        if not varied or done[by].isna().all():
            continue
        groups = [*choose.PROXY, "cell", "teacher_hash"]
        best = choose.best(trials, by, groups, MOST)
        ranks = best.groupby(groups, sort=False, dropna=False).cumcount() + 1
        for (_, row), rank in zip(best.iterrows(), ranks, strict=True):
            if (one := _candidate(cell, parameters, row, int(rank))) and varied & set(one.found.point):
                found.append(one)
    return found


def picked(cell: Cell, found: Sequence[Candidate]) -> list[Candidate]:
    """Return at most `MOST` of a cell's candidates, the weightiest first, none near another."""
    places = axes(cell)
    chosen: list[Candidate] = []
    boxes: list[dict[str, float]] = []
    for one in sorted(found, key=lambda one: (-one.weight, one.rank)):
        box = {name: places[name].at(value) for name, value in one.found.point.items()}
        if not any(box.keys() == other.keys() and _near(box, other) for other in boxes):
            chosen.append(one)
            boxes.append(box)
    return chosen[:MOST]


def alike(cell: Cell, config: TrialConfig) -> float:
    """Return how alike the tasks of a cell and of an earlier trial are, from 0 to 1.

    The mean of three: the teacher's true images (or its file, where there are none), its network, and the proxy. Each
    is 1 if it is the same, images 1/2 if they are of one set. Of several proxies the most alike counts.
    """
    own = cell.example()
    of_teacher = _alike_images(_images(config), _images(own))
    of_proxy = max(_alike_images(config.proxy, proxy) for proxy in cell.proxies)
    return (of_teacher + (config.teacher.network == own.teacher.network) + of_proxy) / 3


def _candidate(cell: Cell, parameters: Mapping[str, Parameter], row: pd.Series, rank: int) -> Candidate | None:
    config = config_of(row)
    settings: dict[str, Any] = dict(flatten(config.model_dump(mode="json")))
    fitted = {name: _fitted(spec, settings[name]) for name, spec in parameters.items()}
    point = {name: value for name, value in fitted.items() if value is not None}
    known = cell.enqueue(point)
    point = {name: value for name, value in point.items() if name in known or f"{name} is 0" in known}
    if not point:
        return None
    where = f"{row['trial_id']} of {row['run']}: "
    moved = [f"{where}{name} = {settings[name]} becomes {at}" for name, at in point.items() if at != settings[name]]
    out = [f"{where}{name} = {settings[name]} is left out" for name, value in fitted.items() if value is None]
    degree = round(alike(cell, config), 3)
    found = Earlier(cell=cell.label, run=row["run"], trial=row["trial_id"], alike=degree, point=point)
    return Candidate(found, rank, (*moved, *out))


def _fitted(spec: Parameter, value: Any) -> Scalar:
    """Return the value that a parameter can take for an earlier one, the same if it can; None: there is none."""
    if isinstance(spec, list):
        return value if value in spec else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if spec.zero_or_log and value <= 0:
        return 0.0
    low, high = spec.bounds
    inside = min(max(value, low), high)
    return round(inside) if spec.int_ else inside


def _images(config: TrialConfig) -> str:
    return config.teacher.dataset or config.teacher.path or ""


def _alike_images(one: str, other: str) -> float:
    return 1.0 if one == other else 0.5 if _sets(one) & _sets(other) else 0.0


def _sets(name: str) -> set[str]:
    try:
        return set(proxies.bases(name))
    except UserError:  # a teacher's file
        return {name}


def _near(box: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(abs(at - other[name]) < NEAR for name, at in box.items())


def _lines(chosen: Mapping[str, Sequence[Candidate]]) -> Iterator[str]:
    for label, found in chosen.items():
        points = (f"{one.found.trial} of {one.found.run} (alike {one.found.alike:.2f})" for one in found)
        yield f"{label}: begins with {', '.join(points)}" if found else f"{label}: no trial of the earlier runs fits"
    yield from dict.fromkeys(itertools.chain.from_iterable(one.said for found in chosen.values() for one in found))
