"""The finished generators that a trial's student learns from, of `combined` several, read from the run's files."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from degan_search.networks.mixture import Mixture
from degan_search.settings.combine import CombineConfig, member, trial_of
from degan_search.stages.gan import untrained_generator
from degan_search.storage import Place
from degan_search.storage.layout import EARLY, GENERATOR
from degan_search.system.errors import UserError
from degan_search.system.weights_file import read_tensors
from degan_search.trial.context import TrialContext


def read_members(place: Place, combine: CombineConfig) -> list[dict[str, Tensor]]:
    """Return the state of each generator that a trial learns from, `combine.early` after `combine.members`.

    Args:
        place: of the run's trials, a folder each.
        combine: of the trial.

    Raises:
        UserError: a file is missing, or is not the one that the name's hash is of.
    """
    of_trials = [_read(place, name, GENERATOR) for name in combine.members]
    return of_trials + [_read(place, name, EARLY) for name in combine.early]


def given_generator(trial: TrialContext, members: Sequence[Mapping[str, Tensor]]) -> nn.Module | None:
    """Return the generators with these states as one; None for a trial that names none."""
    if not trial.config.combine.members:
        return None
    generator = _untrained(trial)
    parts = generator.members if isinstance(generator, Mixture) else [generator]
    for part, state in zip(parts, members, strict=True):
        part.load_state_dict(state)
    return generator


def loaded_generator(trial: TrialContext, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the trial's generator with the state that it had."""
    generator = _untrained(trial)
    generator.load_state_dict(state)
    return generator


def _untrained(trial: TrialContext) -> nn.Module:
    one = untrained_generator(trial.config.gan, trial.image_shape, trial.context)
    if trial.method.source != "members":
        return one
    combine = trial.config.combine
    return Mixture(copy.deepcopy(one) for _ in (*combine.members, *combine.early))


def _read(place: Place, name: str, file: str) -> dict[str, Tensor]:
    trial_id = trial_of(name)
    what = f"{trial_id}/{file}"
    try:
        data = place.at(trial_id).read(file)
    except FileNotFoundError:
        raise UserError(f"{what} is missing, and a student was to learn from it: put it back") from None
    if member(trial_id, data) != name:
        raise UserError(f"{what} is not the file that was combined ({name}): put that one back")
    return read_tensors(data, what)
