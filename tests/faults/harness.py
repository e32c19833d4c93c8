"""What fault tests share: a small sweep as a real process, and what must hold of its run whatever happened to it."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from degan_search import ledger
from degan_search.ledger.columns import Cause, Phase, State, config_of
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import cells
from degan_search.system import device
from degan_search.training.loop import DivergedError
from degan_search.trial.inputs import inputs_key, prepare
from degan_search.trial.outcome import files
from degan_search.trial.trial import run as run_trial
from tests.search import tiny_sweep

MAIN = "from degan_search.cli.main import main; main()"
TRIAL = {
    "count": 200,
    "teacher": {
        "dataset": "glyphs/[A-C]",
        "count": 300,
        "network": "lenet",
        "width": 4,
        "fit": {"steps": 100, "steps_per_epoch": 25, "lr": 0.003},
    },
    "student": {"network": "lenet", "width": 4},
    "gan": {"width": 2, "latent": 8, "steps": 120, "batch_size": 16, "batch_of": "used"},
    "distill": {"steps": 90, "steps_per_epoch": 30, "score_images": 64, "pool": 128, "lr": 0.003},
    "probe": {"at": [40, 80], "steps": 20, "batch_size": 32},
    "bank": {"proxy_images": 40, "generators": [[0, 0]], "generated_images": 40},
}
SPACE = {
    "trial": TRIAL,
    "cells": {"proxy": ["digits"], "method": ["degan"]},
    "parameters": {"gan.lambda_e": {"range": [0.0, 10.0]}, "gan.lambda_d": {"range": [0.0, 10.0]}},
    "search": {"trials": 4},
    "asha": {"reduction_factor": 3},
    "finals": {"seeds": [5], "combine": None},
}


class Driver:
    """A command in a process of its own, whose output goes to a file."""

    def __init__(self, folder, *arguments, environment=None, python=sys.executable, main=MAIN):
        self.log = folder / f"driver-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-c", main, *map(str, arguments)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(environment or {})},
                cwd=folder,
                start_new_session=True,
            )

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    def until(self, condition, seconds=600):
        """Wait for a condition; the process must live. Long, as a busy machine starts a sweep in minutes."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            assert time.monotonic() < end, f"not within {seconds} s:\n{self.text}"
            time.sleep(0.05)

    def kill(self, number=signal.SIGKILL):
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.wait(60)

    def wait(self, seconds=900):
        """Return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.text}") from None

    def workers(self):
        """Return the process ids of the driver's trial workers."""
        return [pid for pid in descendants(self.process.pid) if re.match(r"ray::\w*Trainable", command(pid))]


def descendants(pid):
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return found


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def write_space(folder, changes=(), name="tiny"):
    """Write a space file; `changes` are laid over SPACE."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**SPACE, **dict(changes)}, sort_keys=False))
    return file


def share(folder, changes=()):
    """Make here what the trials of a space with these changes share."""
    tiny_sweep.share({**SPACE, **dict(changes)}, folder / "runs" / "cache")


def rows(run):
    """Return the visible ledger files by name, each with a hash of its bytes."""
    parquet = (run / "ledger").glob("[!.]*.parquet")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in parquet}


def still(before, run):
    """Check that the rows of before are there, unchanged; return the rows of now."""
    now = rows(run)
    assert before.items() <= now.items()
    return now


def patch_everywhere(folder, module, code):
    """Let every Python process with this folder in its PYTHONPATH run `code` on a `module` when it has loaded it."""
    (folder / "sitecustomize.py").write_text(f"""
import importlib.abc, importlib.util, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            exec({code!r}, {{"module": module}})
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
""")


def check(run, failed=()):
    """Check a finished run: all trials ran, one row each, nothing left over; `failed` are trials that may fail."""
    space = space_file.load(str(run / "space.yaml"))
    all_cells = cells(space)
    frame = ledger.load(run)
    search, final = (frame[frame["phase"] == phase] for phase in (Phase.SEARCH, Phase.FINAL))
    assert len(frame) == frame["trial_id"].nunique() == len(list((run / "ledger").glob("[!.]*.parquet")))
    assert search.groupby("cell").size().to_dict() == {cell.label: cell.trials() for cell in all_cells if cell.trials()}
    assert not frame.duplicated(["phase", "cell", "config_hash"]).any()
    if space.finals:
        assert set(zip(final["cell"], final["config_seed"], strict=True)) == {
            (cell.label, seed) for cell in all_cells for seed in space.finals.seeds
        }
    lost = frame[(frame["state"] == State.FAIL) & ~frame["trial_id"].isin(failed)]
    for _, row in lost.iterrows():  # some tiny GANs collapse of themselves, and then do so each time
        assert row["cause"] == Cause.DIVERGED, (row["trial_id"], row["reason"])
        config = config_of(row)
        with pytest.raises(DivergedError, match=re.escape(row["reason"])):
            run_trial(config, inputs_of(space, config, run))
    assert {file.stem for file in (run / "jobs").iterdir()} == set(frame["trial_id"])
    for name in frame.loc[frame["state"] == State.COMPLETE, "trial_id"]:
        assert (run / "trials" / name / "student.safetensors").is_file()
    assert frame.loc[frame["state"] == State.COMPLETE, "oracle_accuracy"].notna().all()
    assert not list(run.rglob(".tmp-*"))
    assert not list((run / "trials").glob("*/checkpoint-*"))
    assert (run / "report.html").is_file()
    return frame


def same_as_uninterrupted(run, frame, most=100):
    """Check that each finished trial has the numbers of the same trial run here, in one go."""
    space = space_file.load(str(run / "space.yaml"))
    for _, row in frame[frame["state"] == State.COMPLETE].head(most).iterrows():
        config = config_of(row)
        outcome = run_trial(config, inputs_of(space, config, run))
        assert outcome.metrics["score"] == row["score"], row["trial_id"]
        saved = (run / "trials" / row["trial_id"] / "student.safetensors").read_bytes()
        assert files(outcome)["student.safetensors"] == saved, row["trial_id"]


def inputs_of(space, config, run):
    """Return what a trial was given: the images to compare on are of the first configuration that shares them."""
    device.set_up_torch(1)
    shared = (first for cell in cells(space) for first in cell.shared() if inputs_key(first) == inputs_key(config))
    return prepare(next(shared), None, run.parent / "cache")
