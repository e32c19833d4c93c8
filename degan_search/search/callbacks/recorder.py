"""Tune's callback that decides whether a trial is tried again, writes its row, and shows the sweep's progress."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import Cause, Report, State
from degan_search.search.callbacks.attempts import Attempt, Attempts, seconds_held
from degan_search.search.callbacks.progress_bar import ProgressBar
from degan_search.search.callbacks.row import trial_row
from degan_search.search.callbacks.stop import Stop
from degan_search.search.planning.budget import TimeBudget
from degan_search.search.planning.cost_model import CostModel
from degan_search.search.run import faults, tune_dicts
from degan_search.search.run import jobs as job_files
from degan_search.search.run.interrupt import Interruption
from degan_search.search.run.jobs import Job
from degan_search.search.run.results import End, TrialResult
from degan_search.search.suggest.job_queue import Jobs
from degan_search.search.workers import ray_patches


def _nothing(*given: Any) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Rules:
    """What the recorder decides by, and whom it calls."""

    retries: int = 2
    """Further attempts of a trial that a fault cut short."""
    time_limit: float | None = None
    """Of an attempt, in seconds."""
    interruption: Interruption = field(default_factory=Interruption)
    on_file: Callable[[Path], None] = _nothing
    """Called with each file of the run that was written."""
    on_row: Callable[[str, str | None], None] = _nothing
    """Called with a trial and the cause of its failure, if any, once its row is written."""
    time_budget: TimeBudget | None = None
    """Changes how many trials there are while they run."""
    ask_to_end: Callable[[], None] = _nothing
    """Tells all workers to write checkpoints and end."""
    cpus: float = 1.0
    gpus: float = 0.0
    """What a process holds."""

    def held(self, seconds: float) -> dict[str, float]:
        """Return the columns of `columns.HELD` for so many seconds of a process."""
        return {"core_seconds": seconds * self.cpus, "gpu_seconds": seconds * self.gpus}


class Recorder(tune.Callback):  # type: ignore[misc]
    """Decides whether trials are tried again, writes their rows and shows progress.

    Rows that the disk refuses wait in the jobs' outbox; no new trial starts meanwhile. Of the callbacks only
    `on_step_begin` raises: an exception ends Tune's experiment.
    """

    def __init__(
        self,
        folder: Path,
        reasons: dict[str, str],
        jobs: Jobs,
        rules: Rules,
        total: int,
        title: str,
        console: Console,
        cost: CostModel | None = None,
    ) -> None:
        self.folder, self.reasons = folder, reasons
        self.jobs, self.outbox, self.rules = jobs, jobs.outbox, rules
        self.cost = cost or CostModel()
        self.curves: dict[str, list[Report]] = {}
        self.attempts = Attempts()
        self.ended: list[Trial] = []
        """Tune's trials that ended since its last step; Tune reads their results until its next one."""
        self.last_results: dict[str, TrialResult] = {}
        """Of the running trials."""
        self.patience = faults.Patience(self.outbox)
        self.listening = False
        self.bar = ProgressBar(title, total, console)
        self.stop = Stop(rules.interruption, rules.ask_to_end, jobs, self.bar)

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Leave nothing of this in Ray's snapshots: the ledger, not they, is what a run is rebuilt from."""
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Do what `check_sweep` does, and raise what it raises."""
        self.check_sweep()

    def check_sweep(self) -> None:
        """Try again to write what is unwritten, kill workers that hang, and end a sweep that must not go on.

        Called at each step of Tune's, and by the jobs, as Tune may ask these for minutes without a step.

        Raises:
            IncompleteError: the disk has refused for too long, or trial after trial failed.
            InterruptedRun: Ctrl-C or SIGTERM.
        """
        if not self.listening:  # Tune has just set its own handler of signals
            self.rules.interruption.listen()
            self.listening = True
        self.patience.check()
        self.attempts.kill_hung(self.rules.time_limit)
        while self.ended:
            ray_patches.forget(self.ended.pop())
        if self.bar.due:
            self._show()
        self.stop.check(len(self.attempts))

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note when an attempt began, and write the job's file."""
        for job in tune_dicts.from_config(trial.config):
            if job.id not in self.attempts:
                self.attempts[job.id] = Attempt(trial)
                self.cost.begin(job.id, job.kind, time.monotonic(), whole=job.attempt == 1)
                self.outbox.put(f"jobs/{job.id}", partial(self._write_job, job))
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the curves; a trial that goes on from a checkpoint sends again what it measured after that.

        Of several trials in one process, write the rows of those that ended or were stopped.
        """
        jobs = {job.id: job for job in tune_dicts.from_config(trial.config)}
        for sent in tune_dicts.from_result(result):
            self.curves.setdefault(sent.id, [])[sent.reports_from :] = sent.reports
            self.last_results[sent.id] = sent
            if not sent.ended:
                self.cost.reach(sent.id, sent.gan_steps, time.monotonic())
            if len(jobs) > 1 and (sent.ended or sent.id in self.reasons):
                self._finish(jobs[sent.id], _end(sent, self.reasons.get(sent.id)))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the row of a trial that ended or was stopped, unless it is tried again."""
        self.ended.append(trial)
        for job in _unfinished(trial, self.attempts):
            self._finish(job, _end(self.last_results.get(job.id), self.reasons.get(job.id)))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the row of a trial whose worker is gone, unless it is tried again."""
        # `trial.get_error` looks where Tune copies this file to later.
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace") if trial.error_file else ""
        self.ended.append(trial)
        for job in _unfinished(trial, self.attempts):
            if self.stop.since is not None or faults.told_to_end(text):
                self._put_off(job)
            else:
                self._finish(job, _lost(text, self.attempts.get(job.id), self.rules.time_limit))

    def _finish(self, job: Job, end: End) -> None:
        """Try the trial again if a fault ended it and attempts are left; else write its row."""
        last, attempt = self.last_results.pop(job.id, None), self.attempts.end(job.id)
        held = seconds_held(job, last, attempt)
        seconds = faults.wait(end.cause, job.faults + 1, self.rules.retries) if end.cause else None
        if seconds is not None:
            self.cost.cut_short(job.id)
            self.bar.say(f"{job.id} is tried again in {seconds:.0f} s ({job.cell}): {end.reason}", "yellow")
            self.jobs.retry(job.changed(held=held), seconds)
            return
        self.cost.end(job.id, end.state, time.monotonic())
        self.jobs.ended(job, end.state, last)
        begun = attempt.clock if attempt else time.time()
        row = trial_row(job, last, end, self.curves.pop(job.id, []), begun, self.rules.held(held))
        self.bar.count(job.id, job.cell, end.state, row["score"])
        self.outbox.put(job.id, partial(self._write, row))
        self.patience.count(job.id, end.cause, end.reason)
        if end.state is State.FAIL:
            self.bar.say(f"{job.id} failed ({job.cell}): {end.reason}", "red")
        while self.jobs.news:
            self.bar.expect(self.jobs.total, self.jobs.news.pop(0))
        if self.rules.time_budget and (changed := self.rules.time_budget.correct(time.monotonic())):
            self.bar.expect(self.jobs.total, changed)
        self.bar.print_line(self._show())

    def _put_off(self, job: Job) -> None:
        """Let a trial go on later whose process was told to end, and wrote a checkpoint first: that is no fault."""
        last, attempt = self.last_results.pop(job.id, None), self.attempts.end(job.id)
        self.cost.cut_short(job.id)
        if self.stop.since is None:
            self.bar.say(f"{job.id} goes on in {faults.BACK_OFF:.0f} s: its process was told to end", "yellow")
        self.jobs.retry(job.changed(held=seconds_held(job, last, attempt)), faults.BACK_OFF, fault=False)

    def _write(self, row: dict[str, Any]) -> None:
        """Write a row; only then may the trial's checkpoints be deleted."""
        self.rules.on_file(ledger.write_row(self.folder, row))
        self.rules.on_row(row["trial_id"], row["cause"])

    def _write_job(self, job: Job) -> None:
        self.rules.on_file(job_files.write(self.folder, job))

    def _show(self) -> str:
        """Update the bar and return its text."""
        return self.bar.show(len(self.attempts), self.cost.text(self.jobs.waiting(), time.monotonic()))


def _unfinished(trial: Trial, attempts: Attempts) -> list[Job]:
    """Return the jobs of a worker that have not ended."""
    jobs = tune_dicts.from_config(trial.config)
    return [job for job in jobs if len(jobs) == 1 or job.id in attempts]


def _end(last: TrialResult | None, stopped: str | None) -> End:
    """Return how a trial ended: by itself, if its last result says so, else it was stopped early, with this reason."""
    if last is None or last.state is None:
        return End(State.PRUNED, stopped)
    return End(last.state, last.reason, last.cause)


def _lost(text: str, attempt: Attempt | None, limit: float | None) -> End:
    """Return how a trial ended whose worker is gone; `text`: Ray's message about that."""
    cause = faults.cause_of_death(text, attempt.seconds if attempt else 0.0, limit)
    reason = f"not done within the time limit of {limit:g} s" if cause is Cause.TIME_LIMIT else _reason(text)
    return End(State.FAIL, reason, cause)


def _reason(text: str) -> str:
    """Return the line of Ray's error file with the exception's name and message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    said = (named or lines or ["the worker died"])[-1]
    return f"its worker is gone: {said.partition('. ')[0]}" if said.startswith("The actor ") else said
