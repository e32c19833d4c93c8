"""Tune's callback that writes each ended trial to the ledger at once, and shows how the sweep stands."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from degan_search import ledger, runtime
from degan_search.config import TrialConfig
from degan_search.records import METRICS, Report, State, config_columns

INTEGER_METRICS = ("gan_steps", "distill_steps")


class Recorder(tune.Callback):  # type: ignore[misc]
    """Writes rows and shows progress.

    It never raises, as that would end Tune's experiment: a row that could not be written is tried again at
    each later row and at the end, and `flush` says what the disk answered.
    """

    def __init__(self, folder: Path, reasons: dict[str, str], total: int, title: str, console: Console) -> None:
        self.folder, self.reasons, self.console, self.title = folder, reasons, console, title
        self.curves: dict[str, list[dict[str, Any]]] = {}
        self.started: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.ended = dict.fromkeys(State, 0)
        self.best: tuple[float, str] = (-math.inf, "")
        self.begun, self.total = time.monotonic(), total
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
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

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note when a trial began."""
        self.started.setdefault(trial.config["id"], time.time())
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the curve."""
        self.curves.setdefault(trial.config["id"], []).extend(result.get("reports") or [])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the row of a trial that ended or was stopped."""
        result = trial.last_result or {}
        state = State(result.get("state") or State.PRUNED)
        reason = result.get("reason") or self.reasons.get(trial.config["id"])
        self._record(trial, result, state, reason if state is not State.COMPLETE else None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the row of a trial whose worker failed."""
        # `trial.get_error` looks where Tune copies this file to later.
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
        lines = [line for line in text.splitlines() if line.strip()]
        self._record(trial, trial.last_result or {}, State.FAIL, lines[-1].strip() if lines else "the worker died")

    def flush(self) -> list[str]:
        """Try once more to write what is unwritten; return what the disk said of each row that still is."""
        waiting, self.rows, self.faults = self.rows, [], []
        for row in waiting:
            try:
                ledger.write(self.folder, row)
            except Exception as error:
                self.rows.append(row)
                self.faults.append(f"{row['trial_id']}: {error}")
        return self.faults

    def _record(self, trial: Trial, result: dict[str, Any], state: State, reason: str | None) -> None:
        job = trial.config
        self.ended[state] += 1
        score = result.get("score", math.nan)
        if state is State.COMPLETE and score > self.best[0]:
            self.best = score, job["id"]
        self.rows.append(_row(job, result, state, reason, self.curves.pop(job["id"], []), self.started.get(job["id"])))
        self.flush()
        if state is State.FAIL:
            self.console.print(
                f"[red]{job['id']} failed[/red] ({escape(job['cell'])}): {escape(str(reason))}",
                highlight=False,
                soft_wrap=True,
            )
        text = self._show()
        if not self.console.is_terminal:
            self.console.print(f"{text} [{sum(self.ended.values())}/{self.total}]", highlight=False, soft_wrap=True)

    def _show(self) -> str:
        """Update the bar and return its text."""
        done = sum(self.ended.values())
        running = len(self.started) - done
        spent = time.monotonic() - self.begun
        left = f", about {_minutes(spent / done * (self.total - done))} left" if done else ""
        best = f", best score {self.best[0]:.3f} ({self.best[1]})" if self.best[1] else ""
        stopped = f", {self.ended[State.PRUNED]} stopped early" if self.ended[State.PRUNED] else ""
        failed = f", {self.ended[State.FAIL]} failed" if self.ended[State.FAIL] else ""
        text = f"{self.title}: {done} done, {running} running{stopped}{failed}{best}{left}"
        self.bar.update(self.task, completed=done, description=text)
        return text


def _row(
    job: dict[str, Any],
    result: dict[str, Any],
    state: State,
    reason: str | None,
    curve: list[dict[str, Any]],
    started: float | None,
) -> dict[str, Any]:
    config = TrialConfig.model_validate(job["config"])
    metrics = result.get("metrics") or {}
    about = result.get("provenance") or runtime.provenance()  # of this machine, where the worker said nothing
    measured = {name: value for name, value in metrics.items() if name in METRICS and name != "score"}
    counted = {name: int(metrics[name]) for name in INTEGER_METRICS if name in metrics}
    now = datetime.now(UTC)
    return {
        "trial_id": job["id"],
        "attempt": 1,
        "phase": job["phase"],
        "cell": job["cell"],
        "chosen_by": job["chosen_by"],
        "state": str(state),
        "reason": reason,
        "number": job["number"],
        "teacher_hash": result.get("teacher_hash"),
        **config_columns(config),
        **{"gan_steps": result.get("budget"), **measured, **counted},
        "score": result.get("score"),
        "seconds": result.get("seconds"),
        "teacher_holdout_accuracy": result.get("teacher_held_out_accuracy"),
        "threads": result.get("threads"),
        "device": result.get("device"),
        "started": datetime.fromtimestamp(result.get("started") or started or now.timestamp(), UTC),
        "finished": datetime.fromtimestamp(result["finished"], UTC) if "finished" in result else now,
        **about,
        "versions": json.dumps(about["versions"]),
        "reports": [_point(report) for report in curve],
    }


def _point(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report.get(name, math.nan if name == "score" else None) for name in Report.__annotations__}


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
