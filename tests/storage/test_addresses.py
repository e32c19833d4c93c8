"""Addresses of folders and stores: which place each one means, and which are refused."""

from pathlib import Path

import pytest

from degan_search.storage import LocalPlace, RemotePlace, place, split_run, working_copy
from degan_search.system.errors import UserError


class TestAddresses:
    """`place`, `split_run`, `working_copy`."""

    def test_folders(self, tmp_path):
        assert place("runs") == LocalPlace(Path("runs"))
        assert place("/nfs/a b") == LocalPlace(Path("/nfs/a b"))
        assert place("a:b/c") == LocalPlace(Path("a:b/c"))
        assert place(f"file://{tmp_path}/a%20b") == LocalPlace(tmp_path / "a b")

    @pytest.mark.parametrize(
        "address", ["s3://b/x", "gs://b/x", "hdfs://host:9000/x", "abfs://c@a.dfs.core.windows.net"]
    )
    def test_stores(self, address):
        assert place(address) == RemotePlace(address)

    @pytest.mark.parametrize(
        ("address", "says"),
        [
            ("s4://b/x", "'s4' is no kind of store; known: s3, gs"),
            ("http://b/x", "'http' is no kind of store"),
            ("s3:/b/x", "two slashes, as in s3://"),
            ("s3:///x", "as s3://bucket/runs is one"),
            ("s3://", "as s3://bucket/runs is one"),
            ("s3://b/x#y", "written %23"),
            ("s3://b/a/../x", "'a/../x' is no name"),
            ("s3://b/a//x", "'a//x' is no name"),
            ("file://host/x", "as file:///folder is one"),
            ("s3://key:secret@b/x?endpoint=1", "unknown option 'endpoint'; did you mean endpoint_override"),
        ],
    )
    def test_refused(self, address, says):
        with pytest.raises(UserError) as refused:
            place(address)
        assert says in str(refused.value)
        assert "secret" not in str(refused.value)

    def test_credentials_are_not_shown(self):
        found = place("s3://key:secret@b/x%20y?region=r")
        assert found.address == "s3://b/x y"
        assert "secret" not in repr(found)

    def test_split_run(self):
        options = "?endpoint_override=h:1&scheme=http"
        assert split_run(f"s3://b/runs/x{options}") == (f"s3://b/runs{options}", "x")
        assert split_run("s3://b/my%20run/") == ("s3://b", "my run")
        assert place(split_run(f"s3://b/runs/x{options}")[0]).at("x").uri == f"s3://b/runs/x{options}"
        for address in ("s3://b", "s3://b/", "runs"):
            with pytest.raises(UserError, match="names no run"):
                split_run(address)

    def test_working_copy(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        folder = working_copy("s3://b/runs")
        assert folder.parent == tmp_path / "degan_search"
        assert folder.name.startswith("s3-b-runs-")
        assert working_copy("s3://b/runs/") == working_copy("s3://key:secret@b/runs") == folder
        others = ["s3://b/run/s", "s3://b/runs-", "gs://b/runs", "s3://b/runs?region=r", "s3://b/runs?scheme=http"]
        assert len({folder, *map(working_copy, others)}) == 6
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://h:1")
        assert working_copy("s3://b/runs") == working_copy("s3://b/runs?endpoint_override=h:1&scheme=http") != folder
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        assert working_copy("s3://b/x?region=r&scheme=http") == working_copy("s3://b/x?scheme=http&region=r")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert working_copy("s3://b/runs").parent == tmp_path / "home" / ".cache" / "degan_search"
        with pytest.raises(UserError, match="is a folder"):
            working_copy("runs")
