"""A working copy and its store: what is uploaded, downloaded and left out."""

import time

import pytest

from degan_search.storage import Mirror, RemotePlace, filesystems
from degan_search.system.errors import UserError
from tests.storage.run_files import files, put


class TestMirror:
    """A working copy and its store."""

    def test_round_trip(self, mirrors):
        one, two, _ = mirrors
        for name in ("run.json", "ledger/a.parquet", "ledger/b.parquet", "trials/a/student", "ä b"):
            put(one, name, name.encode(), push=False)
        one.push_all()
        assert one.flush()
        assert one.waiting == set()
        assert two.pull() == 5
        assert files(two.local) == files(one.local)
        assert two.pull() == one.pull() == 0
        put(two, "ledger/c.parquet", b"c")
        assert two.flush()
        assert one.pull("trials") == 0
        assert one.pull("ledger") == 1
        assert files(one.local) == files(two.local)

    def test_nothing_there(self, mirrors):
        one, _, _ = mirrors
        assert one.pull() == 0
        one.push_all()
        assert one.flush(0)
        assert not one.local.exists()

    def test_files_here_alone_stay_and_some_are_fetched(self, mirrors):
        _, two, remote = mirrors
        put(two, "mine", b"x", push=False)
        for name in ("trials/a/samples.png", "trials/a/student", "table.csv"):
            remote.write(name, b"1")
        assert two.pull(only=lambda name: not name.startswith("trials/") or name.endswith("/samples.png")) == 2
        assert set(files(two.local)) == {"mine", "table.csv", "trials/a/samples.png"}
        assert files(two.local)["mine"] == b"x"

    def test_what_is_left_out(self, mirrors):
        one, _, remote = mirrors
        for name in (".writer.json", ".lock", "x.lock", "ray/state", "packed/ledger.parquet", "a/ray/b", "kept/ray"):
            put(one, name, b"x", push=False)
        one.push_all()
        assert one.flush()
        assert remote.names() == {"kept/ray": 1}

    def test_only_what_changed_is_put(self, mirrors, monkeypatch):
        one, two, remote = mirrors
        written = []
        write = RemotePlace.write
        noted = lambda self, name, data: (written.append(name), write(self, name, data))  # noqa: E731
        monkeypatch.setattr(RemotePlace, "write", noted)
        for name in "cab":
            put(one, name, b"1", push=False)
            time.sleep(0.01)
        one.push_all()
        assert one.flush()
        assert written == ["c", "a", "b"], "the oldest first"
        put(one, "a", b"2", push=False)
        again = Mirror(one.local, remote)  # another process
        again.push_all()
        assert again.flush()
        assert written == ["c", "a", "b", "a"]
        two.pull()
        two.push_all()
        assert two.flush()
        assert len(written) == 4, "what was fetched is there"

    def test_the_same_size_but_later_is_fetched(self, mirrors):
        one, two, _ = mirrors
        put(one, "scores/a", b"old")
        assert one.flush()
        assert two.pull() == 1
        time.sleep(1.1)  # a store tells whole seconds
        put(two, "scores/a", b"new")
        assert two.flush()
        assert one.pull() == 1
        assert files(one.local) == {"scores/a": b"new"}

    def test_what_changed_here_and_is_not_put_yet_is_never_replaced(self, mirrors):
        """A driver that was killed before it could send: its files are newer than those in the store."""
        one, _, remote = mirrors
        put(one, "run.json", b"old")
        assert one.flush()
        put(one, "run.json", b"newer", push=False)
        again = Mirror(one.local, remote)
        assert again.pull() == 0
        assert files(one.local) == {"run.json": b"newer"}
        again.push_all()
        assert again.flush()
        assert remote.read("run.json") == b"newer"

    def test_a_torn_or_missing_record_costs_a_put_at_most(self, mirrors):
        one, _, remote = mirrors
        for name in "ab":
            put(one, name, b"1")
        assert one.flush()
        record = one.local / ".stored.jsonl"
        record.write_bytes(record.read_bytes()[:-5] + b"\xff")
        again = Mirror(one.local, remote)
        assert again.pull() == 0
        put(again, "b", b"22")
        assert again.flush()
        assert remote.names() == {"a": 1, "b": 2}
        record.unlink()
        assert Mirror(one.local, remote).pull() == 0

    def test_a_file_that_changes_while_it_waits_is_put_as_it_is_last(self, mirrors):
        one, _, remote = mirrors
        for size in range(40):
            put(one, "state", b"x" * size)
        assert one.flush()
        assert remote.read("state") == b"x" * 39

    def test_a_file_that_is_gone_again_is_not_missed(self, mirrors):
        one, _, remote = mirrors
        one.push("never")
        assert one.flush()
        assert remote.names() == {}

    def test_delete(self, mirrors):
        one, _, remote = mirrors
        put(one, "a", b"1")
        put(one, "b", b"1")
        assert one.flush()
        one.delete("a", "none")
        assert one.flush()
        assert remote.names() == {"b": 1}
        assert set(files(one.local)) == {"b"}
        assert one.pull() == 0
        put(one, "a", b"again")
        assert one.flush()
        assert remote.read("a") == b"again"


class TestOddFiles:
    """Names and files that cannot be uploaded or downloaded."""

    def test_a_store_may_hold_names_that_lie_outside(self, mirrors, monkeypatch):
        one, _, remote = mirrors
        remote.write("good", b"1")
        listed = filesystems.stamps
        names = ("../outside", "a/../../outside", "/outside", "a//b", "./a", ".stored.jsonl", ".hidden/x", "")
        monkeypatch.setattr(filesystems, "stamps", lambda *place: dict.fromkeys(names, (1, 1)) | listed(*place))
        assert one.pull() == 1
        assert [path.name for path in one.local.parent.rglob("*") if path.is_file()] == [".stored.jsonl", "good"]

    def test_a_bad_name_is_refused_here(self, mirrors):
        with pytest.raises(UserError):
            mirrors[0].push("../x")

    def test_one_file_that_cannot_be_read_holds_up_no_other(self, mirrors):
        one, _, remote = mirrors
        (one.local / "locked").mkdir(parents=True)
        loop = one.local / "loop"
        loop.symlink_to("loop")
        one.push("loop")
        put(one, "good", b"1")
        assert not one.flush()
        assert one.waiting == {"loop"}
        assert "loop" in one.fault
        assert remote.names() == {"good": 1}
        loop.unlink()
        assert one.flush()
