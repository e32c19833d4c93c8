"""Which generators of a search teach further students, together or each alone: those of its best trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from degan_search.ledger.columns import config_of
from degan_search.selection import choose
from degan_search.selection.repeats import number_repeated
from degan_search.settings.combine import Combine, CombineConfig, member, trial_of
from degan_search.settings.methods import COMBINED, METHODS, TUNED, combined, normalised
from degan_search.settings.trial import ProbeConfig, TrialConfig
from degan_search.storage.layout import EARLY, GENERATOR
from degan_search.system import untrusted
from degan_search.system.errors import UserError
from degan_search.system.seeds import stream_seed

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 2
KIND = ("config_gan_width", "config_gan_latent", "config_gan_size")
"""Columns in which generators that are combined agree: those that make their network."""


def combined_config(trials: pd.DataFrame, by: str, wanted: Combine, run: Path) -> TrialConfig | None:
    """Return the configuration of a student of the best generators, with the search's seed; None: fewer than two.

    Best by the measure that chooses configurations, of the finished search trials of methods with weights whose
    generator's file is there; all have the network of the first of them, and its configuration is the student's.

    Args:
        trials: of one cell, or of one proxy, from `ledger.load`.
        by: the measure.
        wanted: how many, and how.
        run: the run's folder.

    Raises:
        UserError: a generator's file that is a link out of the run, or too large.
    """
    tuned = trials[trials["config_method"].isin(TUNED)]
    if choose.finished(tuned).dropna(subset=by).empty:
        return None
    best = choose.best(tuned, by, per=(), top=len(tuned))
    files = {name: run / "trials" / str(name) / GENERATOR for name in best["trial_id"]}
    there = best[[files[name].is_file() for name in best["trial_id"]]]
    kinds = list(map(str, there[[*KIND]].to_numpy().tolist()))
    chosen = there[[kind == kinds[0] for kind in kinds]].head(wanted.members)
    if len(chosen) < FEWEST:
        return None
    members = [member(str(name), _content(files[name])) for name in chosen["trial_id"]]
    halves = {name: files[name].with_name(EARLY) for name in chosen["trial_id"] if wanted.early}
    early = [member(str(name), _content(file)) for name, file in halves.items() if file.is_file()]
    return combined(config_of(chosen.iloc[0]), members, early, wanted)


def repeated(trials: pd.DataFrame, by: str, run: Path) -> list[tuple[str, TrialConfig]]:
    """Return the generators of a cell's best quarter, by their names in `combine.members`, with their configurations.

    Best by one student each; those whose method trains no generator, or whose generator's file is gone, are left out.

    Args:
        trials: the finished search trials of one cell.
        by: the measure that chooses.
        run: the run's folder.

    Raises:
        UserError: a generator's file that is a link out of the run, or too large.
    """
    if trials.dropna(subset=by).empty:
        return []
    found = []
    for _, row in choose.best(trials, by, per=(), top=number_repeated(len(trials))).iterrows():
        file, config = run / "trials" / str(row["trial_id"]) / GENERATOR, config_of(row)
        if METHODS[config.method].generates and file.is_file():
            found.append((member(str(row["trial_id"]), _content(file)), config))
    return found


def _content(file: Path) -> bytes:
    if not file.resolve().is_relative_to(file.parent.parent.resolve()):
        raise UserError(f"{file} is a link to {file.resolve()}, outside its run; copy the file instead")
    return untrusted.read(file, str(file), untrusted.MODEL_BYTES)


def repeat(config: TrialConfig, generator: str, number: int) -> TrialConfig:
    """Return the configuration of a further student of a trial's generator, with a random stream of its own.

    The n-th repeats of all trials of one seed have one seed: what it brings them alike does not change their order.

    Args:
        config: of the trial.
        generator: its own, as `combine.members` names it.
        number: of the repeat, from 1.
    """
    seed = stream_seed(config.seed, "repeat", number) % 2**32
    changes = {"seed": seed, "combine": CombineConfig(members=(generator,)), "probe": ProbeConfig()}
    return normalised(config.model_copy(update=changes))


def combined_trials(frame: pd.DataFrame) -> set[str]:
    """Return the ids of the trials whose generators a combined student of the run learned from."""
    if "config_combine_members" not in frame:
        return set()
    rows = frame[frame["config_method"] == COMBINED]
    return {trial_of(name) for names in rows["config_combine_members"].dropna() for name in names}
