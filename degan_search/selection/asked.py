"""What the search of a run was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from degan_search.settings import yaml_text
from degan_search.storage.layout import SPACE
from degan_search.system.errors import UserError


def asked(run: Path, setting: str) -> Any:
    """Return a setting of `search` by a run's space file; None where none can be read, or of a version without it.

    The file alone is read: to make a space of it takes Optuna and torch.
    """
    try:
        return yaml_text.read(run / SPACE, str(run / SPACE))["search"][setting]
    except (UserError, KeyError, TypeError):
        return None
