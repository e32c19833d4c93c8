"""The networks of a finished trial, read from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from torch import nn

from degan_search import ledger
from degan_search.ledger.columns import Phase, State
from degan_search.networks import dcgan, mosaic
from degan_search.networks.mixture import Mixture
from degan_search.networks.takes import generated_size, student_input, teacher_input, untrained
from degan_search.settings.methods import METHODS
from degan_search.settings.trial import TrialConfig
from degan_search.system import untrusted
from degan_search.system.errors import UserError, close_matches, notice
from degan_search.system.weights_file import read_tensors

BEST = "best"
"""Instead of a trial's id: the trial of the best score. A method's name is the best of this method."""


def find(run: Path, trial: str | None, network: Literal["student", "generator"]) -> pd.Series:
    """Return the ledger row of a finished trial that left this network.

    Args:
        run: the run's folder.
        trial: an id, BEST, a method's name, or None where there is one choice only.
        network: what will be loaded.

    Raises:
        UserError: no such run or trial, a trial that has not left the network, or several to choose from.
    """
    frame = ledger.load(run)
    there = np.array([_file(run, name, network).is_file() for name in frame["trial_id"]], bool)
    left = frame[(frame["state"] == State.COMPLETE) & there]
    names = left["trial_id"].tolist()
    if left.empty:
        raise UserError(f"no trial of {run} has a {network} in {run / 'trials'}: nothing can be made from this run")
    if trial is None and len(left) > 1:
        raise UserError(
            f"--trial is needed, as {len(left)} trials of {run} have a {network}: {BEST!r} for that of the best "
            f"score, a method's name for the best of it, or an id such as {', '.join(names[:3])}"
        )
    of_method = trial in METHODS
    if of_method:
        left = left[left["config_method"] == trial]
        if left.empty:
            raise UserError(f"no trial of method {trial!r} of {run} has a {network}; others have one: {names[0]}")
    if of_method or trial in (None, BEST):
        scores = left["score"].where(left["phase"] != Phase.REPEAT)  # the luckiest seed of several is not the best
        best = left.iloc[int(scores.fillna(float("-inf")).argmax())]
        _tell_of_other_proxies(left, best)
        return best
    asked = frame[frame["trial_id"] == trial]
    if asked.empty:
        raise UserError(f"{run} has no trial {trial!r}; {close_matches(trial, names)}")
    if trial not in names:
        raise UserError(f"{_why_none(run, asked.iloc[0], network)}; others have one: {', '.join(names[:3])}")
    return asked.iloc[0]


def _tell_of_other_proxies(left: pd.DataFrame, best: pd.Series) -> None:
    """Say that scores of several proxies are not of the same images, and which trial is the best on each other one."""
    by_bank = left.sort_values("score", ascending=False).drop_duplicates("compared_on")
    others = [f"{row.trial_id} on {row.config_proxy}" for row in by_bank.itertuples() if row.trial_id != best.trial_id]
    if others:
        notice(
            f"{best['trial_id']} on {best['config_proxy']} has the best score, but scores of different proxies are "
            f"measured on different images; the best of the others: {', '.join(others)}"
        )


def has_student(run: Path, trial_id: str) -> bool:
    """Return whether a trial's student is there: of most search trials it is removed, see `--keep`."""
    return _file(run, trial_id, "student").is_file()


def load_student(run: Path, trial_id: str, config: TrialConfig, classes: int) -> nn.Module:
    """Return a finished trial's student, in eval mode: images [N, C, H, W] in [-1, 1] to logits [N, classes].

    Raises:
        UserError: its file is missing, broken or another network's.
    """
    student = config.student
    model = untrained(student.network, classes, student.width, student_input(config))
    return _filled(model, _file(run, trial_id, "student"), trial_id)


def load_generator(run: Path, trial_id: str, config: TrialConfig) -> nn.Module:
    """Return a finished trial's generator, in eval mode: noise [N, latent] to images [N, C, size, size] in (-1, 1).

    Raises:
        UserError: its file is missing (methods that distil from images have none), broken or another network's.
    """
    takes, source = teacher_input(config.teacher), METHODS[config.method].source
    build = mosaic.build_generator if source == "mosaic" else dcgan.build_generator
    size, together = generated_size(config.gan, takes), source == "members"
    parts = len(config.combine.members) + len(config.combine.early) if together else 1
    made = [build(takes.channels, config.gan.width, config.gan.latent, size) for _ in range(parts)]
    return _filled(Mixture(made) if together else made[0], _file(run, trial_id, "generator"), trial_id)


def _file(run: Path, trial_id: str, network: str) -> Path:
    return run / "trials" / trial_id / f"{network}.safetensors"


def _why_none(run: Path, row: pd.Series, network: str) -> str:
    what = f"trial {row['trial_id']} has no {network}"
    if row["state"] != State.COMPLETE:
        return f"{what}, as it did not finish ({row['state']})"
    if network == "generator" and _file(run, row["trial_id"], "student").is_file():
        return f"{what}, as method {row['config_method']!r} distils from images (or the file was moved away)"
    return f"{what}: {_file(run, row['trial_id'], network)} is missing"


def _filled(model: nn.Module, file: Path, trial_id: str) -> nn.Module:
    if not file.is_file():
        raise UserError(f"{file} is missing: this network of {trial_id} was not saved, or its file was moved away")
    if not file.resolve().is_relative_to(file.parent.parent.resolve()):
        raise UserError(f"{file} is a link to {file.resolve()}, outside its run; copy the file instead")
    state = read_tensors(untrusted.read(file, str(file), untrusted.MODEL_BYTES), str(file))
    try:
        model.load_state_dict(state)
    except Exception as error:  # other names or shapes, and kinds of tensors that copying refuses
        why = (str(error) or repr(error)).splitlines()[-1].strip()
        raise UserError(f"{file} does not fit {trial_id}: {why}") from None
    return model.eval()
