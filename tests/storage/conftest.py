"""Fixtures of storage: connections, and two mirrors of one run."""

import pytest

from degan_search.storage import Mirror, filesystems, place


@pytest.fixture
def connect_anew():
    """No connection is used that was made with another environment or other time limits."""
    filesystems.connection.cache_clear()
    yield
    filesystems.connection.cache_clear()


@pytest.fixture
def impatient(monkeypatch, connect_anew):
    """A server that hangs is noticed after a second."""
    monkeypatch.setattr(filesystems, "CONNECT_TIMEOUT", 1.0)
    monkeypatch.setattr(filesystems, "REQUEST_TIMEOUT", 1.0)


@pytest.fixture
def mirrors(s3, tmp_path):
    """Two machines' copies of one run, and the run in the store."""
    remote = place(s3.uri)
    return Mirror(tmp_path / "one", remote), Mirror(tmp_path / "two", remote), remote
