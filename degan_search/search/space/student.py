"""A student that a space leaves to this project: `student.network: auto`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from degan_search.search.space.schema import Space
from degan_search.settings.resolve import flatten, merge
from degan_search.stages.students import AUTO, NETWORK, with_student
from degan_search.system.errors import UserError

DECISIVE = ("teacher.network", "teacher.width", "teacher.path", "teacher.classes", "teacher.input.")
"""Beginnings of the names of settings by which a student is offered."""


def with_offered(space: Space) -> Space:
    """Return the space with the name of the student that is offered in place of `auto`, so that a run has it.

    Raises:
        UserError: `auto` elsewhere than in `trial`, a teacher that varies beside it, or as `with_student`.
    """
    varied = list(_varied(space))
    if any(name == NETWORK and AUTO in values for name, values in varied):
        raise UserError(f"{NETWORK} {AUTO} can stand under trial alone; among several networks, name each")
    if dict(flatten(merge({}, space.trial))).get(NETWORK) != AUTO:
        return space
    if teachers := sorted({name for name, _ in varied if name.startswith(DECISIVE)}):
        raise UserError(f"{NETWORK} {AUTO} is for one teacher, and {', '.join(teachers)} varies: name a network")
    return space.model_copy(update={"trial": with_student(space.trial)})


def _varied(space: Space) -> Iterator[tuple[str, list[Any]]]:
    """Yield each setting that differs between trials, with the values that are listed."""
    for name, values in space.cells.items():
        yield name, values
    for parameters in (space.parameters, *(when.parameters for when in space.when)):
        for name, spec in parameters.items():
            yield name, spec if isinstance(spec, list) else []
    for when in space.when:
        for name, value in flatten(merge({}, when.trial)):
            yield name, [value]
