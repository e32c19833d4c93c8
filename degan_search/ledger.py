"""The truth about a run: immutable Parquet files, one a trial attempt, each whole or not there.

`runs/x/ledger/<trial_id>-<attempt>.parquet` is written once; `runs/x/scores/<trial_id>.parquet` holds what is
measured after the search. `runs/x/packed/` is a reader's copy of both, for speed alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from degan_search import untrusted
from degan_search.atomic import write_bytes
from degan_search.errors import CONTROLS, BrokenFileWarning, UserError, close_matches, visible
from degan_search.records import SCHEMA_VERSION, Phase, Report, State, score_schema, trial_schema

LEDGER = "ledger"
SCORES = "scores"
PACKED = "packed"
LAST_MOMENT = 7_258_118_400 * 10**6
"""Microseconds from 1970 to 2200."""
PACK_FROM = 100
"""Files not packed yet that make a reader pack a run's rows."""
TRIAL_ID = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
"""It names files: no separator, no leading dot, which would hide the file from readers."""
UNSEEN = "[" + re.sub(r"\\[ux]([0-9a-f]+)", r"\\x{\1}", CONTROLS) + "]"
"""`errors.CONTROLS` as Arrow writes it."""
SEAL, SEALED = b"\xffdegan_search.sha256\xff", 32
"""What stands before a file's hash, and the length of the hash. No text in UTF-8 has a byte 0xff."""
FILE, STAMP = "__file", "__stamp"
"""Columns of a pack: where a row lies, and what its file looked like when it was read."""

Run = str | Path

# What pays for many rows costs time for one.
_PROMOTE: dict[str, Any] = {"promote_options": "default"}
_PLAIN: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}


def write(folder: Path, row: Mapping[str, Any]) -> Path:
    """Write a trial attempt into the run's folder and return its file, which is whole once it is visible.

    Keys are those of `records.trial_schema`, absent ones null; schema_version is filled in. A score that is
    not finite becomes null. Half characters, which are no Unicode, are written out as in `errors.visible`.

    Raises:
        UserError: an unknown key, a value of another type, no or a bad trial_id, attempt, phase or state, what
            `load` would refuse, or an attempt that is already written.
        OSError: the disk refused; nothing is visible then.
    """
    score = row.get("score")
    if isinstance(score, float) and not math.isfinite(score):
        row = {**row, "score": None}
    for name, known in (("phase", Phase), ("state", State)):
        if row.get(name) not in list(known):
            raise UserError(f"{name} = {row.get(name)!r}: one of {', '.join(known)} is needed")
    if not isinstance(row.get("attempt"), int):
        raise UserError(f"attempt = {row.get('attempt')!r}: a whole number is needed")
    reports = row.get("reports") or ()
    _known(reports, Report.__annotations__, "report")
    if any(report.get("budget") is None for report in reports):
        raise UserError("a report without budget")
    file = folder / LEDGER / f"{_trial_id(row)}-{row['attempt']}.parquet"
    if file.exists():
        raise UserError(f"{file} is already written: a further attempt takes the next number")
    return _write(file, row, trial_schema())


def write_scores(folder: Path, row: Mapping[str, Any]) -> Path:
    """Write or replace a trial's accuracies in the run's folder; keys are those of `records.score_schema`.

    Raises:
        UserError: an unknown key, a value of another type, or no or a bad trial_id.
        OSError: the disk refused; what was there before stays.
    """
    return _write(folder / SCORES / f"{_trial_id(row)}.parquet", row, score_schema())


def load(run: Run | Sequence[Run]) -> pd.DataFrame:
    """Return one row a trial, its last attempt with its accuracies beside it, of one run or of several.

    The column `run`, the folder's name, comes first, then those of the schemas without `reports`. What an
    older run did not record is null. A broken file is left out, with a `BrokenFileWarning` that names it. Safe
    while a sweep writes.

    Raises:
        UserError: no such folder, no ledger in it, two runs of one name, rows of a newer schema than this one, or
            a row that is not what its file's name says.
    """
    runs = _runs(run)
    trials = _last(_read(runs, LEDGER, trial_schema(), [n for n in trial_schema().names if n != "reports"]))
    columns = [name for name in score_schema().names if name != "schema_version"]
    scores = _read(runs, SCORES, score_schema(), columns)
    left: pd.DataFrame = trials.to_pandas()
    return left.merge(scores.to_pandas(), how="left", on=["run", "trial_id"], validate="one_to_one")


def curves(run: Run | Sequence[Run]) -> pd.DataFrame:
    """Return one row a report of each trial's last attempt: run, trial_id, cell, phase, state, then Report's.

    Raises:
        UserError: as `load`.
    """
    about = ["trial_id", "cell", "phase", "state"]
    trials = _last(_read(_runs(run), LEDGER, trial_schema(), [*about, "attempt", "reports"])).combine_chunks()
    reports = trials["reports"]
    table = trials.select(["run", *about]).take(pc.list_parent_indices(reports))
    points = pc.list_flatten(reports)
    for name in Report.__annotations__:
        table = table.append_column(name, pc.struct_field(points, name))
    frame: pd.DataFrame = table.to_pandas()
    for trial_id in frame.loc[frame["budget"].isna(), "trial_id"]:
        raise UserError(f"trial {trial_id} has a report without budget, move its file in {LEDGER!r} away to go on")
    return frame


def broken(run: Path) -> list[Path]:
    """Return a run's files of rows and of scores that cannot be read."""
    found = []
    for kind, schema in ((LEDGER, trial_schema()), (SCORES, score_schema())):
        for name in _stamps(run / kind):
            try:
                _row(run / kind / name, schema)
            except UserError:
                found.append(run / kind / name)
    return sorted(found)


def _write(file: Path, row: Mapping[str, Any], schema: pa.Schema) -> Path:
    _known([row], schema.names, "column")
    columns = []
    for field in schema:
        value = SCHEMA_VERSION if field.name == "schema_version" else row.get(field.name)
        if isinstance(value, str):
            value = value.encode("utf-8", "backslashreplace").decode()  # half characters, as in names of files
        try:
            columns.append(pa.array([value], field.type))
            if pa.types.is_integer(field.type) and columns[-1][0].as_py() != value:
                raise ValueError("not a whole number")  # Arrow truncates
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{field.name} = {value!r}: {field.type} is needed ({error})") from None
    data = _sealed(_parquet(pa.table(columns, schema=schema), **_PLAIN))
    _check(file.parent, _table(data, file.name, schema))  # what is written can be read
    write_bytes(file, data)
    return file


def _sealed(data: bytes) -> bytes:
    """Put the hash of a Parquet file's bytes before its footer, where no reader looks: Parquet's own sums leave gaps.

    The footer, whose length stands in the last 8 bytes, refers to what is before it by its distance from the start.
    """
    footer = _footer(data)
    return data[:footer] + SEAL + hashlib.sha256(data).digest() + data[footer:]


def _check_seal(data: bytes) -> None:
    """Raise ValueError if a file's bytes are not those that were sealed; files of other programs have no seal."""
    footer = _footer(data)
    hashed = footer - SEALED
    start = hashed - len(SEAL)
    if start >= 0 and data[start:hashed] == SEAL:
        whole = hashlib.sha256(data[:start] + data[footer:]).digest() == data[hashed:footer]
    else:
        whole = SEAL not in data  # it stands elsewhere: the footer's length is not the one that was written
    if not whole:
        raise ValueError("its bytes are not those that were written")


def _footer(data: bytes) -> int:
    """Return where a Parquet file's footer begins, as the file says."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def _parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, **options)
    return bytes(buffer.getvalue())


def _trial_id(row: Mapping[str, Any]) -> str:
    trial_id = row.get("trial_id")
    if not isinstance(trial_id, str) or not re.fullmatch(TRIAL_ID, trial_id):
        raise UserError(f"trial_id = {trial_id!r}: letters, digits, '-', '_' and '.' are needed")
    return trial_id


def _known(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | Mapping[str, Any], what: str) -> None:
    for key in (key for row in rows for key in row if key not in names):
        raise UserError(f"unknown {what} {key!r}; {close_matches(key, names)}")


def _runs(run: Run | Sequence[Run]) -> list[Path]:
    paths = [Path(one).resolve() for one in ([run] if isinstance(run, str | Path) else run)]
    if not paths:
        raise UserError("no run given: at least one run's folder is needed")
    for path in paths:
        if not path.is_dir():
            beside = [other.name for other in path.parent.glob("*") if other.is_dir()]
            raise UserError(f"no run at {path}" + (f"; {close_matches(path.name, beside)}" if beside else ""))
        if not (path / LEDGER).is_dir():
            raise UserError(f"{path} is no run: it has no folder {LEDGER!r}")
        for link in (path / name for name in (LEDGER, SCORES, PACKED) if (path / name).is_symlink()):
            raise UserError(f"{link} is a link, and what is written would lie elsewhere; copy the folder instead")
    names = [path.name for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two runs are called {name!r}: the name tells their trials apart, rename one")
    return paths


def _read(runs: Sequence[Path], kind: str, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    wanted = [*dict.fromkeys([*columns, "schema_version"])]
    # An empty table first: what a file of an older schema lacks comes as null.
    tables = [pa.schema([*(schema.field(name) for name in wanted), ("run", pa.string())]).empty_table()]
    for run in runs:
        rows = _rows(run, kind, pa.schema([schema.field(name) for name in wanted]), schema)
        _check(run / kind, rows)
        tables.append(rows.drop_columns([FILE]).append_column("run", pa.array([run.name] * len(rows), pa.string())))
    return _visible(pa.concat_tables(tables, promote_options="default").select(["run", *columns]))


def _rows(run: Path, kind: str, wanted: pa.Schema, schema: pa.Schema) -> pa.Table:
    """Return a run's rows in the order of their files, those that are packed from the pack.

    To open thousands of files of one row takes seconds. So a reader that finds many new ones leaves all of them
    in one more file, `packed/<kind>.parquet`; it may be deleted at any time.
    """
    stamps = _stamps(run / kind)
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


def _readable(folder: Path, names: Iterable[str], wanted: pa.Schema) -> pa.Table:
    """Return the rows of a folder's files; of a broken one it warns."""
    rows = [wanted.append(pa.field(FILE, pa.string())).empty_table()]
    for name in names:
        try:
            rows.append(_row(folder / name, wanted))
        except UserError as error:
            warnings.warn(str(error), BrokenFileWarning, stacklevel=2)
    return pa.concat_tables(rows, **_PROMOTE)


def _row(file: Path, wanted: pa.Schema) -> pa.Table:
    """Return the wanted columns of a file of one row, as far as it has them.

    Raises:
        UserError: a broken file, one of another kind or of columns of other types, or absurdly much in it.
    """
    try:
        return _table(untrusted.read(file, "it", untrusted.ROW_BYTES), file.name, wanted)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read and is left out: {error}") from None


def _table(data: bytes, name: str, wanted: pa.Schema) -> pa.Table:
    """Return the row in a file's bytes, the file's name beside it.

    Raises:
        UserError: as `_row`, without the file's name.
    """
    try:
        _check_seal(data)
        # One by one is faster than pyarrow.dataset for files of a single row.
        parquet = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        if parquet.metadata.num_rows != 1:
            raise UserError(f"it has {parquet.metadata.num_rows:,} rows; one is expected")
        size, values = _unpacked(parquet)
        if size > untrusted.ROW_BYTES or values > untrusted.ROW_VALUES:
            raise UserError(f"it unpacks to {size:,} bytes, {values:,} of one column; that is no trial")
        table = parquet.read(columns=wanted.names, use_threads=False)
        if len(set(table.column_names)) < len(table.column_names):
            raise UserError("it has two columns of one name")
        if not table.schema.remove_metadata().equals(wanted):
            table = table.cast(pa.schema([wanted.field(name) for name in table.column_names]))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: what is no UTF-8
        raise UserError(str(error)) from None
    return table.append_column(FILE, pa.array([name] * len(table)))


def _unpacked(file: pq.ParquetFile) -> tuple[int, int]:
    """Return the bytes of a Parquet file's columns in memory, and the most values of one, as its footer says."""
    groups = (file.metadata.row_group(group) for group in range(file.metadata.num_row_groups))
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    sizes = [(column.total_uncompressed_size, column.num_values) for column in columns]
    return sum(map(max, sizes)), max((values for _, values in sizes), default=0)


def _check(folder: Path, rows: pa.Table) -> None:
    """Refuse rows of a newer version, and those that are not what their file's name says.

    A trial's id names files elsewhere: one from somebody else must be a plain name.
    """
    newest = pc.max(rows["schema_version"]).as_py() or 0
    if newest > SCHEMA_VERSION:
        raise UserError(f"rows of schema {newest} in {folder.parent}: this version reads up to {SCHEMA_VERSION}")
    named = ["trial_id", *(["attempt"] if "attempt" in rows.column_names else [])]
    for file, *parts in zip(rows[FILE].to_pylist(), *(rows[name].to_pylist() for name in named), strict=True):
        if not re.fullmatch(TRIAL_ID, str(parts[0])) or file != f"{'-'.join(map(str, parts))}.parquet":
            about = ", ".join(f"{name} {part!r}" for name, part in zip(named, parts, strict=True))
            raise UserError(f"{folder / file} holds the row of {about}, move it away to go on")
    for moment in (rows[name] for name in ("started", "finished") if name in rows.column_names):
        ends = pc.min_max(moment.cast(pa.int64())).as_py()  # years of five figures have no datetime
        if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] < LAST_MOMENT:
            raise UserError(f"{folder} has rows of a time before 1970 or after 2199")
    for name, known in (("phase", Phase), ("state", State)):
        odd = set(rows[name].to_pylist()) - set(known) if name in rows.column_names else ()
        if odd:
            raise UserError(f"{folder} has rows of {name} {', '.join(map(repr, odd))}; known: {', '.join(known)}")


def _visible(rows: pa.Table) -> pa.Table:
    """Return rows without control characters in their text, which could style or forge what a terminal shows."""
    for place, field in enumerate(rows.schema):
        text = pa.types.is_string(field.type) and field.name != "config_json"  # JSON has its own way to write them
        if text and pc.any(pc.match_substring_regex(rows[place], UNSEEN)).as_py():
            values = [None if value is None else visible(value) for value in rows[place].to_pylist()]
            rows = rows.set_column(place, field, pa.array(values, pa.string()))
    return rows


def _stamps(folder: Path) -> dict[str, str]:
    """Return by name what changes when a file does; names that begin with a dot or _ are no rows."""
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
        _check_seal(data)
        file = pq.ParquetFile(pa.BufferReader(data))
        if not file.schema_arrow.remove_metadata().equals(_pack_schema(schema)):
            return empty
        count, size = file.metadata.num_rows, _unpacked(file)[0]
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
    packed = _sealed(_parquet(rows.select(target.names).cast(target), compression="zstd"))
    with contextlib.suppress(OSError):  # somebody else's folder, or a full disk: the rows themselves are there
        write_bytes(pack, packed)


def _pack_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, (FILE, pa.string()), (STAMP, pa.string())])


def _last(trials: pa.Table) -> pa.Table:
    order = trials.select(["run", "trial_id", "attempt"]).to_pandas().sort_values("attempt", kind="stable")
    last = order.drop_duplicates(["run", "trial_id"], keep="last").index.sort_values()
    return trials.take(pa.array(last, pa.int64()))
