"""The networks that settings name, and vouching for the code among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from degan_search.networks import of_code, table


def networks_named(settings: Any, key: str = "") -> set[str]:
    """Return every network that plain settings name, nested or dotted, in lists and conditions too."""
    if isinstance(settings, Mapping):
        return {name for key, value in settings.items() for name in networks_named(value, str(key))}
    if isinstance(settings, list | tuple | set):
        return {name for value in settings for name in networks_named(value, key)}
    return {settings} if isinstance(settings, str) and key.rpartition(".")[2] == "network" else set()


def vouch_for(settings: Any) -> None:
    """Let the code run that plain settings name: they are the user's own."""
    for text in networks_named(settings):
        kind, named = table.kind_of(text)
        if kind.build is of_code.build:
            of_code.vouch(named)
