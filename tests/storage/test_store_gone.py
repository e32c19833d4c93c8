"""A mirror loses nothing while the store is away."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from degan_search.storage import Mirror, place
from tests.storage.run_files import BIG, files, put


class TestStoreGone:
    """The store goes away and comes back."""

    @pytest.mark.parametrize("how", ["stop", "freeze"])
    def test_nothing_is_lost_and_no_pusher_waits(self, s3, tmp_path, impatient, how):
        """The server is killed and started again, or hangs, during large uploads and a download."""
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
        """With an upload under way in the background; the next process uploads what is missing."""
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
