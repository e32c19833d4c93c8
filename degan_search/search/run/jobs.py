"""Jobs: what a worker is given to run a trial, and their files `jobs/<id>.json` in the run, one a trial that began."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from degan_search.ledger.columns import Cause, Phase, State
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig
from degan_search.settings.values import Model
from degan_search.system.whole_files import write_bytes

if TYPE_CHECKING:
    import pandas as pd

JOBS = "jobs"
Kind = tuple[str, str]
"""Phase and cell: trials of one kind are taken to be equally long."""


class Job(Model):
    """What a worker is given to run one trial."""

    id: str
    """The trial's name in the run."""
    phase: Phase
    number: int
    cell: str
    chosen_by: str | None = None
    """The measure that picked a final run's configuration from a search; it goes into the row."""
    attempt: int = 1
    faults: int = 0
    """How many earlier attempts by this driver were cut short by a fault."""
    referee: bool = False
    """Whether its student is tried on the test images after each epoch; no part of the configuration, as the result
    is the same without."""
    held: float | None = None
    """Seconds that this driver's earlier attempts took; None before they are known."""
    config: TrialConfig

    @model_validator(mode="after")
    def _final(self) -> Self:
        if self.referee and self.phase != Phase.FINAL:
            raise ValueError(f"referee: only final runs see test images, and {self.id} is of phase {self.phase}")
        return self

    @property
    def kind(self) -> Kind:
        """Phase and cell."""
        return str(self.phase), self.cell

    def changed(self, **update: Any) -> Job:
        """Return a copy with some fields at other values."""
        return self.model_copy(update=update)


def new_job(
    phase: Phase, number: int, cell: str, config: TrialConfig, chosen_by: str | None = None, referee: bool = False
) -> Job:
    """Return a trial's first attempt, named after its phase and number."""
    about = {"chosen_by": chosen_by, "referee": referee, "config": config}
    return Job(id=trial_name(phase, number), phase=phase, number=number, cell=cell, **about)


def trial_name(phase: Phase, number: int) -> str:
    """Return a trial's name in its run."""
    return f"{phase}-{number:04d}"


def write(run: Path, begun: Job) -> Path:
    """Write the file of a trial that begins, unless it is there from an earlier attempt; returns the file.

    Raises:
        OSError: the disk refused.
    """
    file = run / JOBS / f"{begun.id}.json"
    if not file.exists():
        text = json.dumps({"job": begun.model_dump(mode="json"), "hash": stable_hash(begun)})
        write_bytes(file, text.encode())
    return file


def read(run: Path) -> tuple[dict[str, Job], list[Path]]:
    """Return the jobs of a run by id, and the files that are broken."""
    jobs: dict[str, Job] = {}
    broken = []
    for file in sorted((run / JOBS).glob("[!.]*.json")):
        try:
            found = json.loads(file.read_bytes())
            begun = Job.model_validate(found["job"])
            if found["hash"] != stable_hash(found["job"]) or begun.id != file.stem:
                raise ValueError("changed")
            jobs[file.stem] = begun
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
        job.changed(attempt=int(attempts.get(name, 0)) + 1, faults=0)
        for name, job in jobs.items()
        if job.phase == phase and (name not in attempts or name in again)
    ]
    return sorted(left, key=lambda job: job.number)


def faulty(frame: pd.DataFrame) -> pd.Series:
    """Return which rows of a ledger are of trials that a fault ended, rather than their configuration."""
    failed: pd.Series = frame["state"] == State.FAIL
    return failed & frame["cause"].notna() & (frame["cause"] != Cause.DIVERGED)


def next_number(run: Path, jobs: Iterable[str], frame: pd.DataFrame, phase: Phase) -> int:
    """Return the number after the last trial of a phase that has a job, a row or a folder in the run."""
    folders = [path.name for path in (run / "trials").glob(f"{phase}-*")]
    numbers = [name.partition("-")[2] for name in (*jobs, *frame["trial_id"], *folders) if name.startswith(f"{phase}-")]
    return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1
