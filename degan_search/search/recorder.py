"""Tune's callback that judges how trials end, writes each to the ledger at once, and shows how the sweep stands."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from degan_search import ledger, runtime
from degan_search.config import TrialConfig
from degan_search.errors import IncompleteError
from degan_search.records import METRICS, Cause, Report, State, config_columns
from degan_search.search import faults
from degan_search.search import jobs as jobs_file
from degan_search.search.cost import Budget, CostModel, kind
from degan_search.search.interrupt import Interruption
from degan_search.search.jobs import Job
from degan_search.search.searcher import Jobs

SHOW_SECONDS = 5.0
"""Between two texts of the bar while nothing begins or ends."""
RETRY_SECONDS = 5.0
"""Between two tries to write what the disk refused."""
INTEGER_METRICS = ("gan_steps", "distill_steps")


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
        self.folder, self.reasons, self.console, self.title = folder, reasons, console, title
        self.jobs, self.outbox, self.rules = jobs, jobs.outbox, rules
        self.cost = cost or CostModel()
        jobs.look = self.look
        self.curves: dict[str, list[dict[str, Any]]] = {}
        self.started: dict[str, tuple[float, float]] = {}
        """When each running trial's attempt began, by the clock and by the monotonic one."""
        self.running: dict[str, Trial] = {}
        self.over: list[Trial] = []
        """Tune's trials that ended, whose results nobody looks at any more from the next step on."""
        self.last: dict[str, Mapping[str, Any]] = {}
        """The last results of trials that run in one process with others; of one alone, Tune has it."""
        self.ended = dict.fromkeys(State, 0)
        self.faulty: dict[str, str] = {}
        """Trials that failed by a fault, and their reasons."""
        self.in_a_row = 0
        self.tried = 0.0
        """When the unwritten were last tried."""
        self.best: tuple[float, str] = (-math.inf, "")
        self.total = total
        self.shown = 0.0
        """When the bar's text was last made."""
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.task: TaskID = self.bar.add_task(title, total=total)

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
        if not self.tried:  # Tune has just set a handler of its own
            self.rules.interruption.listen()
            self.tried = time.monotonic()
        if self.outbox.unwritten and time.monotonic() - self.tried >= RETRY_SECONDS:
            self.tried = time.monotonic()
            self.outbox.flush()
            if self.outbox.refused_for() > faults.DISK_PATIENCE:
                raise IncompleteError(f"stopped, as the disk takes no rows: {'; '.join(self.outbox.flush())}")
        if self.in_a_row >= faults.HOPELESS:
            last = list(self.faulty.values())[-1]
            raise IncompleteError(f"stopped, as {self.in_a_row} trials in a row failed, the last with: {last}")
        self._end_the_hung()
        self._forget()
        if time.monotonic() - self.shown >= SHOW_SECONDS:
            self._show()
        self.rules.interruption.raise_if_caught()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note when an attempt began, and write that the trial did."""
        for begun in jobs_file.of(trial.config):
            if begun["id"] not in self.started:
                self.running[begun["id"]] = trial
                self.started[begun["id"]] = time.time(), time.monotonic()
                self.cost.begin(begun["id"], kind(begun), time.monotonic(), whole=begun["attempt"] == 1)
                self.outbox.put(f"jobs/{begun['id']}", partial(self._write_job, begun))
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the curves; a trial that goes on from a checkpoint tells anew what came after it.

        Of several in one process, write the rows of those that ended or were stopped.
        """
        for one, told in jobs_file.results(trial.config, result):
            curve = self.curves.setdefault(one["id"], [])
            curve[told.get("reports_from", len(curve)) :] = told.get("reports") or []
            if told.get("state") is None:
                self.cost.reach(one["id"], told["budget"], time.monotonic())
            if "pack" in trial.config:
                self.last[one["id"]] = told
                if told["state"] is not None or one["id"] in self.reasons:
                    self._end(one, told)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the row of a trial that ended or was stopped, unless it is tried again."""
        self.over.append(trial)
        for one in self._left(trial):
            self._end(one, self._last_result(trial, one))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the row of a trial whose worker is gone, unless it is tried again."""
        # `trial.get_error` looks where Tune copies this file to later.
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
        self.over.append(trial)
        for one in self._left(trial):
            self._lost(one, self._last_result(trial, one), text)

    def _left(self, trial: Trial) -> list[Job]:
        """Return the jobs of a worker that have not ended."""
        return [one for one in jobs_file.of(trial.config) if "pack" not in trial.config or one["id"] in self.started]

    def _last_result(self, trial: Trial, one: Job) -> Mapping[str, Any]:
        return self.last.pop(one["id"], {}) if "pack" in trial.config else trial.last_result or {}

    def _end(self, one: Job, result: Mapping[str, Any]) -> None:
        """Judge a trial that ended by itself or was stopped."""
        state = State(result.get("state") or State.PRUNED)
        reason = result.get("reason") or self.reasons.get(one["id"])
        cause = Cause(result["cause"]) if result.get("cause") else None
        self._judge(one, result, state, reason if state is not State.COMPLETE else None, cause)

    def _lost(self, one: Job, result: Mapping[str, Any], text: str) -> None:
        """Judge a trial whose worker is gone, with what Ray says of that."""
        _, begun = self.started.get(one["id"], (0.0, time.monotonic()))
        limit = self.rules.time_limit
        cause = faults.cause_of_death(text, time.monotonic() - begun, limit)
        reason = f"not done within the time limit of {limit:g} s" if cause is Cause.TIME_LIMIT else _reason(text)
        self._judge(one, result, State.FAIL, reason, cause)

    def _forget(self) -> None:
        """Let go of what Tune keeps of each trial that ended: it would fill the driver's memory, trial by trial."""
        while self.over:
            trial = self.over.pop()
            kept = trial.run_metadata
            kept.last_result, kept.metric_analysis, kept.metric_n_steps = {}, {}, {}
            trial.evaluated_params = {}
            trial.config = {"id": trial.config["id"]}
            # Its second copy of the configuration has no public name.
            vars(trial).update({name: {} for name in vars(trial) if name.endswith("unresolved_config")})

    def _end_the_hung(self) -> None:
        """Kill workers that are past the time limit and have not ended themselves: frozen, or cut off."""
        limit = self.rules.time_limit
        if limit is None:
            return
        for name, trial in list(self.running.items()):
            actor = trial.temporary_state.ray_actor
            if actor and time.monotonic() - self.started[name][1] > limit + faults.GRACE:
                del self.running[name]
                ray.kill(actor)

    def _judge(
        self, one: Job, result: Mapping[str, Any], state: State, reason: str | None, cause: Cause | None
    ) -> None:
        self.last.pop(one["id"], None)
        clock, _ = self.started.pop(one["id"], (time.time(), 0.0))
        self.running.pop(one["id"], None)
        again = faults.wait(cause, one["faults"] + 1, self.rules.retries) if cause else None
        self.cost.end(one["id"], state if again is None else None, time.monotonic())
        if again is not None:
            self._say(f"{one['id']} is tried again in {again:.0f} s", one["cell"], reason, "yellow")
            self.jobs.take_back(one, again)
            return
        self.jobs.ended(one, state, result)
        self._record(one, result, state, reason, cause, clock)

    def _record(
        self, one: Job, result: Mapping[str, Any], state: State, reason: str | None, cause: Cause | None, started: float
    ) -> None:
        self.ended[state] += 1
        score = result.get("score", math.nan)
        if state is State.COMPLETE and score > self.best[0]:
            self.best = score, one["id"]
        row = _row(one, result, state, reason, cause, self.curves.pop(one["id"], []), started)
        self.outbox.put(one["id"], partial(self._write, row))
        if cause not in (None, Cause.DIVERGED):
            self.faulty[one["id"]] = str(reason)
            self.in_a_row += 1
        else:
            self.in_a_row = 0
        if state is State.FAIL:
            self._say(f"{one['id']} failed", one["cell"], reason, "red")
        if self.rules.budget and (changed := self.rules.budget.correct(time.monotonic())):
            self.total = self.jobs.total
            self.console.print(changed, highlight=False, soft_wrap=True)
        text = self._show()
        if not self.console.is_terminal:
            self.console.print(f"{text} [{sum(self.ended.values())}/{self.total}]", highlight=False, soft_wrap=True)

    def _write(self, row: dict[str, Any]) -> None:
        """Write a row; only then are the trial's checkpoints needless."""
        self.rules.saved(ledger.write(self.folder, row))
        self.rules.ended(row["trial_id"], row["cause"])

    def _write_job(self, begun: Job) -> None:
        self.rules.saved(jobs_file.write(self.folder, begun))

    def _say(self, what: str, cell: str, reason: str | None, colour: str) -> None:
        self.console.print(f"{what} ({cell}): {reason}", style=colour, markup=False, highlight=False, soft_wrap=True)

    def _show(self) -> str:
        """Update the bar and return its text."""
        done = sum(self.ended.values())
        running = len(self.started)
        self.shown = time.monotonic()
        left = self.cost.text(self.jobs.waiting(), self.shown)
        best = f", best score {self.best[0]:.3f} ({self.best[1]})" if self.best[1] else ""
        stopped = f", {self.ended[State.PRUNED]} stopped early" if self.ended[State.PRUNED] else ""
        failed = f", {self.ended[State.FAIL]} failed" if self.ended[State.FAIL] else ""
        text = f"{self.title}: {done} done, {running} running{stopped}{failed}{best}{left and f', {left}'}"
        self.bar.update(self.task, completed=done, total=self.total, description=text)
        return text


def _row(
    job: Job,
    result: Mapping[str, Any],
    state: State,
    reason: str | None,
    cause: Cause | None,
    curve: list[dict[str, Any]],
    started: float,
) -> dict[str, Any]:
    config = TrialConfig.model_validate(job["config"])
    metrics = result.get("metrics") or {}
    about = result.get("provenance") or runtime.provenance()  # of this machine, where the worker said nothing
    measured = {name: value for name, value in metrics.items() if name in METRICS and name != "score"}
    counted = {name: int(metrics[name]) for name in INTEGER_METRICS if name in metrics}
    begun = datetime.fromtimestamp(result.get("started") or started, UTC)
    # A clock that was set back must not make a trial end before it began.
    ended = max(begun, datetime.fromtimestamp(result["finished"], UTC) if "finished" in result else datetime.now(UTC))
    return {
        "trial_id": job["id"],
        "attempt": job["attempt"],
        "phase": job["phase"],
        "cell": job["cell"],
        "chosen_by": job["chosen_by"],
        "state": str(state),
        "reason": reason,
        "cause": None if cause is None else str(cause),
        "number": job["number"],
        "teacher_hash": result.get("teacher_hash"),
        **config_columns(config),
        **{"gan_steps": result.get("budget"), **measured, **counted},
        "score": result.get("score"),
        "seconds": result.get("seconds"),
        "teacher_holdout_accuracy": result.get("teacher_held_out_accuracy"),
        "threads": result.get("threads"),
        "device": result.get("device"),
        "precision": result.get("precision"),
        "started": begun,
        "finished": ended,
        **about,
        "versions": json.dumps(about["versions"]),
        "reports": [_point(report) for report in curve],
    }


def _reason(text: str) -> str:
    """Return the line of Ray's error file that says what happened: the exception's own first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    said = (named or lines or ["the worker died"])[-1]
    return f"its worker is gone: {said.partition('. ')[0]}" if said.startswith("The actor ") else said


def _point(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report.get(name, math.nan if name == "score" else None) for name in Report.__annotations__}
