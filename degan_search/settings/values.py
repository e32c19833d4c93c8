"""Types of settings: numbers and names with their ranges."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from degan_search.system.errors import visible


def _visible(text: str) -> str:
    if visible(text) != text:
        raise ValueError("control characters are no part of a name")
    return text


Text = Annotated[str, AfterValidator(_visible)]
"""A file of settings holds no other text, so that what is written is read back."""
Name = Annotated[Text, Field(max_length=1000)]
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


class Model(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
