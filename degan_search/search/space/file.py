"""Space files: read, found by name, written."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic_core import to_jsonable_python

from degan_search.networks.named import vouch_for
from degan_search.search.space.check import check
from degan_search.search.space.schema import Space
from degan_search.search.space.student import with_offered
from degan_search.search.space.values import resolved
from degan_search.settings import yaml_text
from degan_search.settings.resolve import parse
from degan_search.storage.layout import SPACE
from degan_search.system.errors import UserError, close_matches


def load(name: str | Path | Mapping[str, Any], own: bool = True) -> Space:
    """Read a shipped space by name (`demo`), or a user's by path (`my/space.yaml`) or as what such a file holds.

    Args:
        name: as above.
        own: whether the user names it, and so vouches for the code that it names; not where a run has it.

    Raises:
        UserError: no such space, not YAML, an unknown key, a range upside down.
    """
    if isinstance(name, Mapping):
        return _checked(_plain(name), "space", own)
    name, path = str(name), Path(name)
    if path.suffix in (".yaml", ".yml"):
        values = yaml_text.read(path, f"space file {name!r}")
    else:
        known = shipped()
        if name not in known:
            raise UserError(f"space {name!r} is not shipped; {close_matches(name, known)}; your own file ends in .yaml")
        text = files("search_spaces").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        values = yaml_text.parse(text, f"space {name!r}")
    return _checked(values, f"space {name!r}", own)


def of_run(run: Path) -> Space:
    """Read the space of a run, for its results: what it names need not be there any more.

    Raises:
        UserError: no whole space file.
    """
    what = f"space file {str(run / SPACE)!r}"
    return parsed(yaml_text.read(run / SPACE, what), what)


def parsed(values: Any, what: str) -> Space:
    """Return the space of plain values, which is still to be checked; `what` names it in messages.

    Raises:
        UserError: an unknown key, a range upside down, or as `resolved`.
    """
    space = parse(Space, values, what)
    try:
        return resolved(space)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def _checked(values: Any, what: str, own: bool) -> Space:
    space = parsed(values, what)
    if own:
        vouch_for(values)
    space = with_offered(space)
    check(space)
    return space


def _plain(values: Mapping[str, Any]) -> Any:
    """Return a space that Python gave in the values that YAML has.

    Raises:
        UserError: names the value that is none of these.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, np.generic):
            return value.item()
        raise UserError(f"space: {value!r} is of {type(value).__name__}: text, numbers, lists and dicts are needed")

    try:
        return to_jsonable_python(values, fallback=plain, inf_nan_mode="constants")
    except ValueError as error:
        raise UserError(f"space: {error}") from None


def shipped() -> list[str]:
    """Return the names of the spaces that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in files("search_spaces").iterdir() if ".yaml" in file.name)


def dump(space: Space) -> str:
    """Return the space as YAML that `load` reads back to an equal space."""
    text: str = yaml.safe_dump(space.model_dump(mode="json", by_alias=True, exclude_none=False), sort_keys=False)
    return text
