"""A run's ledger as other tools read it: an Optuna journal for optuna-dashboard, event files for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from tensorboardX import SummaryWriter  # type: ignore[import-untyped]  # comes with ray[tune]; torch's needs tensorboard
from tensorboardX.summary import hparams  # type: ignore[import-untyped]

from degan_search import ledger
from degan_search.ledger.columns import METRICS, REPORT_COLUMNS
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import cells, lists
from degan_search.search.space.schema import Scalar
from degan_search.search.suggest.studies import studies
from degan_search.settings.criteria import REFEREE
from degan_search.system.errors import UserError

CURVES = [name for name in REPORT_COLUMNS if name not in ("budget", "seconds", "stage", REFEREE)]
"""What has a value at several GAN steps."""


def to_optuna(run: Path, file: Path) -> list[str]:
    """Write the search of a run into a new Optuna journal file, one study a cell; returns the studies' names.

    A study is called `<run> <cell>`. Trials are those of `studies.from_ledger`, but a parameter that is drawn from a
    list has the value itself, where a search has its place in the list.

    Raises:
        UserError: the file is already there, or the run cannot be read or holds no search trial.
        OSError: the disk refused.
    """
    if file.exists():
        raise UserError(f"{file} is already there; choose another --optuna, or move it away")
    found = studies(run)
    by_cell = {cell.label: lists(cell) for cell in cells(space_file.of_run(run))}
    if not found:
        raise UserError(f"{run} holds no search trial, so there is no study to export")
    file.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(file)))
    names = {label: f"{run.resolve().name} {label}" for label in found}
    for label, study in found.items():
        copy = optuna.create_study(storage=storage, study_name=names[label], directions=study.directions)
        copy.add_trials([_with_values(trial, by_cell[label]) for trial in study.get_trials()])
    return list(names.values())


def _with_values(trial: FrozenTrial, known: Mapping[str, list[Scalar]]) -> FrozenTrial:
    drawn = {name: values for name, values in known.items() if name in trial.params}
    trial.params |= {name: values[trial.params[name]] for name, values in drawn.items()}
    trial.distributions |= {name: CategoricalDistribution(values) for name, values in drawn.items()}
    return trial


def to_tensorboard(run: Path, folder: Path) -> int:
    """Write each trial of a run as a folder of events under a new folder; returns how many trials.

    `folder/<trial_id>` holds the curves by GAN step (`gan/d_loss`, ..., `gan/score` at rungs), the trial's
    measures (`measure/score`, ...) at its last GAN step, and as hyperparameters the phase, the cell, the state
    and the settings that vary from trial to trial. Wall times are those of the trial itself.

    Raises:
        UserError: the folder holds something already, or the run cannot be read.
        OSError: the disk refused.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is already there; choose another --tensorboard, or move it away")
    frame, curves = ledger.load(run), ledger.curves(run)
    points = dict(iter(curves[curves["stage"] != "done"].groupby("trial_id")))
    varying = _varying(frame)
    for row in frame.to_dict("records"):
        about = {name: row[name] for name in ("phase", "cell", "state")}
        settings = {name.removeprefix("config_"): _plain(row[name]) for name in varying}
        measures = {f"measure/{name}": float(row[name]) for name in METRICS if pd.notna(row[name])}
        step = 0 if pd.isna(row["gan_steps"]) else int(row["gan_steps"])
        began, ended = (0.0 if pd.isna(row[name]) else row[name].timestamp() for name in ("started", "finished"))
        with SummaryWriter(str(folder / row["trial_id"])) as writer:
            for tag, value, gan_steps, seconds in _curve(points.get(row["trial_id"], curves.iloc[:0])):
                writer.add_scalar(tag, value, gan_steps, began + seconds)
            for tag, value in measures.items():
                writer.add_scalar(tag, value, step, ended)
            # `add_hparams` would make a folder of its own for them.
            for summary in hparams(
                about | {name: value for name, value in settings.items() if value is not None}, measures
            ):
                writer.file_writer.add_summary(summary, walltime=ended)
    return len(frame)


def _curve(points: pd.DataFrame) -> Iterator[tuple[str, float, int, float]]:
    for point in points.to_dict("records"):
        for name in CURVES:
            if pd.notna(point[name]) and math.isfinite(point[name]):
                yield f"gan/{name}", float(point[name]), int(point["budget"]), float(point["seconds"])


def _varying(frame: pd.DataFrame) -> list[str]:
    """Return the columns of settings with more than one value."""
    names = [name for name in map(str, frame.columns) if name.startswith("config_")]
    settings = [name for name in names if name not in ("config_json", "config_hash")]
    return [name for name in settings if frame[name].astype(str).nunique(dropna=False) > 1]


def _plain(value: Any) -> Any:
    """Return a setting as TensorBoard accepts it; a list as text, a missing value as None."""
    if isinstance(value, np.ndarray | list):
        return str(np.asarray(value).tolist())
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
