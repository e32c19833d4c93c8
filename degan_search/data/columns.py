"""Which columns of a Parquet file hold the images and the labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from degan_search.data.choice import Choice
from degan_search.data.files import reading
from degan_search.system.errors import LISTED, NoticeWarning, UserError

LABEL_COLUMNS = ("fine_label", "label")
_PAIR = "struct<bytes: binary, path: string>"


def choose(path: Path, schema: pa.Schema, choice: Choice) -> tuple[str, str | None]:
    """The name of the image column, and that of the label column if there is one.

    Images are the first column if it is the hub's pair of bytes and path, else the only one with bytes; labels are
    `fine_label` or `label`. The user may choose others.

    Raises:
        UserError: no such column, or several that could be meant; a label column that holds neither integers nor text.
    """
    with reading(path, "Parquet"):
        kinds = list(zip(schema.names, schema.types, strict=True))
        listed = ", ".join(f"{name}: {kind}" for name, kind in kinds[:LISTED])
        found = f"{path} has the columns {listed}{', ...' if len(kinds) > LISTED else ''}"
    if len(set(schema.names)) < len(kinds):
        raise UserError(f"{found}; expected each name once")
    label = _label(found, dict(kinds), choice)
    pairs = [name for name, kind in kinds if _is_pair(kind)]
    bare = [name for name, kind in kinds if _is_bytes(kind) and name != label]
    image = _image(found, schema.names, pairs, bare, choice)
    others = [name for name in pairs if name != image]
    if others and not choice.image:
        _tell(f"{path}: images are read from column {image}; ?image={others[0]} behind the path takes others")
    labels = [name for name, kind in kinds if pa.types.is_integer(kind) or _is_string(kind)]
    if label is None and choice.label is None and labels:
        names = ", ".join(labels[:LISTED])
        _tell(f"{path}: read without labels; ?label=NAME behind the path says which column holds them ({names})")
    return image, label


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold class names."""
    return _is_string(kind) or _is_bytes(kind)


def _label(found: str, kinds: dict[str, pa.DataType], choice: Choice) -> str | None:
    if choice.label == "":
        return None
    label = choice.label or next((name for name in LABEL_COLUMNS if name in kinds), None)
    if label and label not in kinds:
        raise UserError(f"{found}; there is no {label!r}")
    if label and not (pa.types.is_integer(kinds[label]) or is_text(kinds[label])):
        raise UserError(f"{found}; expected integers or text in {label} (?label=NAME chooses a column, ?label= none)")
    return label


def _image(found: str, names: Sequence[str], pairs: Sequence[str], bare: Sequence[str], choice: Choice) -> str:
    if choice.image:
        if choice.image not in (*pairs, *bare):
            raise UserError(f"{found}; expected {choice.image!r} to be {_PAIR}, or bytes")
        return choice.image
    if pairs and names[0] == pairs[0]:
        return pairs[0]
    candidates = [*pairs, *bare]
    if len(candidates) > 1:
        wanted = " or ".join(f"?image={name}" for name in candidates[:LISTED])
        raise UserError(f"{found}; several could be the images: write {wanted} behind the path")
    if not candidates:
        raise UserError(f"{found}; expected the first to be {_PAIR}, or one column of bytes")
    return candidates[0]


def _is_pair(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _tell(text: str) -> None:
    warnings.warn(text, NoticeWarning, stacklevel=3)
