"""The trial under Ray Tune: from one score to the next, with a checkpoint now and then, then the student's files."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import ray
from ray import tune

from degan_search import runtime
from degan_search.config import TrialConfig
from degan_search.errors import UserError
from degan_search.records import Cause, State
from degan_search.search import checkpoints, faults, jobs
from degan_search.search.cluster import all_cpus_are_rays
from degan_search.search.jobs import Job
from degan_search.storage import Place
from degan_search.trial import outcome as outcomes
from degan_search.trial.inputs import Inputs, inputs_key
from degan_search.trial.outcome import Event
from degan_search.trial.trial import Trial
from degan_search.turns import Turns

INPUTS_KEPT = 4
"""Inputs that a worker keeps: the cells of a sweep take turns."""


class DeganTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs a `Trial` a score at a time; reused from trial to trial, so torch starts once a slot.

    Whatever goes wrong in a trial becomes the result of its last step, so that the process lives on. A trial that has
    checkpoints in its folder goes on from the last whole one. A job with a pack is several trials that take turns.
    """

    def setup(
        self,
        config: Job,
        inputs: dict[str, ray.ObjectRef] | None = None,
        place: Place | None = None,
        threads: int = 1,
        pin: bool = False,
        checkpoint_every: float = math.inf,
        time_limit: float | None = None,
    ) -> None:
        """Take a job.

        Args:
            config: the job.
            inputs: references into Ray's object store: images are shared, not copied.
            place: where trials keep their files, each in a folder of its own.
            threads: of torch.
            pin: whether trials fill the machines, so that each keeps to CPUs of its own.
            checkpoint_every: seconds between two checkpoints.
            time_limit: seconds after which the process ends itself.
        """
        assert inputs is not None
        assert place is not None
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        self.device = runtime.choose_device(len(gpus))
        if pin and self.device == "cpu" and all_cpus_are_rays():
            runtime.pin(threads)
        runtime.set_up_torch(threads)
        self.threads, self.job, self.references = threads, config, inputs
        self.jobs = jobs.of(config)
        self.folders = place
        self.checkpoint_every, self.time_limit = checkpoint_every, time_limit
        self.started, self.begun = time.time(), time.monotonic()
        self.inputs: Inputs | None = None
        self.trials: dict[str, Trial] = {}
        self.turns: Turns[Event] | None = None
        self.reports: dict[str, list[dict[str, Any]]] = {one["id"]: [] for one in self.jobs}
        self.told = dict.fromkeys(self.reports, 0)
        """Reports that the driver has."""
        self.left = [one["id"] for one in self.jobs]
        """Trials that have not ended."""
        self.saved = dict.fromkeys(self.reports, self.begun)

    def step(self) -> dict[str, Any]:
        """Go on to the next score and return it with the curve since the last; `state` is set at the end.

        Of a pack, the results of those trials that have one are returned together.
        """
        with self._watched():
            try:
                if self.turns is None:
                    self._begin()
                return self._together(self._advance())
            except Exception as error:
                left = [one for one in self.jobs if one["id"] in self.left]
                results = [self._failure(one, error) for one in left]
                self.cleanup()
                return self._together(results)

    def drop(self, ids: Sequence[str]) -> None:
        """Run these trials of the pack no further."""
        assert self.turns is not None
        for name in ids:
            self.left.remove(name)
            self.turns.drop([one["id"] for one in self.jobs].index(name))

    def reset_config(self, new_config: Job) -> bool:
        """Take the next job in the same process."""
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Let go of the trials."""
        self.turns, self.trials = None, {}

    def _begin(self) -> None:
        """Make the trials ready, each anew or from its last checkpoint."""
        configs = [TrialConfig.model_validate(one["config"]) for one in self.jobs]
        self.inputs = _fetched(self.references[inputs_key(configs[0])])
        for one, config in zip(self.jobs, configs, strict=True):
            self.trials[one["id"]] = self._trial(one, config, self.inputs)
        self.turns = Turns(dict(enumerate(self.trials.values())), self.device)

    def _trial(self, one: Job, config: TrialConfig, inputs: Inputs) -> Trial:
        trial = Trial(config, inputs, self.device)
        if found := checkpoints.load(self.folders.at(one["id"])):
            with contextlib.suppress(UserError):  # of another version: begun anew
                trial.load_state_dict(found["trial"])
                self.reports[one["id"]] = found["reports"]
        return trial

    def _advance(self) -> list[dict[str, Any]]:
        """Go on until there is a result to tell; returns the results."""
        assert self.turns is not None
        while not self.turns.done:
            results = [self._heard(self.jobs[member], event) for member, event in self.turns.step().items()]
            if told := [result for result in results if result] + self._diverged():
                return told
        return self._diverged()

    def _diverged(self) -> list[dict[str, Any]]:
        """Return the results of the trials that diverged since the last step."""
        assert self.turns is not None
        failed = [(self.jobs[member], error) for member, error in self.turns.failed.items()]
        return [self._failure(one, error) for one, error in failed if one["id"] in self.left]

    def _together(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what Tune is told: of a pack, all results in one."""
        ended = {result["id"] for result in results if result["state"] is not None}
        self.left = [name for name in self.left if name not in ended]
        if len(self.jobs) == 1:
            return results[0]
        return {
            "score": max((result["score"] for result in results), default=math.nan),
            "pack": results,
            "running": self.left,
            tune.result.DONE: not self.left,
        }

    def _heard(self, one: Job, event: Event) -> dict[str, Any] | None:
        """Keep what an event measured, and a finished trial's files; return what the driver is told, if anything."""
        if event.metrics:
            self.reports[one["id"]].append(_report(event))
        if event.stage == "done":
            for name, data in outcomes.files(self.trials[one["id"]].outcome).items():
                self.folders.at(one["id"]).write(name, data)
            return self._result(one, event, State.COMPLETE)
        if math.isfinite(event.metrics.get("score", math.nan)):
            return self._result(one, event, None)
        if time.monotonic() - self.saved[one["id"]] >= self.checkpoint_every:
            self._checkpoint(one)
        return None

    def _checkpoint(self, one: Job) -> None:
        state = self.trials[one["id"]].state_dict()
        # A disk that takes none costs nothing but time, should the trial be cut short.
        with contextlib.suppress(OSError):
            checkpoints.save(self.folders.at(one["id"]), {"trial": state, "reports": self.reports[one["id"]]})
        self.saved[one["id"]] = time.monotonic()

    def _failure(self, one: Job, error: Exception) -> dict[str, Any]:
        cause = faults.cause_of(error)
        trial = self.trials.get(one["id"])
        last = Event("failed", 0, None, time.monotonic() - self.begun, trial.gan_steps if trial else 0)
        if cause is Cause.DIVERGED:
            reason = str(error).splitlines()[0]
        else:
            reason = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
            with contextlib.suppress(OSError):
                self.folders.at(one["id"]).write("error.txt", traceback.format_exc().encode())
        return self._result(one, last, State.FAIL, reason, cause)

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
        self, one: Job, event: Event, state: State | None, reason: str | None = None, cause: Cause | None = None
    ) -> dict[str, Any]:
        reports = self.reports[one["id"]]
        told, self.told[one["id"]] = self.told[one["id"]], len(reports)
        teacher, trial = self.inputs.teacher if self.inputs else None, self.trials.get(one["id"])
        return {
            "id": one["id"],
            "score": event.metrics.get("score", math.nan),
            "budget": event.budget,
            "state": None if state is None else str(state),
            "reason": reason,
            "cause": None if cause is None else str(cause),
            "reports": reports[told:],
            "reports_from": told,
            "metrics": event.metrics,
            "seconds": event.seconds,
            "teacher_hash": teacher.hash if teacher else None,
            "teacher_held_out_accuracy": teacher.held_out_accuracy if teacher else None,
            "device": self.device,
            "precision": trial.precision if trial else None,
            "threads": self.threads,
            "started": self.started,
            "finished": time.time(),
            "provenance": runtime.provenance(),
            tune.result.DONE: state is not None,
        }


@lru_cache(maxsize=INPUTS_KEPT)
def _fetched(reference: ray.ObjectRef) -> Inputs:
    """Return inputs as the very object that earlier trials of this process had: they share what was made of it.

    With inputs that are let go, goes what their trials shared on the device.
    """
    fetched: Inputs = ray.get(reference)
    return fetched


def _report(event: Event) -> dict[str, Any]:
    return {"stage": event.stage, "budget": event.budget, "seconds": event.seconds, **event.metrics}
