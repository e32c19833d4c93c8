"""The trial under Ray Tune: from one score to the next, then the student's files."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from degan_search import runtime
from degan_search.config import TrialConfig, stable_hash
from degan_search.fit import DivergedError
from degan_search.methods import METHODS
from degan_search.pipeline import Event, Inputs, Trial, save
from degan_search.records import State


class DeganTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs `pipeline.Trial` a score at a time; reused from trial to trial, so torch starts once a slot."""

    def setup(
        self, config: dict[str, Any], inputs: dict[str, ray.ObjectRef] | None = None, folder: str = "", threads: int = 1
    ) -> None:
        """Take a job. `inputs` holds references into Ray's object store: images are shared, not copied."""
        assert inputs is not None
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        self.device = runtime.choose_device(len(gpus))
        runtime.set_up_torch(threads)
        self.threads, self.job = threads, config
        self.trial_config = TrialConfig.model_validate(config["config"])
        self.folder = Path(folder) / config["id"]
        self.inputs: Inputs = ray.get(inputs[inputs_key(self.trial_config)])
        self.started = time.time()
        self.running: Trial | None = None
        self.events: Iterator[Event] | None = None

    def step(self) -> dict[str, Any]:
        """Go on to the next score and return it with the curve since the last; `state` is set at the end."""
        reports = []
        try:
            if self.running is None or self.events is None:
                self.running = Trial(self.trial_config, self.inputs, self.device)
                self.events = iter(self.running)
            for event in self.events:
                if event.metrics:
                    reports.append(_report(event))
                if event.stage == "done":
                    save(self.running.outcome, self.folder)
                    return self._result(reports, event, State.COMPLETE)
                if math.isfinite(event.metrics.get("score", math.nan)):
                    return self._result(reports, event, None)
        except (DivergedError, torch.OutOfMemoryError) as error:
            last = Event("failed", 0, None, time.time() - self.started, self.running.gan_steps if self.running else 0)
            return self._result(reports, last, State.FAIL, str(error).splitlines()[0])
        raise RuntimeError("a trial ended without its last event")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job in the same process."""
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Close a stopped trial's iterator, so that its seeded blocks end."""
        self.running = self.events = None

    def _result(
        self, reports: list[dict[str, Any]], event: Event, state: State | None, reason: str | None = None
    ) -> dict[str, Any]:
        return {
            "score": event.metrics.get("score", math.nan),
            "budget": event.budget,
            "state": None if state is None else str(state),
            "reason": reason,
            "reports": reports,
            "metrics": event.metrics,
            "seconds": event.seconds,
            "teacher_hash": self.inputs.teacher.hash,
            "teacher_held_out_accuracy": self.inputs.teacher.held_out_accuracy,
            "device": self.device,
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
