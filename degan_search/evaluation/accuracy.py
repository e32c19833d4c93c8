"""Measures of finished students that no searcher sees: accuracy on true images, and agreement across trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from degan_search import ledger
from degan_search.data import proxies
from degan_search.evaluation import across_trials
from degan_search.evaluation.judges import Panels
from degan_search.evaluation.networks import has_student, load_generator, load_student
from degan_search.ledger.columns import Phase, State, config_of, score_schema
from degan_search.settings.combine import trial_of
from degan_search.settings.methods import trains_generator
from degan_search.settings.trial import TrialConfig
from degan_search.system.console import Count, PlainConsole
from degan_search.trial import named_files
from degan_search.trial.images import held_out_images, held_out_of, load_proxy, tested_on

COMPARED_WITHIN = ["config_task", "config_teacher_dataset", "teacher_hash", "compared_on", "config_count"]
"""Columns whose values are equal among search trials that are compared with each other."""


def evaluate(run: Path, data_dir: Path | None, cache: Path, console: Console | None = None) -> int:
    """Score every finished trial that lacks a score; return how many were scored.

    Without true images and `teacher.check` there are no accuracies; where no images are held out, no oracle's.
    Oracle accuracy is that on the held-out 20% of the true training images, and on each half of it. It is
    computed here, apart from the search, so that no searcher can see it. Test accuracy is computed for
    trials of phase `final` only. Students that learned new classes are scored on images of old and new ones, and on
    each kind apart. The agreements of `across_trials.agreements` are computed anew for all search trials and
    repeats on a proxy once one of them has none.

    Args:
        run: the run's folder.
        data_dir: folder of the image sets.
        cache: folder of trained teachers.
        console: where progress is shown; None: nowhere.

    Raises:
        UserError: a network's file is missing or broken, or a file that the run names has changed.
    """
    frame = ledger.load(run)
    done = frame[frame["state"] == State.COMPLETE]
    held_out = done["config_teacher_holdout"] != 0
    tested = (
        (done["phase"] == Phase.FINAL) & done["config_teacher_dataset"].map(_has_test) & done["test_accuracy"].isna()
    )
    unscored = (done["config_teacher_dataset"].notna() & held_out & done["oracle_half_1"].isna()) | (~held_out & tested)
    unscored |= done["config_teacher_check"].notna() & done["check_accuracy"].isna()
    if unscored.any() or done["cross_agreement"].isna().any():
        check_files(run, done, data_dir)
    panels, console = Panels(data_dir, cache), console or PlainConsole(quiet=True)
    scores: dict[str, dict[str, Any]] = {}
    with Count(console, "Accuracies", int(unscored.sum()), "trials") as count:
        for _, row in done[unscored].iterrows():
            scores[str(row["trial_id"])] = _accuracies(run, row, panels)
            count.add()
    # While a search runs, the networks of most finished trials have been removed: those keep their old agreements.
    there = np.array([has_student(run, str(name)) for name in done["trial_id"]], bool) | done["cross_agreement"].isna()
    judged = done["phase"].isin((Phase.SEARCH, Phase.REPEAT))
    compared = done[judged & there].groupby(COMPARED_WITHIN, dropna=False, sort=False)
    groups = [
        trials
        for _, trials in compared
        if trials["cross_agreement"].isna().any() and config_of(trials.iloc[0]).task == "distillation"
    ]
    with Count(console, "Agreement across trials", sum(map(len, groups)), "trials") as count:
        for trials in groups:
            for trial_id, agreements in _agreements(run, trials, panels, count).items():
                scores.setdefault(trial_id, {}).update(agreements)
    known = done.set_index("trial_id")[[name for name in score_schema().names if name in done and name != "trial_id"]]
    for trial_id, measured in scores.items():
        before = {str(name): value for name, value in known.loc[trial_id].items() if pd.notna(value)}
        ledger.write_scores(run, _row(trial_id, before | measured))
    return len(scores)


def check_files(run: Path, trials: pd.DataFrame, data_dir: Path | None) -> None:
    """Refuse a teacher's file, or images, that are not those with which these trials of a run ran.

    Raises:
        UserError: names what has changed.
    """
    named = ("teacher_dataset", "teacher_check", "proxy", "bank_proxies", "bank_judges")
    sets = [name for column in named for name in trials[f"config_{column}"].explode().dropna().unique()]
    named_files.check(run, trials["config_teacher_path"].dropna().unique(), sets, data_dir)


def _row(trial_id: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    # Counts pass through pandas as floats.
    return {"trial_id": trial_id} | {
        name: int(value) if name.startswith("n_") else value for name, value in scores.items()
    }


def _accuracies(run: Path, row: pd.Series[Any], panels: Panels) -> dict[str, Any]:
    config = config_of(row)
    panel = panels[config.teacher]
    student = load_student(run, str(row["trial_id"]), config, panel.outputs(config))
    scores: dict[str, Any] = {}
    for name in _kinds(row, config):
        judges = panel.judges(config, name)
        each = [judge.right(student) for judge in judges]
        right = torch.cat(each).double()
        scores |= {f"{name}_accuracy": right.mean().item(), f"n_{name}": len(right)}
        scores[f"teacher_{name}_accuracy"] = panel.teacher_accuracy(name)
        if name == "oracle":  # every other image: a set sorted by class is halved within each class
            scores |= {f"oracle_half_{half + 1}": right[half::2].mean().item() for half in (0, 1)}
        if len(each) == 2:  # images of old and of new classes
            old, new = (part.double().mean().item() for part in each)
            scores |= {"old_accuracy": old, "new_accuracy": new}
    return scores


def _kinds(row: pd.Series[Any], config: TrialConfig) -> tuple[str, ...]:
    """Return which labelled images a trial is scored on; a user's own folders have no test images."""
    few = ("check",) if config.teacher.check else ()
    if config.teacher.dataset is None:
        return few
    tested = row["phase"] == Phase.FINAL and all(map(_has_test, tested_on(config)))
    return (*few, *(["oracle"] if config.teacher.holdout else []), *(["test"] if tested else []))


def _has_test(dataset: str | None) -> bool:
    return isinstance(dataset, str) and proxies.has_test(dataset)


def _agreements(run: Path, trials: pd.DataFrame, panels: Panels, count: Count) -> dict[str, across_trials.Scores]:
    first = config_of(trials.iloc[0])
    compared = [load_proxy(config, panels.data_dir) for config in held_out_of(first)]
    panel = panels[first.teacher]
    competitors = []
    for _, row in trials.iterrows():
        trial_id, config = str(row["trial_id"]), config_of(row)
        repeated = [trial_of(name) for name in config.combine.members]
        competitors.append(
            across_trials.Competitor(
                trial_id,
                load_student(run, trial_id, config, panel.outputs(config)),
                load_generator(run, trial_id, config) if trains_generator(config) else None,
                config.gan.latent,
                config.seed,
                *repeated,
            )
        )
    held_out = torch.from_numpy(held_out_images(first, compared))
    return across_trials.agreements(competitors, held_out, panel.teacher, count)
