"""Jobs, what a worker is given: `runs/x/jobs/<id>.json` tells of every trial that began, ended or not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from degan_search.atomic import write_bytes
from degan_search.config import stable_hash
from degan_search.records import Cause, Phase, State

JOBS = "jobs"
Job = dict[str, Any]


def job(phase: Phase, number: int, cell: str, config: dict[str, Any], chosen_by: str | None = None) -> Job:
    """Return what a worker is given: the trial's name in the run, its cell, its attempt and its configuration.

    `chosen_by` goes into the row: the measure that picked a final run's configuration from a search. `faults` counts
    what cut short earlier attempts of this driver.
    """
    about = {"phase": str(phase), "number": number, "cell": cell, "chosen_by": chosen_by}
    return {"id": f"{phase}-{number:04d}", **about, "attempt": 1, "faults": 0, "config": config}


def pack(together: Sequence[Job]) -> Job:
    """Return what a worker is given to run several trials in one process: the first one's job, with all in it."""
    return {**together[0], "pack": list(together)} if len(together) > 1 else together[0]


def of(given: Job) -> list[Job]:
    """Return the jobs of what a worker was given."""
    return given.get("pack") or [given]


def results(given: Job, result: Mapping[str, Any]) -> list[tuple[Job, Mapping[str, Any]]]:
    """Return the jobs that a worker's result tells of, each with its own result."""
    if "pack" not in given:
        return [(given, result)]
    own = {one["id"]: one for one in given["pack"]}
    return [(own[told["id"]], told) for told in result.get("pack", ())]


def write(run: Path, begun: Job) -> Path:
    """Write that a trial began, once, and return the file; a later attempt is told of by its row alone.

    Raises:
        OSError: the disk refused.
    """
    file = run / JOBS / f"{begun['id']}.json"
    if not file.exists():
        text = json.dumps({"job": begun, "hash": stable_hash(begun)})
        write_bytes(file, text.encode())
    return file


def read(run: Path) -> tuple[dict[str, Job], list[Path]]:
    """Return the jobs of a run by id, and the files that are broken."""
    jobs: dict[str, Job] = {}
    broken = []
    for file in sorted((run / JOBS).glob("[!.]*.json")):
        try:
            found = json.loads(file.read_bytes())
            if found["hash"] != stable_hash(found["job"]) or found["job"]["id"] != file.stem:
                raise ValueError("changed")
            jobs[file.stem] = found["job"]
        except (ValueError, TypeError, KeyError, RecursionError):
            broken.append(file)
    return jobs, broken


def unfinished(jobs: Mapping[str, Job], frame: pd.DataFrame, phase: Phase, failed_too: bool = False) -> list[Job]:
    """Return the jobs of a phase that have no row, ready for a new attempt.

    `failed_too`: also those whose row says that something broke (see `faulty`), each as its next attempt.
    """
    attempts = dict(zip(frame["trial_id"], frame["attempt"], strict=True))
    again = set(frame.loc[faulty(frame), "trial_id"]) if failed_too else set()
    left = [
        {**one, "attempt": int(attempts.get(name, 0)) + 1, "faults": 0}
        for name, one in jobs.items()
        if one["phase"] == phase and (name not in attempts or name in again)
    ]
    return sorted(left, key=lambda one: one["number"])


def faulty(frame: pd.DataFrame) -> pd.Series:
    """Return which rows of a ledger failed by a fault rather than by their configuration: their result is missing."""
    failed: pd.Series = frame["state"] == State.FAIL
    return failed & frame["cause"].notna() & (frame["cause"] != Cause.DIVERGED)


def next_number(run: Path, jobs: Iterable[str], frame: pd.DataFrame, phase: Phase) -> int:
    """Return the number after the last trial of a phase that has a job, a row or a folder in the run."""
    folders = [path.name for path in (run / "trials").glob(f"{phase}-*")]
    numbers = [name.partition("-")[2] for name in (*jobs, *frame["trial_id"], *folders) if name.startswith(f"{phase}-")]
    return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1
