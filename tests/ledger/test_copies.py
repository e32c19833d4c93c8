"""Each row lies in its file twice, in Parquet for everybody and in JSON for this program: both say the same."""

import datetime as dt
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from degan_search import ledger
from degan_search.ledger import pack, row_file
from degan_search.ledger.columns import score_schema, trial_schema
from tests.ledger.rows import full, synthetic

ODD = {
    "reason": 'a "b"\\\n\t\x7f\u2028ä猫😀',
    "score": -0.0,
    "agreement": float("nan"),
    "seconds": 5e-324,
    "gan_seconds": 1.7976931348623157e308,
    "gan_steps": 2**63 - 1,
    "started": dt.datetime(1970, 1, 1, 0, 0, 0, 1, dt.UTC),
    "finished": dt.datetime(2199, 12, 31, 23, 59, 59, 999999, dt.UTC),
    "class_agreement": [0.1, None, float("inf")],
    "reports": [{"budget": 1, "score": float("nan"), "seconds": 1 / 3}, {"budget": 2, "stage": "é"}],
}


@pytest.mark.parametrize("row", [full(trial_schema(), **synthetic()), synthetic(), synthetic(**ODD)])
def test_a_copy_says_what_the_parquet_says(tmp_path, monkeypatch, row):
    file = ledger.write_row(tmp_path, row)
    scores = ledger.write_scores(tmp_path, full(score_schema(), trial_id=row["trial_id"]))
    for written, schema in ((file, trial_schema()), (scores, score_schema())):
        found = pack._readable(written.parent, [written.name], schema, quick=False)
        with monkeypatch.context() as patched:
            patched.setattr(row_file.pq, "ParquetFile", lambda *_, **__: pytest.fail("the Parquet is read"))
            copied = pack._readable(written.parent, [written.name], schema)
        assert copied.schema == found.schema
        assert repr(copied.to_pylist()) == repr(found.to_pylist())  # by `repr` NaN is like NaN, and -0.0 not like 0.0


def odd_copies():
    values = synthetic("search-0001", reason="copied", schema_version=7)
    yield from (b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 100_000)
    for changes in ({"score": "high"}, {"score": [0.5]}, {"gan_steps": 10**400}, {"reason": 3}):
        yield json.dumps(values | changes).encode()
    yield json.dumps(values | {"reason": "\ud800"}).encode()  # no Unicode
    yield json.dumps(values | {"reason": "x" * row_file.COPY_BYTES}).encode()  # too long


def test_where_a_copy_is_none_the_parquet_counts(tmp_path):
    ledger.write_row(tmp_path, synthetic("search-0000"))
    file = ledger.write_row(tmp_path, synthetic("search-0001", reason="parquet"))
    table, expected = pq.read_table(file), ledger.load(tmp_path)
    for text in odd_copies():
        file.write_bytes(row_file.seal(row_file.parquet_bytes(table), row_file.COPY + text))
        pd.testing.assert_frame_equal(ledger.load(tmp_path), expected)


def test_a_copy_without_a_seal_is_not_read(tmp_path):
    file = ledger.write_row(tmp_path, synthetic(reason="parquet"))
    data = file.read_bytes()
    seal, footer = data.index(row_file.SEAL), row_file._footer(data)
    assert b'"reason":"parquet"' in data[:seal]
    forged = data[:seal].replace(b'"reason":"parquet"', b'"reason":"another"')
    file.write_bytes(forged + data[footer:])
    assert list(ledger.load(tmp_path).reason) == ["parquet"]
    file.write_bytes(forged + data[seal:])
    assert ledger.broken(tmp_path) == [file]
