"""Images read from Parquet in the layout of the Hugging Face hub, batch by batch."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from degan_search.data.files import check_count, decode, plain, reading
from degan_search.data.images import ImageSet, Labels
from degan_search.system import untrusted
from degan_search.system.errors import UserError

LABEL_COLUMNS = ("fine_label", "label")


def _open(path: Path) -> pq.ParquetFile:
    with (
        untrusted.open_file(path, str(path), untrusted.SET_BYTES),
        reading(path, "Parquet"),
    ):  # checks that it is a plain file
        return pq.ParquetFile(path, pre_buffer=False)


def _columns(path: Path, file: pq.ParquetFile) -> tuple[str, str | None]:
    """The name of the image column, and that of the label column if there is one."""
    with reading(path, "Parquet"):
        schema = file.schema_arrow
        found = f"{path} has the columns {', '.join(f'{field.name}: {field.type}' for field in schema)}"
    if not schema.names or not pa.types.is_struct(schema.types[0]) or schema.types[0].get_field_index("bytes") < 0:
        raise UserError(f"{found}; expected the first to be struct<bytes: binary, path: string>")
    if not pa.types.is_binary(schema.types[0].field("bytes").type) or len(set(schema.names)) < len(schema.names):
        raise UserError(f"{found}; expected each name once, and the first to be struct<bytes: binary, path: string>")
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if label and not pa.types.is_integer(schema.field(label).type):
        raise UserError(f"{found}; expected integers in {label}")
    check_count(path, file.metadata.num_rows)  # before any column is read
    return schema.names[0], label


def _class_names(path: Path, schema: pa.Schema, label: str, labels: Labels, known: tuple[str, ...]) -> tuple[str, ...]:
    """The class names in the file's metadata, checked against those known; else "0", "1", ... ."""
    with reading(path, "Parquet with the hub's metadata"):
        about = json.loads((schema.metadata or {}).get(b"huggingface", "{}"))
        named = about.get("info", {}).get("features", {}).get(label, {}).get("names") or []
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise UserError(f"{path} has class names that are no list of text in its metadata")
    numbers = range(min(int(labels.max(initial=-1)) + 1, len(labels)))
    names = tuple(named) or known or tuple(map(str, numbers))
    if known and tuple(map(plain, names)) != known:
        raise UserError(f"{path} has the classes {', '.join(names)}; expected {', '.join(known)}")
    if not np.isin(labels, np.arange(len(names))).all():
        raise UserError(f"column {label} of {path} has labels outside 0..{len(names) - 1}, the number of its classes")
    return known or names


def rows(path: Path) -> int:
    """The number of images in the file, from its footer; UserError if it is no such file."""
    with _open(path) as file:
        _columns(path, file)
        return int(file.metadata.num_rows)


def read(path: Path, known: tuple[str, ...] = (), classes: Sequence[str] | None = None) -> ImageSet:
    """Images and labels of one Parquet file; with `classes`, only the rows of these are decoded.

    With the class names `known` the file must be labelled with these, and its images keep their size;
    without, it is a user's own: 32x32 RGB, named by the metadata key `huggingface`, or "0", "1", ....
    Of the image column `bytes` alone is read, never the file that `path` names.

    Raises:
        UserError: not Parquet, other columns, labels or class names than expected, a broken image, or too much.
    """
    with _open(path) as file:
        image_column, label_column = _columns(path, file)
        if known and label_column is None:
            there = ", ".join(file.schema_arrow.names)
            raise UserError(f"{path} has the columns {there}; expected label or fine_label")
        labels: Labels | None = None
        names: tuple[str, ...] = ()
        kept = np.ones(file.metadata.num_rows, bool)
        if label_column:
            labels = _labels(path, file, label_column)
            names = _class_names(path, file.schema_arrow, label_column, labels, known)
            if classes is not None:
                kept = np.isin(labels, [i for i, name in enumerate(names) if name in classes])
                labels = labels[kept]
        images = decode(_blobs(path, file, image_column, kept), int(kept.sum()), fit=not known)
    return ImageSet(str(path), images, labels, names)


def _labels(path: Path, file: pq.ParquetFile, column: str) -> Labels:
    with reading(path, "Parquet"):
        labels = file.read([column])[column].fill_null(-1).cast(pa.int64())
        if len(labels) != file.metadata.num_rows:
            raise UserError(f"{path} has {file.metadata.num_rows} rows by its footer, and {len(labels)} labels")
        return np.asarray(labels, dtype=np.int64)


def _blobs(path: Path, file: pq.ParquetFile, column: str, kept: np.ndarray) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the kept rows' image files, in batches within BATCH_BYTES even if each row were as large as its column."""
    row = 0
    for group in range(file.metadata.num_row_groups):
        about = file.metadata.row_group(group)
        if not kept[row : row + about.num_rows].any():
            row += about.num_rows
            continue
        largest = max(1, *(about.column(i).total_uncompressed_size for i in range(about.num_columns)))
        size = min(1000, max(1, untrusted.BATCH_BYTES // largest))
        with reading(path, "Parquet"):
            batches = file.iter_batches(size, row_groups=[group], columns=[f"{column}.bytes"], use_threads=False)
        while True:
            with reading(path, "Parquet"):
                batch = next(batches, None)
                if batch is None:
                    break
                blobs = pc.struct_field(batch[column], "bytes")
                if row + len(blobs) > len(kept):
                    raise UserError(f"{path} has more rows in its pages than its footer says")
            for blob in blobs:
                if kept[row]:
                    yield f"the image in row {row} of {path}", io.BytesIO(_bytes(path, row, blob))
                row += 1


def _bytes(path: Path, row: int, blob: pa.BinaryScalar) -> bytes:
    size = blob.as_buffer().size if blob.is_valid else 0
    if size > untrusted.IMAGE_BYTES:
        raise UserError(
            f"the image in row {row} of {path} has {size:,} bytes; at most {untrusted.IMAGE_BYTES:,} are read"
        )
    return blob.as_py() or b""
