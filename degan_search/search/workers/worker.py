"""The worker: Ray Tune's process that runs trials, with a checkpoint now and then, and writes their files."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NoReturn

import ray
import torch
from ray import tune

from degan_search.evaluation.referee import referee, referee_key
from degan_search.ledger.columns import Cause, State
from degan_search.search.run import faults, results, tune_dicts
from degan_search.search.run.jobs import Job
from degan_search.search.run.results import Curve, End, TrialResult
from degan_search.search.workers import checkpoints
from degan_search.search.workers.told import Told
from degan_search.storage import Place
from degan_search.system import cpus, device
from degan_search.system.errors import UserError
from degan_search.training.turns import Turns
from degan_search.trial import outcome
from degan_search.trial.inputs import Inputs, inputs_key
from degan_search.trial.members import read_members
from degan_search.trial.outcome import Event
from degan_search.trial.trial import Referee, Trial

MAX_INPUTS = 4
"""Inputs that a worker keeps, as the trials that it is given come from several cells in turn."""


class DeganTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs a trial from one score to the next; the process is used for trial after trial, so torch starts only once.

    An exception in a trial becomes its result, so that the process lives on. A trial that has checkpoints in its folder
    goes on from the last whole one. Where it is given several jobs, their trials run side by side, see `Turns`.
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
        referees: Mapping[str, ray.ObjectRef] | None = None,
    ) -> None:
        """Take one job, or several to run side by side.

        Args:
            config: from `tune_dicts.to_config`.
            inputs: references into Ray's object store: images are shared, not copied.
            place: where trials keep their files, each in a folder of its own.
            threads: that torch may use.
            pin: whether trials fill the machines, so that each process keeps to CPUs of its own.
            checkpoint_every: seconds between two checkpoints.
            time_limit: seconds after which the process ends itself.
            referees: test images by `referee_key`, for the jobs that ask for a referee.
        """
        assert inputs is not None
        assert place is not None
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        self.device = device.choose_device(len(gpus))
        if pin and self.device == "cpu" and all_cpus_are_rays():
            cpus.pin(threads)
        device.set_up_torch(threads)
        load_compiler()
        self.jobs = tune_dicts.from_config(config)
        self.references, self.referees, self.folders = inputs, referees or {}, place
        self.checkpoint_every, self.time_limit = checkpoint_every, time_limit
        self.told = Told()
        self.worker, self.begun = results.Worker(self.device, threads, time.time()), time.monotonic()
        self.inputs: Inputs | None = None
        self.trials: dict[str, Trial] = {}
        """By name; none before the first step."""
        self.side_by_side: Turns[Event] = Turns({})
        """The same trials by their place in `jobs`."""
        self.curves = {job.id: Curve() for job in self.jobs}
        self.running = [job.id for job in self.jobs]
        """Trials that have not ended."""
        self.saved = dict.fromkeys(self.running, self.begun)
        """When, on the monotonic clock, each trial's last checkpoint was written."""

    def step(self) -> dict[str, Any]:
        """Go on until a trial has a score or ends; returns `tune_dicts.to_result`.

        Raises:
            SystemExit: the process was told to end; after the step that it was in, each trial wrote a checkpoint.
        """
        with time_limited(self.time_limit, self.begun), self.told.listening():
            try:
                if not self.trials:
                    self._begin()
                sent = self._advance()
            except Exception as error:
                sent = [self._failure(job, error) for job in self.jobs if job.id in self.running]
                self.cleanup()
        ended = {result.id for result in sent if result.ended}
        self.running = [name for name in self.running if name not in ended]
        return tune_dicts.to_result(sent, self.running, len(self.jobs))

    def drop(self, ids: Sequence[str]) -> None:
        """Run these of several trials no further."""
        for name in ids:
            self.running.remove(name)
            self.side_by_side.drop([job.id for job in self.jobs].index(name))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job in the same process."""
        told = self.told  # what was said to the process while it ended the job before still holds
        self.setup(new_config)
        self.told = told
        return True

    def cleanup(self) -> None:
        """Let go of the trials."""
        self.side_by_side, self.trials = Turns({}), {}

    def _begin(self) -> None:
        """Make the trials ready, each anew or from its last checkpoint."""
        self.inputs = fetch_inputs(self.references[inputs_key(self.jobs[0].config)])
        for job in self.jobs:
            self.trials[job.id], self.curves[job.id] = begun(job, self.inputs, self.device, self.folders, self.referees)
        self.side_by_side = Turns(dict(enumerate(self.trials.values())), self.device)

    def _advance(self) -> list[TrialResult]:
        """Go on until a trial has a result; returns the results."""
        while not self.side_by_side.done:
            events = self.side_by_side.step()
            results = [self._record(self.jobs[place], event) for place, event in events.items()]
            if sent := [result for result in results if result] + self._diverged():
                return sent
            if self.told.to_end():
                self._leave()
        return self._diverged()

    def _leave(self) -> NoReturn:
        """Write a checkpoint of each trial and end this process, so that they go on elsewhere or later."""
        self.side_by_side.settle()
        for name in self.running:
            self._checkpoint(name)
        sys.exit(faults.LEFT)

    def _diverged(self) -> list[TrialResult]:
        """Return the results of the trials that diverged since the last step."""
        failed = [(self.jobs[place], error) for place, error in self.side_by_side.failed.items()]
        return [self._failure(job, error) for job, error in failed if job.id in self.running]

    def _record(self, job: Job, event: Event) -> TrialResult | None:
        """Keep what an event measured, and a finished trial's files; return the result at a rung or at the end."""
        self.curves[job.id].add(event)
        if event.stage == "done":
            for name, data in outcome.files(self.trials[job.id].outcome).items():
                self.folders.at(job.id).write(name, data)
            return self._result(job, event, End(State.COMPLETE))
        if math.isfinite(event.metrics.get("score", math.nan)):
            return self._result(job, event)
        if time.monotonic() - self.saved[job.id] >= self.checkpoint_every:
            self._checkpoint(job.id)
        return None

    def _checkpoint(self, name: str) -> None:
        save(self.trials[name], self.curves[name], self.folders.at(name))
        self.saved[name] = time.monotonic()

    def _failure(self, job: Job, error: Exception) -> TrialResult:
        cause = faults.cause_of(error)
        trial = self.trials.get(job.id)
        last = Event("failed", 0, None, time.monotonic() - self.begun, trial.gan_steps if trial else 0)
        if cause is not Cause.DIVERGED:
            with contextlib.suppress(OSError):
                self.folders.at(job.id).write("error.txt", traceback.format_exc().encode())
        return self._result(job, last, End(State.FAIL, faults.reason_of(error), cause))

    def _result(self, job: Job, event: Event, end: End | None = None) -> TrialResult:
        teacher, trial = self.inputs.teacher if self.inputs else None, self.trials.get(job.id)
        precision = trial.precision if trial else None
        return results.result(job, event, self.curves[job.id], self.worker, teacher, precision, end)


def begun(
    job: Job, inputs: Inputs, device: str, place: Place, referees: Mapping[str, ray.ObjectRef]
) -> tuple[Trial, Curve]:
    """Return a job's trial and its curve, from its last checkpoint if it has one; `place`: where trials keep files."""
    trial = Trial(job.config, inputs, device, read_members(place, job.config.combine))
    if job.referee:
        trial.referee = fetch_referee(referees[referee_key(job.config)], device)
    if found := checkpoints.load(place.at(job.id)):
        with contextlib.suppress(UserError):  # of another version: the trial begins anew
            curve = Curve.of(found["reports"])
            trial.load_state_dict(found["trial"])
            return trial, curve
    return trial, Curve()


def save(trial: Trial, curve: Curve, place: Place) -> None:
    """Write a checkpoint; where that fails the trial goes on, and only loses more time if it is cut short later."""
    state = trial.state_dict()
    with contextlib.suppress(OSError):
        checkpoints.save(place, {"trial": state, "reports": curve.saved()})


@contextlib.contextmanager
def time_limited(time_limit: float | None, begun: float) -> Iterator[None]:
    """End this process when the time limit is over, even if it hangs; its stack trace goes to the worker's log.

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
    """Return whether Ray assigns exactly the CPUs that this process may use; only then may a process be pinned.

    Ray may have fewer, as under a container's quota: the pinned processes of several containers could then all use the
    first CPUs of the machine. It may also have more than there are.
    """
    own = ray.get_runtime_context().get_node_id()
    given = next(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == own)
    return hasattr(os, "sched_getaffinity") and given == len(os.sched_getaffinity(0))


@cache
def load_compiler() -> None:
    """Load torch's compiler, a second's work, for which its first optimiser would ask in the process's first trial."""
    torch.optim.Adam([torch.zeros(1)])


@lru_cache(maxsize=MAX_INPUTS)
def fetch_inputs(reference: ray.ObjectRef) -> Inputs:
    """Return the inputs that a reference stands for: the same object for each trial of this process.

    Trials share what was made of it on the device, which is freed when the inputs are no longer kept.
    """
    fetched: Inputs = ray.get(reference)
    return fetched


@lru_cache(maxsize=MAX_INPUTS)
def fetch_referee(reference: ray.ObjectRef, device: str) -> Referee:
    """Return the referee with the test images that a reference stands for."""
    return referee(ray.get(reference), device)
