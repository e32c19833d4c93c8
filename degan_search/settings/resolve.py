"""Merges settings, checks them, and hashes them."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from degan_search.settings.trial import PROFILES, ZSKD_PROFILES, TrialConfig
from degan_search.system.errors import UserError

M = TypeVar("M", bound=BaseModel)


def merge(base: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes laid over them, later ones winning.

    A key may be nested (`{"gan": {"steps": 5}}`) or dotted (`{"gan.steps": 5}`). Nothing is modified.
    """
    merged: dict[str, Any] = json.loads(json.dumps(base))
    for change in changes:
        _lay(change, merged)
    return merged


def _lay(change: Mapping[str, Any], settings: dict[str, Any]) -> None:
    """Lay a change over nested settings, which are modified."""
    for key, value in change.items():
        head, _, rest = key.partition(".")
        if rest:
            value = {rest: value}
        if isinstance(value, Mapping):
            if not isinstance(settings.get(head), dict):
                settings[head] = {}
            _lay(value, settings[head])
        else:
            settings[head] = value


def trial_config(*settings: Mapping[str, Any]) -> TrialConfig:
    """Build a trial's configuration from settings laid over the defaults, later ones winning.

    Settings that are given beside a `profile` override those of the profile.

    Raises:
        UserError: an unknown key or a value out of range, named with its place.
    """
    defaults = _defaults()
    return parse(TrialConfig, merge(defaults, *(_with_profiles(merge({}, layer), defaults) for layer in settings)))


@cache
def _defaults() -> dict[str, Any]:
    """Return the settings over which others are laid; nobody may modify them."""
    defaults = TrialConfig().model_dump(mode="json")
    defaults["teacher"]["dataset"] = None  # what it is then, `TeacherConfig` says, by the other settings
    return defaults


def _with_profiles(settings: dict[str, Any], defaults: Any) -> dict[str, Any]:
    known = defaults if isinstance(defaults, dict) else {}  # `parse` names a setting in a wrong place
    below = {
        key: _with_profiles(value, known.get(key)) if isinstance(value, dict) else value
        for key, value in settings.items()
    }
    name = below.get("profile") if "profile" in known else None
    profiles = ZSKD_PROFILES if "scales" in known else PROFILES
    if name == "paper":
        return {key: known[key] for profile in profiles.values() for key in profile} | below
    return (profiles[name] | below) if isinstance(name, str) and name in profiles else below


# A value from an untrusted file may be nested too deeply for `repr`.
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxdict, _SHOWN.maxlist, _SHOWN.maxtuple = 4, 20, 20, 20
_SHOWN.maxstring = _SHOWN.maxlong = _SHOWN.maxother = 200


def parse(model: type[M], values: Any, what: str = "configuration") -> M:
    """Validate values against a model, turning pydantic's list of errors into one message.

    Raises:
        UserError: each fault on one line: where, what value, what would be right.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            place = ".".join(str(part) for part in fault["loc"]) or what
            if fault["type"] == "extra_forbidden":
                faults.append(f"unknown key {place!r} (known here: {', '.join(_known(model, fault['loc']))})")
            else:
                faults.append(f"{place} = {_SHOWN.repr(fault['input'])}: {fault['msg']}")
        raise UserError(f"{what}: " + "; ".join(faults)) from None


def setting_names() -> list[str]:
    """Return the dotted name of each setting of a trial."""
    return [name for name, _ in flatten(TrialConfig().model_dump(mode="json"))]


def setting_value(name: str, value: Any) -> Any:
    """Return a value of the setting with this dotted name as a trial has it, so 0.1 for "0.1"; other settings aside.

    Raises:
        KeyError: no such setting.
        ValueError: the setting cannot have this value; says why.
    """
    try:
        found = _of_setting(name).validate_python(value)
    except ValidationError as error:
        raise ValueError("; ".join(fault["msg"] for fault in error.errors())) from None
    return to_jsonable_python(found)


@cache
def _of_setting(name: str) -> TypeAdapter[Any]:
    *groups, last = name.split(".")
    model: type[BaseModel] = TrialConfig
    for group in groups:
        inner = model.model_fields[group].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            raise KeyError(name)
        model = inner
    field = model.model_fields[last]
    kind: Any = Annotated[field.annotation, field]  # with its bounds
    return TypeAdapter(kind)


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of each leaf of nested settings."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def stable_hash(*parts: BaseModel | Mapping[str, Any] | str | int | None) -> str:
    """Return 16 hexadecimal digits that depend on the parts' values alone, not on process or key order."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return sorted(model.model_fields)
