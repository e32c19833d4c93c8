"""Asynchronous successive halving over GAN steps, with rungs of its own for each cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from degan_search.ledger.columns import Phase
from degan_search.search.run import tune_dicts
from degan_search.search.run.results import TrialResult
from degan_search.search.workers import ray_patches
from degan_search.selection.pareto import ranks
from degan_search.settings.goals import SCORE

Values = float | Sequence[float]
"""The score, or of a search with several goals the value of each, in their order."""


class Rungs:
    """The scores recorded at each rung of each cell (Li et al. 2020, algorithm 2).

    Of several goals trials compete by their rank of non-domination in place of their score (`pareto.ranks`).
    """

    def __init__(self, reduction_factor: float, goals: Sequence[str] = (SCORE,)) -> None:
        self.reduction_factor, self.goals = reduction_factor, tuple(goals)
        self.scores: dict[tuple[str, int], list[Any]] = defaultdict(list)
        """Numbers, or of several goals tuples."""
        self.promoted: set[tuple[str, int]] = set()
        """Trials and the rungs from which they went on: one that was cut short reaches a rung for a second time."""

    def fill(self, curves: pd.DataFrame, trials: pd.DataFrame) -> None:
        """Record the rung scores of earlier search trials, from `ledger.curves` and `ledger.load`."""
        rungs = curves[(curves["phase"] == Phase.SEARCH) & curves["score"].notna() & (curves["stage"] != "done")]
        elsewhere = [goal for goal in self.goals if goal not in rungs]
        rungs = rungs.merge(trials[["trial_id", *elsewhere]], how="left", on="trial_id") if elsewhere else rungs
        for cell, gan_steps, *values in rungs[["cell", "budget", *self.goals]].itertuples(index=False):
            self.scores[str(cell), int(gan_steps)].append(self._kept([float(value) for value in values]))

    def record_promoted(self, cell: str, gan_steps: int, score: Values, trial: str) -> None:
        """Record the score of an unfinished trial that went on from this rung before."""
        self.scores[cell, gan_steps].append(self._kept(score))
        self.promoted.add((trial, gan_steps))

    def record(self, cell: str, gan_steps: int, score: Values, trial: str | None = None) -> str | None:
        """Record a score at a rung; return why the trial should stop, or None to go on.

        A trial goes on if it is among the best 1/reduction_factor of those recorded there before it. The first always
        does, and so does a named trial that went on from there before. Only trials of one cell compete: all of a poor
        proxy's would lose against those of a good one.
        """
        if trial is not None and (trial, gan_steps) in self.promoted:
            return None
        recorded = self.scores[cell, gan_steps]
        recorded.append(self._kept(score))
        several = len(self.goals) > 1
        *before, own = -ranks(np.array(recorded, float), self.goals) if several else recorded
        cutoff = float(np.quantile(before, 1 - 1 / self.reduction_factor)) if before else -np.inf
        if own >= cutoff:
            if trial is not None:
                self.promoted.add((trial, gan_steps))
            return None
        if not several:
            return f"stopped early: score {own:.4f} at GAN step {gan_steps} is below the rung's {cutoff:.4f}"
        said = ", ".join(f"{goal} {value:.4g}" for goal, value in zip(self.goals, recorded[-1], strict=True))
        return f"stopped early: at GAN step {gan_steps} {said} are on front {1 - own}, the rung's is {1 - cutoff:.3g}"

    def _kept(self, score: Values) -> Any:
        """Return the score as it is kept: a number, or of several goals a tuple."""
        values = tuple(score) if isinstance(score, Sequence) else (score,)
        return values if len(self.goals) > 1 else values[0]


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
        reason = self.rungs.record(cell, result.gan_steps, result.goals(self.rungs.goals), result.id)
        if reason is not None:
            self.reasons[result.id] = reason
        return reason is None
