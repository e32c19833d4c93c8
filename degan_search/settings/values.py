"""Types of settings: numbers and names with their ranges."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from degan_search.system.errors import visible


def _visible(text: str) -> str:
    if visible(text) != text:
        raise ValueError("control characters are no part of a name")
    return text


Text = Annotated[str, AfterValidator(_visible)]
"""A file of settings holds no other text, so that what is written is read back."""
Name = Annotated[Text, Field(max_length=1000)]


def _one_text(value: object) -> object:
    """Turn a number of classes to text, and a list of names to lines."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(name, str | int) for name in value):
        return "\n".join(_visible(str(name)) for name in value)
    return value


def _classes(text: str) -> str:
    names = text.split("\n")
    if len(names) > 1:
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise ValueError("names of classes must differ, and none be empty")
        return text
    if text.isdecimal() and not 2 <= int(text) <= MOST_CLASSES:
        raise ValueError(f"there must be 2 to {MOST_CLASSES} classes")
    return _visible(text)


MOST_CLASSES = 100_000
ClassNames = Annotated[str, BeforeValidator(_one_text), AfterValidator(_classes), Field(max_length=2**20)]
"""Names of classes, one on each line; or a number of classes, or the path of a text file with the names."""
# With upper bounds, settings from an untrusted file cannot ask for all of a machine's memory.
Count = Annotated[int, Field(ge=1, le=10**9)]
Width = Annotated[int, Field(ge=1, le=512)]
Batch = Annotated[int, Field(ge=1, le=2**16)]
ImageCount = Annotated[int, Field(ge=1, le=2_500_000)]
"""A number of images, all of which are held in memory."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0, le=10)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
HeldOut = Annotated[float, Field(ge=0, lt=1)]


class Model(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
