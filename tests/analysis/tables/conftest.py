"""A run of rows that no trial measured, for the tables' tests."""

import pytest
from made_ledger import Sweep


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)  # nobody needs these rows after a power cut
    return Sweep(tmp_path / "x")
