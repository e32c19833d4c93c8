"""What `run.json` says of a run: `layout.ABOUT`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from degan_search.storage.layout import ABOUT, CLASSES
from degan_search.system import untrusted


def about_run(run: Path) -> dict[str, Any]:
    """Return what `run.json` says; nothing where there is none, or a broken one."""
    try:
        found = json.loads(untrusted.read(run / ABOUT, ABOUT, untrusted.ROW_BYTES))
    except (ValueError, RecursionError):  # a UserError is one
        return {}
    return found if isinstance(found, dict) else {}


def class_names(run: Path, teacher: str) -> tuple[str, ...] | None:
    """Return the names of a teacher's classes, by its hash; None where `run.json` does not tell them."""
    known = about_run(run).get(CLASSES)
    names = known.get(teacher) if isinstance(known, dict) else None
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
