"""Images read from Parquet, in the layout of the Hugging Face hub or with columns of the user's, batch by batch."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from degan_search.data.choice import PLAIN, Choice
from degan_search.data.columns import choose, is_text
from degan_search.data.files import check_count, decode, plain, reading
from degan_search.data.images import ImageSet, Labels
from degan_search.data.shards import shards
from degan_search.data.wanted import EVERYTHING, Wanted
from degan_search.system import untrusted
from degan_search.system.errors import UserError

CLASS_NAME = 1000
"""Most characters of a label that is text."""
CLASSES = 10_000
"""Most different labels that are text."""


@dataclass(frozen=True)
class _Part:
    """One file: its rows, the columns that are read, and the class names in its metadata."""

    path: Path
    rows: int
    image: str
    bare: bool
    """The image column holds bytes, not the hub's pair of bytes and path."""
    label: str | None
    text: bool
    names: tuple[str, ...]


def _open(path: Path) -> pq.ParquetFile:
    with (
        untrusted.open_file(path, str(path), untrusted.SET_BYTES),
        reading(path, "Parquet"),
    ):  # checks that it is a plain file
        return pq.ParquetFile(path, pre_buffer=False)


def _part(path: Path, choice: Choice) -> _Part:
    with _open(path) as file:
        with reading(path, "Parquet"):
            schema, count = file.schema_arrow, int(file.metadata.num_rows)
        if count < 0:
            raise UserError(f"{path} has {count:,} rows by its footer")
        image, label = choose(path, schema, choice)
        check_count(path, count)  # before any column is read
        text = label is not None and is_text(schema.field(label).type)
        bare = not pa.types.is_struct(schema.field(image).type)
        return _Part(path, count, image, bare, label, text, _names(path, schema, label))


def _parts(path: Path, choice: Choice) -> list[_Part]:
    """The files that a path stands for, which must be alike."""
    parts = [_part(file, choice) for file in shards(path)]
    first = parts[0]
    for part in parts:
        for what, here, there in (
            ("the image column", part.image, first.image),
            ("the label column", part.label, first.label),
            ("text as labels", part.text, first.text),
            ("the class names", part.names, first.names),
        ):
            if here != there:
                raise UserError(f"{what} of {part.path} is {here!r}, of {first.path} {there!r}; shards must be alike")
    check_count(path, sum(part.rows for part in parts))
    return parts


def _names(path: Path, schema: pa.Schema, label: str | None) -> tuple[str, ...]:
    """The class names of a label column in the hub's metadata, or ()."""
    if label is None:
        return ()
    with reading(path, "Parquet with the hub's metadata"):
        about = json.loads((schema.metadata or {}).get(b"huggingface", "{}"))
        named = about.get("info", {}).get("features", {}).get(label, {}).get("names") or []
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise UserError(f"{path} has class names that are no list of text in its metadata")
    return tuple(named)


def _class_names(path: Path, part: _Part, labels: Labels, known: tuple[str, ...]) -> tuple[str, ...]:
    """The class names in the metadata, checked against those known; else "0", "1", ... ."""
    numbers = range(min(int(labels.max(initial=-1)) + 1, len(labels)))
    names = part.names or known or tuple(map(str, numbers))
    if known and tuple(map(plain, names)) != known:
        raise UserError(f"{path} has the classes {', '.join(names)}; expected {', '.join(known)}")
    if not np.isin(labels, np.arange(len(names))).all():
        raise UserError(
            f"column {part.label} of {path} has labels outside 0..{len(names) - 1}, the number of its classes"
        )
    return known or names


def rows(path: Path, choice: Choice = PLAIN) -> int:
    """The number of images in a file or in shards, from their footers; UserError if they are no such files."""
    return sum(part.rows for part in _parts(path, choice))


def read(path: Path, known: tuple[str, ...] = (), choice: Choice = PLAIN, wanted: Wanted = EVERYTHING) -> ImageSet:
    """Images and labels of a Parquet file, of a folder of shards, or of the shards FOLDER/NAME-*.parquet.

    With the class names `known` it must be labelled with these, and its images keep their size; without, it is a
    user's own: RGB, 32x32 or of the wanted size, with labels that are text in sorted order, or numbers named by the
    metadata key `huggingface`, or "0", "1", .... Only the rows of wanted images are decoded.
    Of the hub's image column `bytes` alone is read, never the file that `path` names.

    Raises:
        UserError: not Parquet, other columns, labels or class names than expected, a broken image, or too much.
    """
    parts = _parts(path, choice)
    first, total = parts[0], sum(part.rows for part in parts)
    labels: Labels | None = None
    names: tuple[str, ...] = ()
    if known and (first.label is None or first.text):
        with _open(first.path) as file:
            there = ", ".join(file.schema_arrow.names)
        raise UserError(f"{first.path} has the columns {there}; expected label or fine_label, of integers")
    if first.label:
        if first.text:
            labels, names = _text_labels(path, parts)
        else:
            labels = np.concatenate([_labels(part) for part in parts])
            names = _class_names(path, first, labels, known)
    size = None if known else wanted.decoded
    picked = wanted.pick(path, total, labels, names, size=size)
    kept = np.zeros(total, bool)
    kept[picked.rows] = True
    starts = np.cumsum([0, *(part.rows for part in parts)])
    blobs = (_blobs(part, kept[start : start + part.rows]) for part, start in zip(parts, starts, strict=False))
    images = decode(chain.from_iterable(blobs), len(picked.rows), size, wanted.fit, path, choice.bits)
    return ImageSet(str(path), images, picked.labels, picked.classes)


def _labels(part: _Part) -> Labels:
    column = str(part.label)
    with _open(part.path) as file, reading(part.path, "Parquet"):
        labels = file.read([column])[column].fill_null(-1).cast(pa.int64())
        if len(labels) != part.rows:
            raise UserError(f"{part.path} has {part.rows} rows by its footer, and {len(labels)} labels")
        return np.asarray(labels, dtype=np.int64)


def _text_labels(path: Path, parts: Sequence[_Part]) -> tuple[Labels, tuple[str, ...]]:
    """Labels that are text as numbers in their sorted order, and the text of each."""
    found: dict[str, int] = {}
    numbers: list[int] = []
    for part in parts:
        column = str(part.label)
        for row, batch in _batches(part, column, np.ones(part.rows, bool)):
            for offset, value in enumerate(batch[column]):
                size = value.as_buffer().size if value.is_valid and hasattr(value, "as_buffer") else 0
                with reading(f"the label in row {row + offset} of {part.path}", "text"):
                    text = "" if size > 4 * CLASS_NAME else _text(value)
                if not 0 < len(text) <= CLASS_NAME or len(found) > CLASSES:
                    raise UserError(
                        f"column {column} of {path} holds no class names: there are at most {CLASSES:,}, of 1 to "
                        f"{CLASS_NAME:,} characters (row {row + offset}); ?label=NAME chooses a column, ?label= none"
                    )
                numbers.append(found.setdefault(text, len(found)))
    names = sorted(found)
    place = {found[name]: label for label, name in enumerate(names)}
    return np.array([place[number] for number in numbers], np.int64), tuple(names)


def _text(value: pa.Scalar) -> str:
    content = value.as_py()
    return content.decode() if isinstance(content, bytes) else str(content or "")


def _batches(part: _Part, column: str, kept: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield a column's batches with their first row, within BATCH_BYTES even if a row were as large as its row group.

    Row groups of which no row is kept are passed over.
    """
    row, path = 0, part.path
    with _open(path) as file:
        for group in range(file.metadata.num_row_groups):
            about = file.metadata.row_group(group)
            if not kept[row : row + about.num_rows].any():
                row += about.num_rows
                continue
            # Not the columns' own sizes: for broken ones pyarrow 26 ends the process.
            size = min(1000, max(1, untrusted.BATCH_BYTES // max(1, about.total_byte_size)))
            with reading(path, "Parquet"):
                batches = file.iter_batches(size, row_groups=[group], columns=[column], use_threads=False)
            while True:
                with reading(path, "Parquet"):
                    batch = next(batches, None)
                    if batch is None:
                        break
                    if row + len(batch) > len(kept):
                        raise UserError(f"{path} has more rows in its pages than its footer says")
                yield row, batch
                row += len(batch)
    if row < len(kept):
        raise UserError(f"{path} has {len(kept)} rows by its footer, and {row} in its pages")


def _blobs(part: _Part, kept: np.ndarray) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the kept rows' image files."""
    column = part.image if part.bare else f"{part.image}.bytes"
    for start, batch in _batches(part, column, kept):
        with reading(part.path, "Parquet"):
            blobs = batch[part.image] if part.bare else pc.struct_field(batch[part.image], "bytes")
        for row, blob in enumerate(blobs, start):
            if kept[row]:
                yield f"the image in row {row} of {part.path}", io.BytesIO(_bytes(part.path, row, blob))


def _bytes(path: Path, row: int, blob: pa.BinaryScalar) -> bytes:
    size = blob.as_buffer().size if blob.is_valid else 0
    if size > untrusted.IMAGE_BYTES:
        raise UserError(
            f"the image in row {row} of {path} has {size:,} bytes; at most {untrusted.IMAGE_BYTES:,} are read"
        )
    return blob.as_py() or b""
