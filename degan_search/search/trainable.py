"""The trial under Ray Tune: from one score to the next, with a checkpoint now and then, then the student's files."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import ray
from ray import tune

from degan_search import pipeline, runtime
from degan_search.config import TrialConfig, stable_hash
from degan_search.errors import UserError
from degan_search.methods import METHODS
from degan_search.pipeline import Event, Inputs, Trial
from degan_search.records import Cause, State
from degan_search.search import checkpoints, faults
from degan_search.search.jobs import Job
from degan_search.storage import Place


class DeganTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs `pipeline.Trial` a score at a time; reused from trial to trial, so torch starts once a slot.

    Whatever goes wrong in a trial becomes the result of its last step, so that the process lives on. A trial that has
    checkpoints in its folder goes on from the last whole one.
    """

    def setup(
        self,
        config: Job,
        inputs: dict[str, ray.ObjectRef] | None = None,
        place: Place | None = None,
        threads: int = 1,
        checkpoint_every: float = math.inf,
        time_limit: float | None = None,
    ) -> None:
        """Take a job.

        Args:
            config: the job.
            inputs: references into Ray's object store: images are shared, not copied.
            place: where trials keep their files, each in a folder of its own.
            threads: of torch.
            checkpoint_every: seconds between two checkpoints.
            time_limit: seconds after which the process ends itself.
        """
        assert inputs is not None
        assert place is not None
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        self.device = runtime.choose_device(len(gpus))
        runtime.set_up_torch(threads)
        self.threads, self.job, self.references = threads, config, inputs
        self.place = place.at(config["id"])
        self.checkpoint_every, self.time_limit = checkpoint_every, time_limit
        self.started, self.begun = time.time(), time.monotonic()
        self.saved = self.begun
        self.inputs: Inputs | None = None
        self.running: Trial | None = None
        self.events: Iterator[Event] | None = None
        self.reports: list[dict[str, Any]] = []
        self.told = 0
        """Reports that the driver has."""

    def step(self) -> dict[str, Any]:
        """Go on to the next score and return it with the curve since the last; `state` is set at the end."""
        with self._watched():
            try:
                if self.events is None:
                    self.events = iter(self._begin())
                return self._advance(self.events)
            except Exception as error:
                return self._failed(error)

    def reset_config(self, new_config: Job) -> bool:
        """Take the next job in the same process."""
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Close a stopped trial's iterator, so that its seeded blocks end."""
        self.running = self.events = None

    def _begin(self) -> Trial:
        """Return the trial, begun or taken up from its last checkpoint."""
        config = TrialConfig.model_validate(self.job["config"])
        self.inputs = ray.get(self.references[inputs_key(config)])
        self.cleanup()  # of the trial before, should it have been stopped
        found = checkpoints.load(self.place)
        if found:
            with contextlib.suppress(UserError):  # of another version: begun anew
                self.running = Trial(config, self.inputs, self.device, found["trial"])
                self.reports = found["reports"]
        if self.running is None:
            self.running = Trial(config, self.inputs, self.device)
        return self.running

    def _advance(self, events: Iterator[Event]) -> dict[str, Any]:
        assert self.running is not None
        for event in events:
            if event.metrics:
                self.reports.append(_report(event))
            if event.stage == "done":
                for name, data in pipeline.files(self.running.outcome).items():
                    self.place.write(name, data)
                return self._result(event, State.COMPLETE)
            if time.monotonic() - self.saved >= self.checkpoint_every:
                self._checkpoint()
            if math.isfinite(event.metrics.get("score", math.nan)):
                return self._result(event, None)
        raise RuntimeError("a trial ended without its last event")

    def _checkpoint(self) -> None:
        assert self.running is not None
        state = self.running.state()
        if state is None:  # amid a probe
            return
        # A disk that takes none costs nothing but time, should the trial be cut short.
        with contextlib.suppress(OSError):
            checkpoints.save(self.place, {"trial": state, "reports": self.reports})
        self.saved = time.monotonic()

    def _failed(self, error: Exception) -> dict[str, Any]:
        cause = faults.cause_of(error)
        last = Event("failed", 0, None, time.monotonic() - self.begun, self.running.gan_steps if self.running else 0)
        self.cleanup()
        if cause is Cause.DIVERGED:
            reason = str(error).splitlines()[0]
        else:
            reason = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
            with contextlib.suppress(OSError):
                self.place.write("error.txt", traceback.format_exc().encode())
        return self._result(last, State.FAIL, reason, cause)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """End this process when the time limit is over, even if it hangs; where it stood goes to the worker's log."""
        if self.time_limit is None:
            yield
            return
        left = max(0.1, self.time_limit - (time.monotonic() - self.begun))
        faulthandler.dump_traceback_later(left, exit=True, file=sys.__stderr__ or sys.stderr)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _result(
        self, event: Event, state: State | None, reason: str | None = None, cause: Cause | None = None
    ) -> dict[str, Any]:
        told, self.told = self.told, len(self.reports)
        teacher = self.inputs.teacher if self.inputs else None
        return {
            "score": event.metrics.get("score", math.nan),
            "budget": event.budget,
            "state": None if state is None else str(state),
            "reason": reason,
            "cause": None if cause is None else str(cause),
            "reports": self.reports[told:],
            "reports_from": told,
            "metrics": event.metrics,
            "seconds": event.seconds,
            "teacher_hash": teacher.hash if teacher else None,
            "teacher_held_out_accuracy": teacher.held_out_accuracy if teacher else None,
            "device": self.device,
            "precision": self.running.precision if self.running else None,
            "threads": self.threads,
            "started": self.started,
            "finished": time.time(),
            "provenance": runtime.provenance(),
            tune.result.DONE: state is not None,
        }


def inputs_key(config: TrialConfig) -> str:
    """Return the name of the inputs that a trial needs: trials of one key share them.

    GAN settings that vary from trial to trial are no part of it: all are compared on one bank.
    """
    source = METHODS[config.method].source
    true = source if source in ("true", "few_true") else None
    return stable_hash(config.task, config.teacher, config.proxy, config.count, config.bank, true, config.objective)


def _report(event: Event) -> dict[str, Any]:
    return {"stage": event.stage, "budget": event.budget, "seconds": event.seconds, **event.metrics}
