"""Rows of older versions, brought up to this one's settings."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyarrow as pa

from degan_search.ledger.columns import SCHEMA_VERSION, config_columns, config_of
from degan_search.system.errors import UserError

NEEDED = ("trial_id", "config_json", "schema_version")


def up_to_date(rows: pa.Table) -> pa.Table:
    """Return rows with the configuration's columns, its hash among them, that this version gives the configuration.

    A row of an older version lacks later settings, with whose defaults its trial ran, and they change the hash. What
    this version cannot read, and the text in `config_json`, stay as they are; so do rows without the columns NEEDED.
    """
    if not set(NEEDED) <= set(rows.column_names):
        return rows
    about = rows.select(NEEDED).to_pylist()
    new: dict[int, dict[str, Any]] = {}
    for place, row in enumerate(about):
        if (row["schema_version"] or 0) < SCHEMA_VERSION:
            with suppress(UserError):
                new[place] = config_columns(config_of(row))
    for column, field in enumerate(rows.schema) if new else ():
        if field.name.startswith("config_") and field.name != "config_json":
            values = rows[column].to_pylist()
            for place, config in new.items():
                values[place] = config[field.name]
            rows = rows.set_column(column, field, pa.array(values, field.type))
    return rows
