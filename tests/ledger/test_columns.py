"""The columns of the ledger: types, directions, and the version of their list."""

import sys
from pathlib import Path

import pyarrow as pa

from degan_search.ledger.columns import (
    METRICS,
    SCHEMA_VERSION,
    score_schema,
    trial_schema,
)


def test_columns_of_each_type_are_derived_from_the_configuration():
    schema = trial_schema()
    assert schema.field("config_seed").type == pa.int64()
    assert schema.field("config_gan_lambda_e").type == pa.float64()
    assert schema.field("config_gan_batch_of").type == pa.string()
    assert schema.field("config_teacher_count").type == pa.int64()
    assert schema.field("config_probe_at").type == pa.list_(pa.int64())
    assert schema.field("config_bank_generators").type == pa.list_(pa.list_(pa.float64()))
    assert len(set(schema.names)) == len(schema.names)


def test_every_metric_is_a_column_with_a_direction():
    measured = {f.name for schema in (trial_schema(), score_schema()) for f in schema if f.type == pa.float64()}
    assert set(METRICS) == {name for name in measured if not name.startswith("config_")}
    assert set(METRICS.values()) == {"max", "min"}


def columns():
    """Names and types of every column, one a line."""
    kinds = {"trial": trial_schema(), "score": score_schema()}
    return "".join(f"{kind} {field.name}: {field.type}\n" for kind, schema in kinds.items() for field in schema)


def test_columns_are_those_of_the_schema_version():
    stored = Path(__file__).with_name(f"schema_v{SCHEMA_VERSION}.txt")
    assert stored.is_file() and columns() == stored.read_text(), (
        "the ledger's columns have changed: raise SCHEMA_VERSION in degan_search/ledger/columns.py, "
        "then python tests/ledger/test_columns.py > tests/ledger/schema_v<SCHEMA_VERSION>.txt"
    )


if __name__ == "__main__":
    sys.stdout.write(columns())
