"""Rows are whole whenever a writer is killed, and may be read while it writes."""

import subprocess
import sys

from degan_search import ledger

# A writer that a parent kills at random moments, many times; forked, so that imports are paid once.
KILLED = """
import os, random, sys, time
from pathlib import Path
from degan_search import ledger

folder, moments = Path(sys.argv[1]), random.Random(0)
ledger.write_row(folder, {"trial_id": "search-99-0", "attempt": 1, "phase": "search", "state": "COMPLETE"})
for life in range(40):
    child = os.fork()
    if not child:
        for number in range(10_000):
            row = {"trial_id": f"search-{life:02}-{number}", "attempt": 1, "phase": "search", "state": "COMPLETE"}
            ledger.write_row(folder, row)
    time.sleep(moments.uniform(0.001, 0.15))
    os.kill(child, 9)
    os.waitpid(child, 0)
"""


def test_a_killed_writer_leaves_only_whole_files(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=True, timeout=60)
    frame = ledger.load(tmp_path)
    assert len(frame) == len([f for f in (tmp_path / "ledger").iterdir() if f.name[0] != "."])
    assert frame.trial_id.str[:9].nunique() > 3
    lives = frame.trial_id.str.extract(r"search-(\d+)-(\d+)").astype(int)
    # Each life wrote in order: none of its rows is missing before its last.
    assert (lives.groupby(0)[1].agg(lambda written: written.max() + 1 - len(written)) == 0).all()


def test_reading_while_a_sweep_writes(tmp_path):
    (tmp_path / "ledger").mkdir()
    script = KILLED.replace("range(40)", "range(15)")
    seen = [0]
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as writer:
        while writer.poll() is None:
            seen.append(len(ledger.load(tmp_path)))
    assert writer.returncode == 0
    assert seen == sorted(seen)
