"""Many rows are packed into one file, and read as before."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from degan_search import ledger
from degan_search.system.errors import BrokenFileWarning
from tests.ledger.rows import synthetic


def test_many_rows_are_packed_and_read_as_they_lie(tmp_path, monkeypatch):
    for number in range(6):
        report = {"budget": number, "score": 0.5, "seconds": 1.0}
        ledger.write_row(tmp_path, synthetic(f"search-{number:04}", score=number / 8, reports=[report]))
        ledger.write_scores(tmp_path, {"trial_id": f"search-{number:04}", "oracle_accuracy": number / 16})
    plain, curves = ledger.load(tmp_path), ledger.curves(tmp_path)
    assert not (tmp_path / "packed").exists()
    monkeypatch.setattr("degan_search.ledger.pack.PACK_FROM", 3)
    pd.testing.assert_frame_equal(ledger.load(tmp_path), plain)  # packs
    pack = tmp_path / "packed" / "ledger.parquet"
    assert len(pq.read_table(pack)) == 6
    pd.testing.assert_frame_equal(ledger.load(tmp_path), plain)
    pd.testing.assert_frame_equal(ledger.curves(tmp_path), curves)

    # What has changed, come or gone since is read anew.
    ledger.write_scores(tmp_path, {"trial_id": "search-0002", "oracle_accuracy": 1.0})
    ledger.write_row(tmp_path, synthetic("search-0006", score=0.9))
    (tmp_path / "ledger" / "search-0001-1.parquet").unlink()
    frame = ledger.load(tmp_path).set_index("trial_id")
    assert list(frame.index) == [f"search-{number:04}" for number in (0, 2, 3, 4, 5, 6)]
    assert frame.loc["search-0002", "oracle_accuracy"] == 1.0
    (tmp_path / "ledger" / "search-0003-1.parquet").write_bytes(b"PAR1")
    with pytest.warns(BrokenFileWarning, match="search-0003-1"):
        assert len(ledger.load(tmp_path)) == 5
    (tmp_path / "ledger" / "search-0003-1.parquet").unlink()

    # A broken pack is passed over, and made anew when it pays.
    pack.write_bytes(pack.read_bytes()[:100])
    assert len(ledger.load(tmp_path)) == 5
    assert len(pq.read_table(pack)) == 5
    data = pack.read_bytes()
    for place in range(0, len(data), len(data) // 20):
        pack.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert len(ledger.load(tmp_path)) == 5
