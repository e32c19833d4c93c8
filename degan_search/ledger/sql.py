"""SQL over the ledgers of runs, by DuckDB: it can read three tables, write nothing, and reach no file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from degan_search.ledger.columns import REPORT_COLUMNS, SCORE_METRICS, score_schema, trial_schema
from degan_search.ledger.read import Run, curves, load
from degan_search.system.errors import UserError

SHUT = (
    "set temp_directory = ''",  # what does not fit into memory would be written beside the caller
    "set python_enable_replacements = false",  # else a name in the query may be one of this process's variables
    "set autoinstall_known_extensions = false",
    "set autoload_known_extensions = false",
    "set enable_external_access = false",
    "set lock_configuration = true",
)
"""What closes a database, in this order: the last keeps a query from opening it again."""


def tables(run: Run | Sequence[Run]) -> dict[str, pa.Table]:
    """Return what a query can name: `trials` and `curves` as of `load` and `curves`, and `scores`.

    `scores` has a row for each trial whose accuracies were measured: run, trial_id, rates in [0, 1], image counts.

    Raises:
        UserError: as `load`.
    """
    frame, points = load(run), curves(run)
    kinds = {field.name: field.type for schema in (trial_schema(), score_schema()) for field in schema}
    kinds |= {field.name: field.type for field in trial_schema().field("reports").type.value_type}
    counts = [name for name in score_schema().names if name.startswith("n_")]
    scored = frame[["run", "trial_id", *SCORE_METRICS, *counts]]
    scored = scored[scored[[*SCORE_METRICS]].notna().any(axis=1)]
    about = ["run", "trial_id", "cell", "phase", "state"]
    shown = {"trials": frame, "curves": points[[*about, *REPORT_COLUMNS]], "scores": scored}
    return {name: _arrow(table, kinds) for name, table in shown.items()}


def query(run: Run | Sequence[Run], text: str) -> pd.DataFrame:
    """Return what one SELECT statement gives over the tables of one run or several.

    Raises:
        UserError: DuckDB is not installed, or refuses the statement; one that is no SELECT, or more than one; and as
            `load`.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise UserError("sql needs duckdb: pip install 'degan-search[sql]'") from None
    with duckdb.connect(":memory:") as database:
        try:
            statements = database.extract_statements(text)
            kinds = [statement.type for statement in statements]
        except (duckdb.Error, ValueError) as error:  # ValueError: of a kind that DuckDB's Python does not know
            raise UserError(f"sql {text!r}: {_first_line(error)}") from None
        if kinds != [duckdb.StatementType.SELECT]:
            raise UserError(f"sql {text!r}: one SELECT statement is needed; nothing can be written, set or loaded")
        for name, table in tables(run).items():
            database.register(name, table)
        for setting in SHUT:
            database.execute(setting)
        try:
            with warnings.catch_warnings():  # of how DuckDB itself uses pandas
                warnings.simplefilter("ignore")
                return database.execute(statements[0]).df()
        except (duckdb.Error, RuntimeError) as error:
            raise UserError(f"sql {text!r}: {_first_line(error)}") from None


def _arrow(frame: pd.DataFrame, kinds: dict[str, pa.DataType]) -> pa.Table:
    """Return a frame with the ledger's own types, also where a column holds nothing."""
    fields = [(str(name), kinds.get(str(name), pa.string())) for name in frame]
    return pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
