"""The example of docs/python.md runs as it stands, in an empty folder."""

import os
import subprocess
import sys

from documents import ROOT, blocks

CHECKS = """
assert images.shape == (16, 1, 32, 32) and images.abs().max() <= 1
assert (run.trials["state"] == "COMPLETE").all() and len(run.trials) == 2
"""


def test_the_example_runs(tmp_path):
    (example,) = blocks((ROOT / "docs/python.md").read_text(), "python")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("DATA_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", example + CHECKS], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "Search: 2 done" in done.stdout  # what the command prints
    assert "lambda_d" in done.stdout
    assert (tmp_path / "runs/first/report.html").is_file()
