"""Asynchronous successive halving over GAN steps, with rungs of its own for each cell."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from degan_search.ledger.columns import Phase
from degan_search.search.run import tune_dicts
from degan_search.search.run.results import TrialResult
from degan_search.search.workers import ray_patches


class Rungs:
    """The scores recorded at each rung of each cell (Li et al. 2020, algorithm 2)."""

    def __init__(self, reduction_factor: float) -> None:
        self.reduction_factor = reduction_factor
        self.scores: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.promoted: set[tuple[str, int]] = set()
        """Trials and the rungs from which they went on: one that was cut short reaches a rung for a second time."""

    def fill(self, curves: pd.DataFrame) -> None:
        """Record the rung scores of earlier search trials, from `ledger.curves`."""
        rungs = curves[(curves["phase"] == Phase.SEARCH) & curves["score"].notna() & (curves["stage"] != "done")]
        for cell, gan_steps, score in rungs[["cell", "budget", "score"]].itertuples(index=False):
            self.scores[str(cell), int(gan_steps)].append(float(score))

    def record_promoted(self, cell: str, gan_steps: int, score: float, trial: str) -> None:
        """Record the score of an unfinished trial that went on from this rung before."""
        self.scores[cell, gan_steps].append(score)
        self.promoted.add((trial, gan_steps))

    def record(self, cell: str, gan_steps: int, score: float, trial: str | None = None) -> str | None:
        """Record a score at a rung; return why the trial should stop, or None to go on.

        A trial goes on if it is among the best 1/reduction_factor of those recorded there before it. The first always
        does, and so does a named trial that went on from there before. Only trials of one cell compete: all of a poor
        proxy's would lose against those of a good one.
        """
        if trial is not None and (trial, gan_steps) in self.promoted:
            return None
        before = self.scores[cell, gan_steps]
        cutoff = float(np.quantile(before, 1 - 1 / self.reduction_factor)) if before else -np.inf
        before.append(score)
        if score >= cutoff:
            if trial is not None:
                self.promoted.add((trial, gan_steps))
            return None
        return f"stopped early: score {score:.4f} at GAN step {gan_steps} is below the rung's {cutoff:.4f}"


class CellAsha(FIFOScheduler):  # type: ignore[misc]
    """Ray's scheduler that stops trials by `Rungs`; without rungs (None), every trial runs to its end."""

    def __init__(self, rungs: Rungs | None) -> None:
        super().__init__()
        self.rungs = rungs
        self.reasons: dict[str, str] = {}
        """Of the trials that were stopped."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial that is too poor at its rung; of several in one process, the others go on."""
        cells = {job.id: job.cell for job in tune_dicts.from_config(trial.config)}
        results = tune_dicts.from_result(result)
        stopped = [sent.id for sent in results if not sent.ended and not self._goes_on(cells[sent.id], sent)]
        if not stopped:
            return str(TrialScheduler.CONTINUE)
        if tune_dicts.running(result) - set(stopped):
            # The worker gets this before the call of its next step, which Tune makes after this method.
            worker = ray_patches.worker_of(trial)
            assert worker is not None, "it has just sent a result"
            worker.drop.remote(stopped)
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)

    def _goes_on(self, cell: str, result: TrialResult) -> bool:
        if self.rungs is None:
            return True
        reason = self.rungs.record(cell, result.gan_steps, result.score, result.id)
        if reason is not None:
            self.reasons[result.id] = reason
        return reason is None
