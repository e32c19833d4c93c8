"""Places in folders and stores behave alike; a mirror loses nothing, whatever happens to the store."""

import itertools
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from degan_search.storage import LocalPlace, Mirror, RemotePlace, filesystems, place, split_run, working_copy
from degan_search.system.errors import UserError

BIG = bytes(range(256)) * 80_000  # 20 MB


class LikeHdfs(MemoryFileSystem):
    """A file system in which a file is seen while it is written, and a rename replaces nothing."""

    protocol = "like-hdfs"
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("like-hdfs://"))

    def mv(self, path1, path2, **kwargs):
        if self.exists(path2):
            raise FileExistsError(17, "File exists", path2)
        super().mv(path1, path2, **kwargs)


fsspec.register_implementation("like-hdfs", LikeHdfs, clobber=True)


@pytest.fixture
def connect_anew():
    """Connections that were opened with another environment or other time limits are not taken."""
    filesystems.connection.cache_clear()
    yield
    filesystems.connection.cache_clear()


@pytest.fixture
def impatient(monkeypatch, connect_anew):
    """A server that hangs is seen after a second."""
    monkeypatch.setattr(filesystems, "CONNECT_TIMEOUT", 1.0)
    monkeypatch.setattr(filesystems, "REQUEST_TIMEOUT", 1.0)


@pytest.fixture(params=["folder", "s3", "like-hdfs"])
def there(request, tmp_path):
    """An empty place of each kind."""
    if request.param == "s3":
        return place(request.getfixturevalue("s3").uri)
    if request.param == "like-hdfs":
        return place(f"fsspec+like-hdfs:///{tmp_path.name}-{os.urandom(4).hex()}")
    return place(str(tmp_path / "new" / "folder"))


class TestPlace:
    """What each place does."""

    def test_write_read_replace(self, there):
        there.write("one", b"1")
        there.write("a/b/two", b"22")
        assert there.read("one") == b"1"
        assert there.read("a/b/two") == b"22"
        there.write("one", b"longer")
        there.write("a/b/two", b"")
        assert there.read("one") == b"longer"
        assert there.read("a/b/two") == b""

    def test_names_are_relative_to_the_place(self, there):
        assert there.names() == {}
        assert there.names("a") == {}
        for name, data in {"one": b"1", "a/two": b"22", "a/b/three": b"333", "ab/four": b""}.items():
            there.write(name, data)
        assert there.names() == {"one": 1, "a/two": 2, "a/b/three": 3, "ab/four": 0}
        assert there.names("a") == {"a/two": 2, "a/b/three": 3}
        assert there.names("a/b/three") == {"a/b/three": 3}
        assert there.names("none") == {}
        assert there.at("a").names() == {"two": 2, "b/three": 3}
        assert there.at("a").at("b").read("three") == there.at("a/b").read("three") == b"333"

    def test_names_leaves_out_hidden_files(self, there):
        for name in (".hidden", "a/.tmp-1234-x", ".folder/x", "a/seen"):
            there.write(name, b"x")
        assert there.names() == {"a/seen": 1}
        assert there.read(".folder/x") == b"x"

    def test_remove_torn_leaves_whole_files(self, there):
        there.remove_torn()  # nothing is there yet
        for name in ("a/.tmp-1234-x", ".tmp-5678-y", "a/whole", ".hidden"):
            there.write(name, b"x")
        there.remove_torn()
        assert there.names() == {"a/whole": 1}
        assert there.read(".hidden") == b"x"
        for name in ("a/.tmp-1234-x", ".tmp-5678-y"):
            with pytest.raises(FileNotFoundError):
                there.read(name)

    def test_missing(self, there):
        for name in ("none", "a/none"):
            with pytest.raises(FileNotFoundError):
                there.read(name)
        there.write("a/file", b"x")
        for name in ("a", "a/file/under"):
            with pytest.raises(FileNotFoundError):
                there.read(name)

    def test_delete(self, there):
        there.delete("none")
        there.delete("a/none")
        there.write("a/one", b"1")
        there.write("a/two", b"2")
        there.delete("a/one")
        there.delete("a/one")
        assert there.names() == {"a/two": 1}
        there.delete("a/two")
        assert there.names() == {}
        there.write("a/one", b"again")
        assert there.read("a/one") == b"again"

    @pytest.mark.parametrize(
        "name",
        ["", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", ".", "a\\b", "a\0b", "a\nb", "\ud800"],
    )
    def test_bad_names(self, there, name):
        for act in (lambda: there.write(name, b""), lambda: there.read(name), lambda: there.delete(name)):
            with pytest.raises(UserError, match="is no name inside a folder"):
                act()
        with pytest.raises(UserError):
            there.at(name)
        if name:
            with pytest.raises(UserError):
                there.names(name)

    @pytest.mark.parametrize("name", ["ä ö 漢字/ß.txt", "a b+c#d%20e?f&g=h.txt", "🎲", "'quoted\"", "a:b", "a..b"])
    def test_any_other_name(self, there, name):
        if "?" in name and "fsspec" in getattr(there, "uri", ""):
            pytest.skip("fsspec takes ? for a pattern")
        there.write(name, b"x")
        assert there.names() == {name: 1}
        assert there.read(name) == b"x"
        there.at(f"in {name}").write("file", b"in")
        assert there.read(f"in {name}/file") == b"in"

    def test_twenty_megabytes(self, there):
        there.write("big", BIG)
        assert there.names() == {"big": len(BIG)}
        assert there.read("big") == BIG

    def test_pickled_small(self, there):
        there.write("x", b"1")
        copy = pickle.loads(pickle.dumps(there.at("folder")))
        copy.write("y", b"2")
        assert there.read("folder/y") == b"2"
        assert len(pickle.dumps(there)) < 500

    def test_eight_threads(self, there):
        def work(number):
            mine = there.at(f"of-{number}")
            for turn in range(5):
                mine.write("same", bytes([number]) * (turn + 1))
                mine.write(f"file-{turn}", b"x" * turn)
            return mine.read("same")

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [bytes([number]) * 5 for number in range(8)]
        assert len(there.names()) == 8 * 6

    def test_a_reader_sees_one_writing_whole(self, there):
        """They differ in size, so that a reader that asks for the size first would cut one or go past its end."""

        def content(turn):
            return (b"%06d" % turn) * (20 if turn % 2 else 20_000)

        there.write("file", content(0))
        ended = threading.Event()

        def rewrite():
            for turn in itertools.count():
                if ended.is_set():
                    return
                there.write("file", content(turn))

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(rewrite)
            try:
                seen = set()
                while len(seen) < 20:  # HDFS has no file for a moment, between delete and rename
                    seen.add(_unless_missing(there, "file"))
            finally:
                ended.set()
            writing.result()
        assert all(data == content(int(data[:6])) for data in seen - {None})


def _unless_missing(there, name):
    try:
        return there.read(name)
    except FileNotFoundError:
        return None


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    there = place(f"fsspec+like-hdfs:///{tmp_path.name}")
    there.write("a/file", b"old")

    def no_rename(*arguments, **options):
        raise PermissionError(13, "no renaming")

    monkeypatch.setattr(LikeHdfs, "mv", no_rename)
    monkeypatch.setattr(LikeHdfs, "rm_file", no_rename)
    with pytest.raises((OSError, UserError)):
        there.write("a/file", b"new")
    assert there.read("a/file") == b"old"
    assert there.names() == {"a/file": 3}


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


ACTS = {
    "write": lambda there: there.write("x", b"1"),
    "read": lambda there: there.read("x"),
    "names": lambda there: there.names(),
    "delete": lambda there: there.delete("x"),
}


@pytest.mark.parametrize("act", ACTS)
class TestFaultsAtOnce:
    """What no waiting cures is said at once, in plain words; patience would be 300 seconds."""

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


def test_a_process_killed_while_it_puts_leaves_no_half_object(s3):
    """Each object is one byte over and over, so that half of one, or of two, shows."""
    program = (
        "import sys; from degan_search.storage import place; there = place(sys.argv[1])\n"
        "for turn in range(1, 256): print(turn, flush=True); there.write('file', bytes([turn]) * 20_000_000)"
    )
    there = place(s3.uri)
    for begun, wait in ((1, 0.02), (2, 0.05), (2, 0.1)):
        process = subprocess.Popen([sys.executable, "-c", program, s3.uri], stdout=subprocess.PIPE)
        for _ in range(begun):
            process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert there.names() in ({}, {"file": 20_000_000})
        if there.names():
            data = there.read("file")
            assert data == data[:1] * 20_000_000
    assert there.names()


@pytest.fixture
def mirrors(s3, tmp_path):
    """Two machines' copies of one run, and the run in the store."""
    remote = place(s3.uri)
    return Mirror(tmp_path / "one", remote), Mirror(tmp_path / "two", remote), remote


def put(mirror, name, data, push=True):
    LocalPlace(mirror.local).write(name, data)
    if push:
        mirror.push(name)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


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
        for turn in range(40):
            put(one, "state", b"x" * turn)
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


class TestStoreGone:
    """The store goes away and comes back."""

    @pytest.mark.parametrize("how", ["stop", "freeze"])
    def test_nothing_is_lost_and_no_pusher_waits(self, s3, tmp_path, impatient, how):
        """Killed and started again, or hanging: in the middle of large puts and of a pull, and before other things."""
        there, run = place(s3.at("place")), place(s3.at("run"))
        for name in ("x", "gone"):
            there.write(name, b"1")
        one, two = Mirror(tmp_path / "one", run), Mirror(tmp_path / "two", run)
        for number in range(40):
            put(one, f"ledger/{number}", BIG[:500_000])
        assert one.flush()
        with ThreadPoolExecutor(8) as pool:
            pulling = pool.submit(two.pull)
            under_way = [pool.submit(there.write, f"big-{number}", BIG) for number in range(2)]
            time.sleep(0.1)
            getattr(s3, how)()
            for number in range(40, 60):
                put(one, f"ledger/{number}", str(number).encode())
            assert len(one.waiting) == 20
            acts = [
                pool.submit(act)
                for act in (
                    lambda: there.read("x"),
                    lambda: there.names("x"),
                    lambda: there.write("y", b"2"),
                    lambda: there.delete("gone"),
                )
            ]
            assert not one.flush(1.5)
            assert not any(act.done() for act in acts)
            s3.start()
            assert [act.result() for act in [*acts, *under_way]][:2] == [b"1", {"x": 1}]
            pulling.result()
        assert there.names() == {"x": 1, "y": 1, "big-0": len(BIG), "big-1": len(BIG)}
        assert there.read("big-0") == there.read("big-1") == BIG
        assert one.flush()
        assert one.waiting == set()
        two.pull()
        assert files(two.local) == files(one.local)
        assert len(files(two.local)) == 60

    def test_after_patience_the_next_push_tries_again(self, s3, tmp_path, impatient):
        one = Mirror(tmp_path, replace(place(s3.uri), patience=0.1))
        s3.freeze()
        put(one, "a", b"1")
        put(one, "b", b"1")
        assert not one.flush()
        assert one.waiting == {"a", "b"}
        assert "tried for" in one.fault
        s3.thaw()
        time.sleep(0.5)
        assert one.waiting == {"a", "b"}, "it rests until it is asked"
        put(one, "c", b"1")
        assert one.flush()
        assert set(place(s3.uri).names()) == {"a", "b", "c"}

    def test_what_is_refused_waits_too(self, s3, tmp_path):
        one = Mirror(tmp_path, place(s3.uri.replace("s3://", "s3://nobody:wrong@")))
        put(one, "a", b"1")
        assert not one.flush()
        assert one.waiting == {"a"}
        assert "AWS_ACCESS_KEY_ID" in one.fault

    def test_a_process_ends_although_the_store_hangs(self, s3, tmp_path):
        """With a put under way in the background; what is unsent is sent by the next process."""
        program = (
            "import sys; from pathlib import Path; from degan_search.storage import Mirror, filesystems, place\n"
            "filesystems.REQUEST_TIMEOUT = 1\n"
            "mirror = Mirror(Path(sys.argv[1]), place(sys.argv[2])); mirror.push_all(); print(mirror.flush(0.5))"
        )
        (tmp_path / "file").write_bytes(BIG)
        s3.freeze()
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), s3.uri], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
        s3.thaw()
        again = Mirror(tmp_path, place(s3.uri))
        again.push_all()
        assert again.flush()
        assert place(s3.uri).names() == {"file": len(BIG)}
