"""Reads a run's ledger: immutable Parquet files, one for each attempt at a trial, each complete or not there.

`runs/x/ledger/<trial_id>-<attempt>.parquet` is written once; `runs/x/scores/<trial_id>.parquet` holds what is
measured after the search. `runs/x/packed/` is a reader's copy of both, for speed alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from degan_search.ledger.columns import REPORT_COLUMNS, SCHEMA_VERSION, Phase, State, score_schema, trial_schema
from degan_search.ledger.cost import price_of
from degan_search.ledger.pack import PACKED, read_rows, stamps_of
from degan_search.ledger.row_file import FILE, LAST_MOMENT, TRIAL_ID, UNSEEN, read_row
from degan_search.storage.layout import LEDGER, SCORES
from degan_search.system.errors import UserError, close_matches, visible

if TYPE_CHECKING:
    import pandas as pd

Run = str | Path


def load(run: Run | Sequence[Run]) -> pd.DataFrame:
    """Return one row a trial, its last attempt with its accuracies beside it, of one run or of several.

    The column `run`, the folder's name, comes first, then those of the schemas without `reports`. The last two:
    `compared_on` names the proxies on whose images a student is compared with others, those of `bank.proxies`, else its
    own; `price` is the run's, null where it has none. What an older run did not record is null, but for settings, which
    `older.up_to_date` fills in. A broken file is left out, with a `BrokenFileWarning` that names it. Safe while a sweep
    writes.

    Raises:
        UserError: no such folder, no ledger in it, two runs of one name, rows of a newer schema than this one, or
            a row that is not what its file's name says.
    """
    import pandas as pd

    runs = check_runs(run)
    trials = _last(_read(runs, LEDGER, trial_schema(), [n for n in trial_schema().names if n != "reports"]))
    columns = [name for name in score_schema().names if name != "schema_version"]
    scores = _read(runs, SCORES, score_schema(), columns)
    left: pd.DataFrame = trials.to_pandas()
    frame = left.merge(scores.to_pandas(), how="left", on=["run", "trial_id"], validate="one_to_one")
    named = zip(frame["config_bank_proxies"], frame["config_proxy"], strict=True)
    compared_on = [
        proxy if several is None else visible(", ".join(map(str, several))) or proxy for several, proxy in named
    ]
    prices = {path.name: price_of(path) for path in runs}
    text = frame["config_proxy"].dtype
    return frame.assign(
        compared_on=pd.Series(compared_on, frame.index, text),
        price=pd.Series([prices[name] for name in frame["run"]], frame.index, text),
    )


def curves(run: Run | Sequence[Run]) -> pd.DataFrame:
    """Return one row a report of each trial's last attempt: run, trial_id, cell, phase, state, then Report's.

    Raises:
        UserError: as `load`.
    """
    about = ["trial_id", "cell", "phase", "state"]
    trials = _last(_read(check_runs(run), LEDGER, trial_schema(), [*about, "attempt", "reports"])).combine_chunks()
    reports = trials["reports"]
    table = trials.select(["run", *about]).take(pc.list_parent_indices(reports))
    points = pc.list_flatten(reports)
    for name in REPORT_COLUMNS:
        table = table.append_column(name, pc.struct_field(points, name))
    frame: pd.DataFrame = table.to_pandas()
    for trial_id in frame.loc[frame["budget"].isna(), "trial_id"]:
        raise UserError(f"trial {trial_id} has a report without budget, move its file in {LEDGER!r} away to go on")
    return frame


def broken(run: Path) -> list[Path]:
    """Return a run's files of rows and of scores that cannot be read."""
    found = []
    for kind, schema in ((LEDGER, trial_schema()), (SCORES, score_schema())):
        for name in stamps_of(run / kind):
            try:
                read_row(run / kind / name, schema)
            except UserError:
                found.append(run / kind / name)
    return sorted(found)


def check_runs(run: Run | Sequence[Run]) -> list[Path]:
    """Return the whole paths of runs.

    Raises:
        UserError: as `load`, but for what it says of rows.
    """
    paths = [Path(folder).resolve() for folder in ([run] if isinstance(run, str | Path) else run)]
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
        rows = read_rows(run, kind, pa.schema([schema.field(name) for name in wanted]), schema)
        check_rows(run / kind, rows)
        tables.append(rows.drop_columns([FILE]).append_column("run", pa.array([run.name] * len(rows), pa.string())))
    return _visible(pa.concat_tables(tables, promote_options="default").select(["run", *columns]))


def check_rows(folder: Path, rows: pa.Table) -> None:
    """Refuse rows of a newer version, and those that are not what their file's name says.

    A trial's id also names other files, so one from an untrusted ledger must be a plain name.
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
        ends = pc.min_max(moment.cast(pa.int64())).as_py()  # datetime has no years above 9999
        if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] < LAST_MOMENT:
            raise UserError(f"{folder} has rows of a time before 1970 or after 2199")
    for name, known in (("phase", Phase), ("state", State)):
        odd = set(rows[name].to_pylist()) - set(known) if name in rows.column_names else ()
        if odd:
            raise UserError(f"{folder} has rows of {name} {', '.join(map(repr, odd))}; known: {', '.join(known)}")


def _visible(rows: pa.Table) -> pa.Table:
    """Return rows without control characters in their text, which could style or forge what a terminal shows."""
    for place, field in enumerate(rows.schema):
        text = pa.types.is_string(field.type) and field.name != "config_json"  # JSON writes them as escapes
        if text and pc.any(pc.match_substring_regex(rows[place], UNSEEN)).as_py():
            values = [None if value is None else visible(value) for value in rows[place].to_pylist()]
            rows = rows.set_column(place, field, pa.array(values, pa.string()))
    return rows


def _last(trials: pa.Table) -> pa.Table:
    order = trials.select(["run", "trial_id", "attempt"]).to_pandas().sort_values("attempt", kind="stable")
    last = order.drop_duplicates(["run", "trial_id"], keep="last").index.sort_values()
    return trials.take(pa.array(last, pa.int64()))
