"""Which trials' networks stay on the disk after a search: those of the best of each cell."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pandas as pd

from degan_search.ledger.columns import Phase, State
from degan_search.selection import choose, pareto
from degan_search.selection.members import combined_trials
from degan_search.storage.layout import EARLY, GENERATOR, STUDENT
from degan_search.system.errors import UserError

NETWORKS = (STUDENT, GENERATOR, EARLY)


def needless(run: Path, frame: pd.DataFrame, keep: int | None, by: str | None) -> list[Path]:
    """Return the network files of finished search trials and repeats, but those of the best `keep` trials of each cell.

    The best are chosen by the measure that chooses configurations, and also by score; of a search with several goals
    those on its Pareto front are kept too. Rows, grids of samples and the
    networks of final runs stay, and those of trials whose generators were combined in one. None keeps all. Call it
    after the accuracies are measured, which needs the networks.
    """
    if keep is None:
        return []
    goals = pareto.goals_of(run)
    done = frame[(frame["phase"] != Phase.FINAL) & (frame["state"] == State.COMPLETE)]
    files: list[Path] = []
    for _, trials in done.groupby("cell"):
        kept = combined_trials(frame)
        for measure in {choose.chosen_by(trials, by), "score"} if keep else ():
            with contextlib.suppress(UserError):  # no trial has it
                kept |= set(choose.best(trials, measure, per=(), top=keep)["trial_id"])
        if keep and len(goals) > 1:
            with contextlib.suppress(UserError):  # no trial has all goals
                kept |= set(pareto.front(trials, goals, ("cell",))["trial_id"])
        folders = [run / "trials" / str(name) for name in trials["trial_id"] if name not in kept]
        files += [file for folder in folders for name in NETWORKS if (file := folder / name).is_file()]
    return files
