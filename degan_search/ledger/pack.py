"""Packs many rows of a ledger into one file, so that a long run loads fast."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from degan_search.ledger.columns import SCHEMA_VERSION
from degan_search.ledger.older import up_to_date
from degan_search.ledger.row_file import (
    FILE,
    STAMP,
    check_seal,
    copied_row,
    named,
    parquet_bytes,
    parse_row,
    row_bytes,
    seal,
    unpacked_size,
)
from degan_search.system import untrusted
from degan_search.system.errors import BrokenFileWarning, UserError
from degan_search.system.whole_files import write_bytes

PACKED = "packed"
PACK_FROM = 100
"""Number of files not packed yet that makes a reader pack a run's rows."""

_PROMOTE: dict[str, Any] = {"promote_options": "default"}
"""Columns that one of the tables lacks become null."""


def read_rows(run: Path, kind: str, wanted: pa.Schema, schema: pa.Schema) -> pa.Table:
    """Return a run's rows in the order of their files, those that are packed from the pack.

    To open thousands of files of one row takes seconds. So a reader that finds many new ones copies all rows into
    one more file, `packed/<kind>.parquet`, which may be deleted at any time.
    """
    stamps = stamps_of(run / kind)
    pack = run / PACKED / f"{kind}.parquet"
    packed = _packed(pack, schema, stamps, wanted.names)
    new = sorted(set(stamps).difference(packed[FILE].to_pylist()))
    if len(new) >= PACK_FROM:
        whole = _packed(pack, schema, stamps, schema.names)
        # By hundreds: thousands of tables of one row take gigabytes.
        parts = (new[start : start + PACK_FROM] for start in range(0, len(new), PACK_FROM))
        read = (_readable(run / kind, part, schema).combine_chunks() for part in parts)
        everything = pa.concat_tables([whole, *read], **_PROMOTE)
        _pack(pack, everything, schema, stamps)
        together = everything.select([*wanted.names, FILE])
    else:
        together = pa.concat_tables([packed, _readable(run / kind, new, wanted)], **_PROMOTE)
    return together.sort_by(FILE)


def _readable(folder: Path, names: Sequence[str], wanted: pa.Schema, quick: bool = True) -> pa.Table:
    """Return the rows of a folder's files, those of an older version brought up to date; of a broken one it warns.

    With `quick` what files have in JSON beside their Parquet is read, which is ten times as fast.
    """
    schema = wanted.append(pa.field(FILE, pa.string()))
    rows, copies = [schema.empty_table()], []
    for name in names:
        try:
            with named(folder / name):
                data = row_bytes(folder / name)
                copy = copied_row(data) if quick else None
                if copy is None:
                    rows.append(parse_row(data, name, wanted))
                else:
                    copies.append(copy | {FILE: name})
        except UserError as error:
            warnings.warn(str(error), BrokenFileWarning, stacklevel=2)
    try:
        rows.append(pa.Table.from_pylist(copies, schema))
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        # Values of other types, which this program writes into no copy: the Parquet says what they are.
        return _readable(folder, names, wanted, quick=False)
    return up_to_date(pa.concat_tables(rows, **_PROMOTE))


def stamps_of(folder: Path) -> dict[str, str]:
    """Return each row file's time of change and size by name; names that begin with a dot or _ are not rows."""
    if not folder.is_dir():
        return {}
    stamps = {}
    for entry in os.scandir(folder):
        if entry.name.endswith(".parquet") and entry.name[0] not in "._":
            with contextlib.suppress(FileNotFoundError):  # moved away meanwhile
                about = entry.stat()
                stamps[entry.name] = f"{about.st_mtime_ns} {about.st_size}"
    return stamps


def _packed(pack: Path, schema: pa.Schema, stamps: Mapping[str, str], wanted: Sequence[str]) -> pa.Table:
    """Return the packed rows whose files are there unchanged; none if the pack is broken or of another version."""
    empty = pa.schema([*(schema.field(name) for name in wanted), (FILE, pa.string())]).empty_table()
    try:
        if not pack.is_file():
            return empty
        data = untrusted.read(pack, str(pack), (1 + len(stamps) // 1000) * untrusted.ROW_BYTES)
        check_seal(data)
        file = pq.ParquetFile(pa.BufferReader(data))
        if not file.schema_arrow.remove_metadata().equals(_pack_schema(schema)):
            return empty
        count, size = file.metadata.num_rows, unpacked_size(file)[0]
        if count > len(stamps) or size > (1 + count // 1000) * untrusted.ROW_BYTES:
            return empty
        rows = file.read(columns=[*wanted, FILE, STAMP])
        rows.validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        return empty
    pairs = zip(rows[FILE].to_pylist(), rows[STAMP].to_pylist(), strict=True)
    return rows.filter(pa.array([stamps.get(name) == stamp for name, stamp in pairs], pa.bool_())).drop_columns([STAMP])


def _pack(pack: Path, rows: pa.Table, schema: pa.Schema, stamps: Mapping[str, str]) -> None:
    target = _pack_schema(schema)
    if rows["schema_version"].null_count or pc.max(rows["schema_version"]).as_py() > SCHEMA_VERSION:
        return
    rows = rows.append_column(STAMP, pa.array([stamps[name] for name in rows[FILE].to_pylist()]))
    packed = seal(parquet_bytes(rows.select(target.names).cast(target), compression="zstd"))
    with contextlib.suppress(
        OSError
    ):  # a folder of another user, or a full disk: the rows themselves can still be read
        write_bytes(pack, packed)


def _pack_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, (FILE, pa.string()), (STAMP, pa.string())])
