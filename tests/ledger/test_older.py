"""Rows of an older version have the settings and the hash that this version gives them."""

import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_ledger import made_ledger

from degan_search import ledger
from degan_search.ledger.columns import config_columns
from degan_search.settings.resolve import trial_config
from tests.ledger.rows import age, synthetic

TRIALS = 12


@pytest.mark.parametrize("pack_from", [3, 100])
def test_a_row_without_a_later_setting_reads_as_one_of_this_version(tmp_path, monkeypatch, pack_from):
    monkeypatch.setattr("degan_search.ledger.pack.PACK_FROM", pack_from)
    run = made_ledger(tmp_path / "run", TRIALS)
    new = ledger.load(run).drop(columns=["config_json", "schema_version"])
    age(run, "gan", "lambda_bn")
    files = [pq.read_table(file) for file in (run / "ledger").glob("*.parquet")]
    assert not {file["config_hash"][0].as_py() for file in files} & set(new["config_hash"])
    for _ in range(2):  # packs, if it does; then reads the pack
        pd.testing.assert_frame_equal(ledger.load(run).drop(columns=["config_json", "schema_version"]), new)
    assert (run / "packed").exists() == (pack_from < TRIALS)


def test_a_configuration_that_this_version_does_not_know_stays(tmp_path):
    for number, text in enumerate(("{", '{"gone": 1}', '{"gan": {"lambda_e": -1}}', None)):
        row = config_columns(trial_config({"gan.size": 16})) | {"config_hash": "old", "config_json": text}
        ledger.write_row(tmp_path, synthetic(f"search-{number:04}", **row))
    new = ledger.load(tmp_path).drop(columns="schema_version")
    for file in (tmp_path / "ledger").glob("*.parquet"):
        table = pq.read_table(file)
        place = table.schema.get_field_index("schema_version")
        pq.write_table(table.set_column(place, "schema_version", [[0]]), file)
    pd.testing.assert_frame_equal(ledger.load(tmp_path).drop(columns="schema_version"), new)
    assert set(new["config_hash"]) == {"old"}
