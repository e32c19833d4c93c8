"""Rows that no trial measured, for the tests of the ledger."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from degan_search.ledger.columns import SCHEMA_VERSION, Phase, State
from degan_search.settings.resolve import stable_hash


def synthetic(trial_id="search-0000", attempt=1, **changes):
    """A row that no trial measured."""
    return {
        "trial_id": trial_id,
        "attempt": attempt,
        "phase": Phase.SEARCH,
        "state": State.COMPLETE,
        "host": "synthetic",
        **changes,
    }


def example(kind, number):
    """A value of an Arrow type, another one for each number."""
    if pa.types.is_list(kind):
        return [example(kind.value_type, number), example(kind.value_type, number + 1)]
    if pa.types.is_struct(kind):
        return {field.name: example(field.type, number + place) for place, field in enumerate(kind)}
    if pa.types.is_timestamp(kind):
        return dt.datetime(2026, 1, 2, 3, 4, 5, number, tzinfo=dt.UTC)
    if pa.types.is_boolean(kind):
        return bool(number % 2)
    if pa.types.is_string(kind):
        return f"text {number}"
    return number + (0.1 if pa.types.is_floating(kind) else 0)


def full(schema, **changes):
    return {field.name: example(field.type, number) for number, field in enumerate(schema)} | changes


def plain(value):
    """A read value as it was written: arrays as lists, moments as datetimes."""
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value]
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def age(run, group="gan", setting="size"):
    """Make a run's rows those of an older version, which did not have a setting."""
    for file in (run / "ledger").glob("*.parquet"):
        table = pq.read_table(file).drop_columns([f"config_{group}_{setting}"])
        config = json.loads(table["config_json"][0].as_py())
        del config[group][setting]
        old = {"config_json": json.dumps(config), "config_hash": stable_hash(config)}
        for name, value in (old | {"schema_version": SCHEMA_VERSION - 1}).items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), pa.array([value], table.schema.field(name).type))
        pq.write_table(table, file)
