"""A file that changes while the mirror uploads it: the store ends with the new bytes, whoever changed it."""

import os

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from degan_search.storage import Mirror, RemotePlace, place
from tests.storage.run_files import put


class InMemory(MemoryFileSystem):
    """A store that no other test uses; fsspec's own is shared by all."""

    protocol = "in-memory"
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("in-memory://"))


fsspec.register_implementation("in-memory", InMemory, clobber=True)


@pytest.fixture
def mirror(tmp_path):
    """A folder and its copy in a store in memory."""
    return Mirror(tmp_path, place(f"fsspec+in-memory:///{os.urandom(8).hex()}"))


@pytest.fixture
def meanwhile(monkeypatch):
    """What a test does during the upload of a file: for each name, once, after its bytes were read."""
    acts, write = {}, RemotePlace.write

    def slow(self, name, data):
        if name in acts:
            acts.pop(name)()
        write(self, name, data)

    monkeypatch.setattr(RemotePlace, "write", slow)
    return acts


def test_a_change_that_is_pushed_during_the_upload_is_uploaded_too(mirror, meanwhile):
    meanwhile["state"] = lambda: put(mirror, "state", b"new")
    put(mirror, "state", b"old")
    put(mirror, "other", b"1")
    assert mirror.flush()
    assert mirror.waiting == set()
    assert (mirror.remote.read("state"), mirror.remote.read("other")) == (b"new", b"1")


def test_several_changes_during_uploads(mirror, meanwhile):
    def change(left):
        put(mirror, "state", b"%d" % left)
        if left:
            meanwhile["state"] = lambda: change(left - 1)

    meanwhile["state"] = lambda: change(3)
    put(mirror, "state", b"first")
    assert mirror.flush()
    assert mirror.waiting == set()
    assert mirror.remote.read("state") == b"0"


def test_a_deletion_during_the_upload_is_the_last_word(mirror, meanwhile):
    meanwhile["state"] = lambda: mirror.delete("state")
    put(mirror, "state", b"old")
    assert mirror.flush()
    assert mirror.remote.names() == {}


def test_a_change_that_nobody_pushed_is_seen_by_the_next_look(mirror, meanwhile):
    """The record says that the store has the bytes that were read, not those after the upload."""
    meanwhile["state"] = lambda: put(mirror, "state", b"newer", push=False)
    put(mirror, "state", b"old")
    assert mirror.flush()
    assert mirror.remote.read("state") == b"old"
    again = Mirror(mirror.local, mirror.remote)  # another process
    assert again.pull() == 0, "what is newer here is not replaced"
    again.push_all()
    assert again.flush()
    assert mirror.remote.read("state") == b"newer"
