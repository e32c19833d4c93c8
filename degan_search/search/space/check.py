"""Checks of a space: its trials must be able to run, before any worker starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from degan_search.search.space.cell import Cell, cells, earlier_points
from degan_search.search.space.combined import combined_cells
from degan_search.search.space.schema import MAX_TRIALS, SHARED, Parameter, Range, Scalar, Space
from degan_search.selection.choose import LABELLED
from degan_search.settings.combine import Combine
from degan_search.settings.goals import OF_STUDENT
from degan_search.settings.methods import TUNED, UNTUNED, normalised
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError
from degan_search.trial import checks, numbers

NUMBERS = ("proxy", "count", "method", "shots", "teacher.", "gan.batch_", "distill.batch_", "distill_images.batch_")
"""Beginnings of the names of settings that change how many images are needed, or how many there are."""


def check(space: Space) -> None:
    """Refuse a space that gives a wrong configuration in any cell, under any condition or at any value of a list.

    Raises:
        UserError: the first fault, with its cell.
    """
    if math.prod(map(len, space.cells.values())) > MAX_TRIALS:
        raise UserError(f"cells: more than {MAX_TRIALS:,} combinations")
    trial_config(space.trial)
    known = set(space.parameters).union(*(when.parameters for when in space.when))
    _check_named(space.first, "first", known)
    _check_named([one.point for one in space.earlier], "earlier", known)
    if space.prior:
        if not space.prior.point:
            raise UserError("prior: names no parameter; give values that you believe to be good, as {gan.lambda_e: 1}")
        _check_named([space.prior.point], "prior", known)
        if space.search.sampler not in ("gp", "random"):
            raise UserError(f"prior: search.sampler {space.search.sampler} takes none; use gp, the default")
        if len(space.search.objectives) > 1:
            raise UserError("prior: a search with several objectives takes none; give points under first")
    if space.finals and space.finals.combine not in (None, Combine()) and not combined_cells(space):
        raise UserError(
            f"finals.combine: no cell searches settings of a method whose generator's weights are tuned "
            f"({', '.join(TUNED)}) in the task distillation, so there are no generators to combine"
        )
    seen: set[str] = set()
    for cell in cells(space):
        try:
            if cell.label in seen:
                raise UserError("appears twice")
            seen.add(cell.label)
            _check_cell(cell)
        except UserError as error:
            raise UserError(f"cell {cell.label}: {error}") from None
    if unknown := [one.cell for one in space.earlier if one.cell not in seen]:
        raise UserError(f"earlier: {unknown[0]!r} is none of the cells ({', '.join(sorted(seen))})")


def _check_named(points: Sequence[Mapping[str, Scalar]], what: str, known: set[str]) -> None:
    for name in (name for point in points for name in point):
        if name not in known:
            raise UserError(f"{what}: {name!r} is none of the parameters ({', '.join(sorted(known)) or 'none'})")


def check_numbers(space: Space, data_dir: Path | None) -> None:
    """Refuse a space with more images than its sets have, or fewer than a batch, as far as it shows without loading.

    Raises:
        UserError: the first fault, with its cell.
    """
    conditions = space.conditions()
    for cell in cells(space):
        try:
            for config, varies, _ in itertools.islice(cell.branches(conditions.__contains__), MAX_TRIALS):
                numbers.check_numbers(config, data_dir)
                for name, spec in varies.items():
                    for value in _samples(spec) if name.startswith(NUMBERS) else ():
                        numbers.check_numbers(trial_config(config.model_dump(mode="json"), {name: value}), data_dir)
        except UserError as error:
            raise UserError(f"cell {cell.label}: {error}") from None


def check_budget(space: Space) -> None:
    """Refuse a space whose number of trials cannot be chosen by a time budget.

    Raises:
        UserError: says why.
    """
    if space.search.sampler == "grid":
        raise UserError("--budget: search.sampler grid runs every combination, whatever it takes; use gp or random")
    if not any(cell.varies() for cell in cells(space)):
        raise UserError("--budget: no cell of the space has parameters, so there is no search to fit into it")


def _check_cell(cell: Cell) -> None:
    space = cell.space
    conditions = space.conditions()
    kinds: dict[str, Any] = {}
    for config, varies, _ in itertools.islice(cell.branches(conditions.__contains__), MAX_TRIALS):
        _check_trial(space, config)
        for name, spec in varies.items():
            # Optuna allows one list, or one kind of range, for each name in a study.
            kind = spec if isinstance(spec, list) else [kind for kind, bounds in spec if bounds]
            if kinds.setdefault(name, kind) != kind:
                raise UserError(f"{name} is not the same list or kind of range under every condition")
            if isinstance(spec, Range) and name.startswith(SHARED):
                raise UserError(f"{name} can vary in a list alone: what trials share is made before the first starts")
            tried = [trial_config(config.model_dump(mode="json"), {name: value}) for value in _samples(spec)]
            for trial in tried:
                _check_trial(space, trial)
            # A study rebuilt from the ledger could not know what was drawn. Weights without effect it leaves out.
            if name.removeprefix("gan.") not in UNTUNED and len(tried) > 1 and len(set(map(normalised, tried))) == 1:
                raise UserError(
                    f"{name} varies, but method {config.method!r} does not use it: put it under a condition"
                )
    believed = [space.prior.point] if space.prior else []
    for what, points in (("earlier", earlier_points(cell)), ("first", space.first), ("prior", believed)):
        for point in points:
            try:
                cell.enqueue(point)
            except UserError as error:
                raise UserError(f"{what}: {error}") from None
    if space.search.sampler == "grid":
        cell.grid()


def _check_trial(space: Space, config: TrialConfig) -> None:
    checks.check(config)
    if space.finals and (changes := space.finals.settings()):
        checks.check(trial_config(config.model_dump(mode="json"), changes))
    checks.check_alone(config)
    if space.finals and space.finals.referee:
        checks.check_tested(config, "finals.referee")
    if config.task == "incremental" and (unknown := set(space.search.objectives) & set(OF_STUDENT)):
        raise UserError(
            f"search.objectives: {' and '.join(sorted(unknown))} cannot be pursued in the task incremental, whose "
            "network is the teacher's own"
        )
    by = space.finals.by if space.finals else None
    if (needed := LABELLED.get(by or "")) and getattr(config.teacher, needed) is None:
        raise UserError(f"finals.by {by!r} needs labelled images, and there are none: name them in teacher.{needed}")
    if space.finals and config.seed in space.finals.seeds:
        raise UserError(f"finals.seeds must not hold the search's own seed {config.seed}")


def _samples(spec: Parameter) -> list[Any]:
    """Return a list's values, or a range's ends and, unless it is of whole numbers, one that is not whole between."""
    if isinstance(spec, list):
        return spec
    low, high = spec.bounds
    return [spec.lowest, high] if spec.int_ else [spec.lowest, low + (high - low) / math.pi, high]
