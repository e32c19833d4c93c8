"""Tune DeGAN: weights, proxy and budget, without the true data.

Sweeps are begun with `sweep` and gone on with by `resume`; `open_run` reads one. Bad input raises `UserError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from degan_search.api.run import Run, open_run
    from degan_search.api.sweeps import resume, sweep
    from degan_search.system.errors import UserError

__all__ = ["Run", "UserError", "open_run", "resume", "sweep"]

# Loaded when they are asked for: a worker, or a look at the version, needs neither torch nor Ray nor pandas.
_MODULES = {"Run": "api.run", "open_run": "api.run", "resume": "api.sweeps", "sweep": "api.sweeps"}
_MODULES["UserError"] = "system.errors"


def __getattr__(name: str) -> Any:
    """Return one of `__all__`."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the names of the module, for completion."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
