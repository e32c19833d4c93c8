"""The trial under Ray Tune: from one score to the next, with a checkpoint now and then, then the student's files."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import ray
from ray import tune

from degan_search.ledger.columns import Cause, State
from degan_search.search.run import faults, results, tune_dicts
from degan_search.search.run.jobs import Job
from degan_search.search.run.results import Curve, End, TrialResult
from degan_search.search.workers import checkpoints
from degan_search.storage import Place
from degan_search.system import cpus, device
from degan_search.system.errors import UserError
from degan_search.training.turns import Turns
from degan_search.trial import outcome as outcomes
from degan_search.trial.inputs import Inputs, inputs_key
from degan_search.trial.outcome import Event
from degan_search.trial.trial import Trial

INPUTS_KEPT = 4
"""Inputs that a worker keeps: the cells of a sweep take turns."""


class DeganTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs a `Trial` a score at a time; reused from trial to trial, so torch starts once a slot.

    Whatever goes wrong in a trial becomes the result of its last step, so that the process lives on. A trial that has
    checkpoints in its folder goes on from the last whole one. A job with a pack is several trials that take turns.
    """

    def setup(
        self,
        config: dict[str, Any],
        inputs: dict[str, ray.ObjectRef] | None = None,
        place: Place | None = None,
        threads: int = 1,
        pin: bool = False,
        checkpoint_every: float = math.inf,
        time_limit: float | None = None,
    ) -> None:
        """Take a job, or several.

        Args:
            config: from `tune_dicts.to_config`.
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
        self.device = device.choose_device(len(gpus))
        if pin and self.device == "cpu" and all_cpus_are_rays():
            cpus.pin(threads)
        device.set_up_torch(threads)
        self.jobs = tune_dicts.from_config(config)
        self.job = self.jobs[0]
        self.references, self.folders = inputs, place
        self.checkpoint_every, self.time_limit = checkpoint_every, time_limit
        self.worker, self.begun = results.Worker(self.device, threads, time.time()), time.monotonic()
        self.inputs: Inputs | None = None
        self.trials: dict[str, Trial] = {}
        self.turns: Turns[Event] | None = None
        self.curves = {one.id: Curve() for one in self.jobs}
        self.left = [one.id for one in self.jobs]
        """Trials that have not ended."""
        self.saved = dict.fromkeys(self.left, self.begun)

    def step(self) -> dict[str, Any]:
        """Go on until a trial has a score or ends; returns `tune_dicts.to_result`."""
        with watched(self.time_limit, self.begun):
            try:
                if self.turns is None:
                    self._begin()
                told = self._advance()
            except Exception as error:
                told = [self._failure(one, error) for one in self.jobs if one.id in self.left]
                self.cleanup()
        ended = {one.id for one in told if one.state is not None}
        self.left = [name for name in self.left if name not in ended]
        return tune_dicts.to_result(told, self.left, len(self.jobs))

    def drop(self, ids: Sequence[str]) -> None:
        """Run these trials of the pack no further."""
        assert self.turns is not None
        for name in ids:
            self.left.remove(name)
            self.turns.drop([one.id for one in self.jobs].index(name))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job in the same process."""
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Let go of the trials."""
        self.turns, self.trials = None, {}

    def _begin(self) -> None:
        """Make the trials ready, each anew or from its last checkpoint."""
        self.inputs = _fetched(self.references[inputs_key(self.job.config)])
        for one in self.jobs:
            self.trials[one.id] = self._trial(one, self.inputs)
        self.turns = Turns(dict(enumerate(self.trials.values())), self.device)

    def _trial(self, one: Job, inputs: Inputs) -> Trial:
        trial = Trial(one.config, inputs, self.device)
        if found := checkpoints.load(self.folders.at(one.id)):
            with contextlib.suppress(UserError):  # of another version: begun anew
                curve = Curve.of(found["reports"])
                trial.load_state_dict(found["trial"])
                self.curves[one.id] = curve
        return trial

    def _advance(self) -> list[TrialResult]:
        """Go on until there is a result to tell; returns the results."""
        assert self.turns is not None
        while not self.turns.done:
            heard = [self._heard(self.jobs[member], event) for member, event in self.turns.step().items()]
            if told := [one for one in heard if one] + self._diverged():
                return told
        return self._diverged()

    def _diverged(self) -> list[TrialResult]:
        """Return the results of the trials that diverged since the last step."""
        assert self.turns is not None
        failed = [(self.jobs[member], error) for member, error in self.turns.failed.items()]
        return [self._failure(one, error) for one, error in failed if one.id in self.left]

    def _heard(self, one: Job, event: Event) -> TrialResult | None:
        """Keep what an event measured, and a finished trial's files; return what the driver is told, if anything."""
        self.curves[one.id].add(event)
        if event.stage == "done":
            for name, data in outcomes.files(self.trials[one.id].outcome).items():
                self.folders.at(one.id).write(name, data)
            return self._result(one, event, End(State.COMPLETE))
        if math.isfinite(event.metrics.get("score", math.nan)):
            return self._result(one, event)
        if time.monotonic() - self.saved[one.id] >= self.checkpoint_every:
            self._checkpoint(one)
        return None

    def _checkpoint(self, one: Job) -> None:
        state = self.trials[one.id].state_dict()
        # A disk that takes none costs nothing but time, should the trial be cut short.
        with contextlib.suppress(OSError):
            reports = self.curves[one.id].saved()
            checkpoints.save(self.folders.at(one.id), {"trial": state, "reports": reports})
        self.saved[one.id] = time.monotonic()

    def _failure(self, one: Job, error: Exception) -> TrialResult:
        cause = faults.cause_of(error)
        trial = self.trials.get(one.id)
        last = Event("failed", 0, None, time.monotonic() - self.begun, trial.gan_steps if trial else 0)
        if cause is not Cause.DIVERGED:
            with contextlib.suppress(OSError):
                self.folders.at(one.id).write("error.txt", traceback.format_exc().encode())
        return self._result(one, last, End(State.FAIL, faults.reason_of(error), cause))

    def _result(self, one: Job, event: Event, end: End | None = None) -> TrialResult:
        teacher, trial = self.inputs.teacher if self.inputs else None, self.trials.get(one.id)
        precision = trial.precision if trial else None
        return results.result(one, event, self.curves[one.id], self.worker, teacher, precision, end)


@contextlib.contextmanager
def watched(time_limit: float | None, begun: float) -> Iterator[None]:
    """End this process when the time limit is over, even if it hangs; where it stood goes to the worker's log.

    Args:
        time_limit: in seconds; None: no limit.
        begun: when the attempt began, by the monotonic clock.
    """
    if time_limit is None:
        yield
        return
    left = max(0.1, time_limit - (time.monotonic() - begun))
    faulthandler.dump_traceback_later(left, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@cache
def all_cpus_are_rays() -> bool:
    """Return whether Ray gives out each CPU that this process may use.

    It may have fewer, as under a container's quota, whose processes could all crowd on the first CPUs of a machine, or
    more than there are.
    """
    own = ray.get_runtime_context().get_node_id()
    given = next(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == own)
    return hasattr(os, "sched_getaffinity") and given == len(os.sched_getaffinity(0))


@lru_cache(maxsize=INPUTS_KEPT)
def _fetched(reference: ray.ObjectRef) -> Inputs:
    """Return inputs as the very object that earlier trials of this process had: they share what was made of it.

    With inputs that are let go, goes what their trials shared on the device.
    """
    fetched: Inputs = ray.get(reference)
    return fetched
