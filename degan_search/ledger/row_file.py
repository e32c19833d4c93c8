"""The bytes of a ledger's row: Parquet that shows when it is broken."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from degan_search.system import untrusted
from degan_search.system.errors import CONTROLS, UserError, close_matches

LAST_MOMENT = 7_258_118_400 * 10**6
"""Microseconds from 1970 to 2200."""
TRIAL_ID = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
"""A trial's id, which names files: no separator, and no leading dot, which would hide the file from readers."""
UNSEEN = "[" + re.sub(r"\\[ux]([0-9a-f]+)", r"\\x{\1}", CONTROLS) + "]"
"""`errors.CONTROLS` as Arrow writes it."""
SEAL, SEALED = b"\xffdegan_search.sha256\xff", 32
"""What stands before a file's hash, and the length of the hash. No text in UTF-8 has a byte 0xff."""
COPY, COPY_BYTES = b"\xffdegan_search.row\xff", 2**19
"""What stands before a row's copy in JSON, and the most bytes of both; a longer copy is not read."""
FILE, STAMP = "__file", "__stamp"
"""Columns of a pack: where a row lies, and what its file looked like when it was read."""


def seal(data: bytes, copy: bytes = b"") -> bytes:
    """Put a row's copy and the hash of all bytes before a Parquet file's footer, where readers skip them.

    Parquet's own checksums do not cover every byte.

    The footer, whose length stands in the last 8 bytes, refers to what is before it by its distance from the start.
    """
    body, footer = data[: _footer(data)] + copy, data[_footer(data) :]
    return body + SEAL + hashlib.sha256(body + footer).digest() + footer


def check_seal(data: bytes) -> int | None:
    """Return where a file's seal begins, None for a file of another program, which has none.

    Raises:
        ValueError: the bytes are not those that were sealed.
    """
    footer = _footer(data)
    hashed = footer - SEALED
    start = hashed - len(SEAL)
    sealed = start >= 0 and data[start:hashed] == SEAL
    # A seal elsewhere: the footer's length is not the one that was written.
    broken = hashlib.sha256(data[:start] + data[footer:]).digest() != data[hashed:footer] if sealed else SEAL in data
    if broken:
        raise ValueError("its bytes are not those that were written")
    return start if sealed else None


def copy_of(row: pa.Table) -> bytes:
    """Return a table's only row in JSON, as `seal` puts it into the row's file; moments are microseconds from 1970.

    To read Parquet takes milliseconds for one row of two hundred columns, and JSON a tenth of one.
    """

    def microseconds(moment: dt.datetime) -> int:
        return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)

    (values,) = row.to_pylist()
    return COPY + json.dumps(values, default=microseconds, ensure_ascii=False, separators=(",", ":")).encode()


def copied_row(data: bytes) -> dict[str, Any] | None:
    """Return a sealed file's row from its copy; None where there is no such copy, so that the Parquet must be read.

    The values may be of any type that JSON has.

    Raises:
        ValueError: as `check_seal`.
    """
    end = check_seal(data)
    if end is None or (start := data.rfind(COPY, max(0, end - COPY_BYTES), end)) < 0:
        return None
    try:
        row = json.loads(data[start + len(COPY) : end])
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _footer(data: bytes) -> int:
    """Return where a Parquet file's footer begins, as the file says."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """Return a table as the bytes of a Parquet file, with these options of `write_table`."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, **options)
    return bytes(buffer.getvalue())


def check_names(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | Mapping[str, Any], what: str) -> None:
    """Raise UserError for a key that is not one of the names; `what` says of what they are names."""
    for key in (key for row in rows for key in row if key not in names):
        raise UserError(f"unknown {what} {key!r}; {close_matches(key, names)}")


def read_row(file: Path, wanted: pa.Schema) -> pa.Table:
    """Return the wanted columns of a file of one row, as far as it has them.

    Raises:
        UserError: a broken file, one of another kind or of columns of other types, or too much in it.
    """
    with named(file):
        return parse_row(row_bytes(file), file.name, wanted)


def row_bytes(file: Path) -> bytes:
    """Return the bytes of a row's file; raises as `untrusted.read`."""
    return untrusted.read(file, "it", untrusted.ROW_BYTES)


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Raise what goes wrong with a row's file as a UserError that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read and is left out: {error}") from None


def parse_row(data: bytes, name: str, wanted: pa.Schema) -> pa.Table:
    """Return the row in a file's bytes, the file's name beside it.

    Raises:
        UserError: as `read_row`, without the file's name.
    """
    try:
        check_seal(data)
        # One by one is faster than pyarrow.dataset for files of a single row.
        parquet = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        if parquet.metadata.num_rows != 1:
            raise UserError(f"it has {parquet.metadata.num_rows:,} rows; one is expected")
        size, values = unpacked_size(parquet)
        if size > untrusted.ROW_BYTES or values > untrusted.ROW_VALUES:
            raise UserError(f"it unpacks to {size:,} bytes, {values:,} of one column; that is no trial")
        table = parquet.read(columns=wanted.names, use_threads=False)
        if len(set(table.column_names)) < len(table.column_names):
            raise UserError("it has two columns of one name")
        if not table.schema.equals(wanted):
            table = table.cast(pa.schema([wanted.field(name) for name in table.column_names]))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: what is no UTF-8
        raise UserError(str(error)) from None
    return table.append_column(FILE, pa.array([name] * len(table)))


def unpacked_size(file: pq.ParquetFile) -> tuple[int, int]:
    """Return the bytes of a Parquet file's columns in memory, and the most values of one, as its footer says."""
    groups = (file.metadata.row_group(group) for group in range(file.metadata.num_row_groups))
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    sizes = [(column.total_uncompressed_size, column.num_values) for column in columns]
    return sum(map(max, sizes)), max((values for _, values in sizes), default=0)
