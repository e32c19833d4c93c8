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
        self.passed: set[tuple[str, int]] = set()
        """Trials and the rungs they were let on at: one that was cut short comes by a second time."""

    def fill(self, curves: pd.DataFrame) -> None:
        """Record the rung scores of earlier search trials, from `ledger.curves`."""
        rungs = curves[(curves["phase"] == Phase.SEARCH) & curves["score"].notna() & (curves["stage"] != "done")]
        for cell, budget, score in rungs[["cell", "budget", "score"]].itertuples(index=False):
            self.scores[str(cell), int(budget)].append(float(score))

    def let_on(self, cell: str, budget: int, score: float, trial: str) -> None:
        """Record the score of an unfinished trial that went on from this rung before."""
        self.scores[cell, budget].append(score)
        self.passed.add((trial, budget))

    def record(self, cell: str, budget: int, score: float, trial: str | None = None) -> str | None:
        """Record a score at a rung; return why the trial should stop, or None to go on.

        A trial goes on if it is among the best 1/reduction_factor of those recorded there before it; the
        first always does, and so does a named trial that was let on there already. Cells are apart: a poor proxy's
        trials compete with each other only.
        """
        if trial is not None and (trial, budget) in self.passed:
            return None
        before = self.scores[cell, budget]
        cutoff = float(np.quantile(before, 1 - 1 / self.reduction_factor)) if before else -np.inf
        before.append(score)
        if score >= cutoff:
            if trial is not None:
                self.passed.add((trial, budget))
            return None
        return f"stopped early: score {score:.4f} at GAN step {budget} is below the rung's {cutoff:.4f}"


class CellAsha(FIFOScheduler):  # type: ignore[misc]
    """Ray's face of `Rungs`; without them, every trial runs to its end."""

    def __init__(self, rungs: Rungs | None) -> None:
        super().__init__()
        self.rungs = rungs
        self.reasons: dict[str, str] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial that its rung does not keep; of several in one process, let the others go on."""
        cells = {one.id: one.cell for one in tune_dicts.from_config(trial.config)}
        told = tune_dicts.from_result(result)
        stopped = [one.id for one in told if one.state is None and not self._goes_on(cells[one.id], one)]
        if not stopped:
            return str(TrialScheduler.CONTINUE)
        if tune_dicts.running(result) - set(stopped):
            # Heard before the next step, as Tune asks for that only now.
            worker = ray_patches.worker_of(trial)
            assert worker is not None, "its result has just come"
            worker.drop.remote(stopped)
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)

    def _goes_on(self, cell: str, told: TrialResult) -> bool:
        if self.rungs is None:
            return True
        reason = self.rungs.record(cell, told.budget, told.score, told.id)
        if reason is not None:
            self.reasons[told.id] = reason
        return reason is None
