"""Stores that refuse or do not answer: what is said, and when."""

import logging
from dataclasses import replace

import pytest

from degan_search.storage import filesystems, place
from degan_search.system.errors import UserError

ACTS = {
    "write": lambda there: there.write("x", b"1"),
    "read": lambda there: there.read("x"),
    "names": lambda there: there.names(),
    "delete": lambda there: there.delete("x"),
}


@pytest.mark.parametrize("act", ACTS)
class TestFaultsAtOnce:
    """What trying again does not cure is said at once, in plain words; else it would take 300 seconds."""

    def test_no_bucket(self, s3, act):
        with pytest.raises(UserError) as refused:
            ACTS[act](place(s3.server.uri("x", bucket="buckett")))
        assert "s3://buckett/x" in str(refused.value)
        assert "there is no such bucket" in str(refused.value)

    @pytest.mark.parametrize("account", ["nobody:wrong", "degan-search:wrong"])
    def test_wrong_credentials(self, s3, act, account):
        with pytest.raises(UserError) as refused:
            ACTS[act](place(s3.uri.replace("s3://", f"s3://{account}@")))
        for part in ("ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "?endpoint_override=", s3.prefix):
            assert part in str(refused.value)
        assert "wrong@" not in str(refused.value)

    def test_https_asked_of_http(self, s3, act):
        with pytest.raises(UserError, match="add &scheme=http"):
            ACTS[act](place(s3.uri.replace("&scheme=http", "")))


def test_who_may_read_may_not_write(s3, monkeypatch, connect_anew):
    place(s3.uri).write("x", b"1")
    for name, value in s3.reader_env.items():
        monkeypatch.setenv(name, value)
    filesystems.connection.cache_clear()
    there = place(s3.uri)
    assert there.read("x") == b"1"
    assert there.names() == {"x": 1}
    with pytest.raises(UserError, match="access is denied: set AWS_ACCESS_KEY_ID"):
        there.write("x", b"2")


def test_the_endpoint_may_come_from_the_environment(s3, monkeypatch, connect_anew):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{s3.server.endpoint}")
    there = place(s3.uri.partition("?")[0])
    there.write("x", b"1")
    assert place(s3.uri).read("x") == b"1"


@pytest.mark.parametrize("act", ACTS)
def test_a_closed_port_is_said_after_patience(act, monkeypatch, s3, caplog):
    # A library that configures logging in another test may have put it to sleep.
    monkeypatch.setattr(logging.getLogger("degan_search.storage.places"), "disabled", False)
    there = replace(place("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http"), patience=0.5)
    with pytest.raises(OSError, match=r"s3://bucket/x.*Could not connect to server; tried for") as refused:
        ACTS[act](there)
    assert not isinstance(refused.value, UserError)
    assert "127.0.0.1:9" in str(refused.value)
    assert len(caplog.records) == 1
