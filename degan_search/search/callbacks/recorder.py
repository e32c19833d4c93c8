"""Tune's callback that judges how trials end, writes each to the ledger at once, and shows how the sweep stands."""

from __future__ import annotations

import math
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
from degan_search.search.callbacks.progress_bar import ProgressBar
from degan_search.search.callbacks.row import _row
from degan_search.search.planning.budget import Budget
from degan_search.search.planning.cost_model import CostModel
from degan_search.search.run import faults, tune_dicts
from degan_search.search.run import jobs as jobs_file
from degan_search.search.run.interrupt import Interruption
from degan_search.search.run.jobs import Job
from degan_search.search.run.results import End, TrialResult
from degan_search.search.suggest.job_queue import Jobs
from degan_search.search.workers import ray_patches


def _nothing(*given: Any) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Rules:
    """What decides over trials that break: attempts, time, and whether the user has asked to stop."""

    retries: int = 2
    time_limit: float | None = None
    """Seconds of an attempt."""
    interruption: Interruption = field(default_factory=Interruption)
    saved: Callable[[Path], None] = _nothing
    """Called with each file of the run that was written."""
    ended: Callable[[str, str | None], None] = _nothing
    """Called with a trial and the cause of its failure, if any, once its row is safe."""
    budget: Budget | None = None
    """Chooses how many trials there are while they run."""


@dataclass
class _Attempt:
    """An attempt of a trial that runs, from now on."""

    trial: Trial
    clock: float = field(default_factory=time.time)
    begun: float = field(default_factory=time.monotonic)
    killed: bool = False

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.begun


class Recorder(tune.Callback):  # type: ignore[misc]
    """Judges how trials end, writes their rows and shows progress.

    Rows that the disk refuses wait in the jobs' outbox; no new trial starts meanwhile. Nothing is raised in the
    callbacks that tell of trials, as that would end Tune's experiment: `on_step_begin` alone may end it.
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
        self.attempts: dict[str, _Attempt] = {}
        """Of the trials that run."""
        self.over: list[Trial] = []
        """Tune's trials that ended, whose results nobody looks at any more from the next step on."""
        self.last: dict[str, TrialResult] = {}
        """The last result of each running trial."""
        self.patience = faults.Patience(self.outbox)
        self.listening = False
        self.bar = ProgressBar(title, total, console)

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Leave nothing of this in Ray's snapshots: the ledger, not they, is what a run is rebuilt from."""
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look after the sweep; raises as `look`."""
        self.look()

    def look(self) -> None:
        """Try again to write what is unwritten, and end the sweep where it must not go on.

        Called at each step of Tune's, and by the jobs, as Tune may ask these for minutes without a step.

        Raises:
            IncompleteError: the disk has refused for too long, or trial after trial failed.
            InterruptedRun: Ctrl-C or SIGTERM.
        """
        if not self.listening:  # Tune has just set a handler of its own
            self.rules.interruption.listen()
            self.listening = True
        self.patience.check()
        self._end_the_hung()
        while self.over:
            ray_patches.forget(self.over.pop())
        if self.bar.due:
            self._show()
        self.rules.interruption.raise_if_caught()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note when an attempt began, and write that the trial did."""
        for begun in tune_dicts.from_config(trial.config):
            if begun.id not in self.attempts:
                self.attempts[begun.id] = _Attempt(trial)
                self.cost.begin(begun.id, begun.kind, time.monotonic(), whole=begun.attempt == 1)
                self.outbox.put(f"jobs/{begun.id}", partial(self._write_job, begun))
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the curves; a trial that goes on from a checkpoint tells anew what came after it.

        Of several in one process, write the rows of those that ended or were stopped.
        """
        given = {one.id: one for one in tune_dicts.from_config(trial.config)}
        for told in tune_dicts.from_result(result):
            self.curves.setdefault(told.id, [])[told.reports_from :] = told.reports
            self.last[told.id] = told
            if told.state is None:
                self.cost.reach(told.id, told.budget, time.monotonic())
            if len(given) > 1 and (told.state is not None or told.id in self.reasons):
                self._judge(given[told.id], self._end(given[told.id]))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the row of a trial that ended or was stopped, unless it is tried again."""
        self.over.append(trial)
        for one in self._left(trial):
            self._judge(one, self._end(one))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the row of a trial whose worker is gone, unless it is tried again."""
        # `trial.get_error` looks where Tune copies this file to later.
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
        self.over.append(trial)
        for one in self._left(trial):
            self._judge(one, _lost(text, self.attempts.get(one.id), self.rules.time_limit))

    def _left(self, trial: Trial) -> list[Job]:
        """Return the jobs of a worker that have not ended."""
        given = tune_dicts.from_config(trial.config)
        return [one for one in given if len(given) == 1 or one.id in self.attempts]

    def _end(self, one: Job) -> End:
        """Return how a trial ended by itself, or why it was stopped."""
        last = self.last.get(one.id)
        if last is None or last.state is None:
            return End(State.PRUNED, self.reasons.get(one.id))
        return End(last.state, last.reason, last.cause)

    def _end_the_hung(self) -> None:
        """Kill workers that are past the time limit and have not ended themselves: frozen, or cut off."""
        limit = math.inf if self.rules.time_limit is None else self.rules.time_limit
        for attempt in self.attempts.values():
            if not attempt.killed and attempt.seconds > limit + faults.GRACE:
                attempt.killed = ray_patches.kill_worker(attempt.trial)

    def _judge(self, one: Job, end: End) -> None:
        last = self.last.pop(one.id, None)
        attempt = self.attempts.pop(one.id, None)
        again = faults.wait(end.cause, one.faults + 1, self.rules.retries) if end.cause else None
        self.cost.end(one.id, end.state if again is None else None, time.monotonic())
        if again is not None:
            self.bar.say(f"{one.id} is tried again in {again:.0f} s ({one.cell}): {end.reason}", "yellow")
            self.jobs.take_back(one, again)
            return
        self.jobs.ended(one, end.state, last)
        row = _row(one, last, end, self.curves.pop(one.id, []), attempt.clock if attempt else time.time())
        self.bar.count(one.id, end.state, row["score"])
        self.outbox.put(one.id, partial(self._write, row))
        self.patience.count(one.id, end.cause, end.reason)
        if end.state is State.FAIL:
            self.bar.say(f"{one.id} failed ({one.cell}): {end.reason}", "red")
        if self.rules.budget and (changed := self.rules.budget.correct(time.monotonic())):
            self.bar.expect(self.jobs.total, changed)
        self.bar.print_line(self._show())

    def _write(self, row: dict[str, Any]) -> None:
        """Write a row; only then are the trial's checkpoints needless."""
        self.rules.saved(ledger.write(self.folder, row))
        self.rules.ended(row["trial_id"], row["cause"])

    def _write_job(self, begun: Job) -> None:
        self.rules.saved(jobs_file.write(self.folder, begun))

    def _show(self) -> str:
        """Update the bar and return its text."""
        return self.bar.show(len(self.attempts), self.cost.text(self.jobs.waiting(), time.monotonic()))


def _lost(text: str, attempt: _Attempt | None, limit: float | None) -> End:
    """Return how a trial ended whose worker is gone; `text` is what Ray says of that."""
    cause = faults.cause_of_death(text, attempt.seconds if attempt else 0.0, limit)
    reason = f"not done within the time limit of {limit:g} s" if cause is Cause.TIME_LIMIT else _reason(text)
    return End(State.FAIL, reason, cause)


def _reason(text: str) -> str:
    """Return the line of Ray's error file that says what happened: the exception's own first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    said = (named or lines or ["the worker died"])[-1]
    return f"its worker is gone: {said.partition('. ')[0]}" if said.startswith("The actor ") else said
