"""Writes rows of the ledger, each into a file of its own, which is complete or not there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from degan_search.ledger.columns import REPORT_COLUMNS, SCHEMA_VERSION, Phase, State, score_schema, trial_schema
from degan_search.ledger.read import check_rows
from degan_search.ledger.row_file import TRIAL_ID, check_names, copy_of, parquet_bytes, parse_row, seal
from degan_search.storage.layout import LEDGER, SCORES
from degan_search.system.errors import UserError
from degan_search.system.whole_files import write_bytes

# Compression, dictionaries and statistics pay for many rows; for one they only cost time.
_PLAIN: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
    # Parquet's own types say as much, and Arrow's beside them take a third of the file.
    "store_schema": False,
}


def write_row(folder: Path, row: Mapping[str, Any]) -> Path:
    """Write a trial attempt into the run's folder and return its file, which is whole once it is visible.

    Keys are those of `columns.trial_schema`, absent ones null; schema_version is filled in. A score that is
    not finite becomes null. Lone surrogates, which are not Unicode, are written out as in `errors.visible`.

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
    check_names(reports, REPORT_COLUMNS, "report")
    if any(report.get("budget") is None for report in reports):
        raise UserError("a report without budget")
    file = folder / LEDGER / f"{_trial_id(row)}-{row['attempt']}.parquet"
    if file.exists():
        raise UserError(f"{file} is already written: a further attempt takes the next number")
    return _write(file, row, trial_schema())


def write_scores(folder: Path, row: Mapping[str, Any]) -> Path:
    """Write or replace a trial's accuracies in the run's folder; keys are those of `columns.score_schema`.

    Raises:
        UserError: an unknown key, a value of another type, or no or a bad trial_id.
        OSError: the disk refused; what was there before stays.
    """
    return _write(folder / SCORES / f"{_trial_id(row)}.parquet", row, score_schema())


def _write(file: Path, row: Mapping[str, Any], schema: pa.Schema) -> Path:
    check_names([row], schema.names, "column")
    columns = []
    for field in schema:
        value = SCHEMA_VERSION if field.name == "schema_version" else row.get(field.name)
        if isinstance(value, str):
            value = value.encode("utf-8", "backslashreplace").decode()  # lone surrogates, as in file names
        try:
            columns.append(pa.array([value], field.type))
            if pa.types.is_integer(field.type) and columns[-1][0].as_py() != value:
                raise ValueError("not a whole number")  # Arrow truncates
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{field.name} = {value!r}: {field.type} is needed ({error})") from None
    table = pa.table(columns, schema=schema)
    data = seal(parquet_bytes(table, **_PLAIN), copy_of(table))
    check_rows(file.parent, parse_row(data, file.name, schema))  # what is written can be read
    write_bytes(file, data)
    return file


def _trial_id(row: Mapping[str, Any]) -> str:
    trial_id = row.get("trial_id")
    if not isinstance(trial_id, str) or not re.fullmatch(TRIAL_ID, trial_id):
        raise UserError(f"trial_id = {trial_id!r}: letters, digits, '-', '_' and '.' are needed")
    return trial_id
