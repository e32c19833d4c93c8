"""The finished generators that a trial's student learns from, of `combined` several, read from the run's files."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from degan_search.networks.mixture import Mixture
from degan_search.settings.combine import member, trial_of
from degan_search.stages.gan import untrained_generator
from degan_search.storage import Place
from degan_search.storage.layout import GENERATOR
from degan_search.system.errors import UserError
from degan_search.system.weights_file import read_tensors
from degan_search.trial.context import TrialContext


def read_members(place: Place, members: Sequence[str]) -> list[dict[str, Tensor]]:
    """Return the state of each of these generators.

    Args:
        place: of the run's trials, a folder each.
        members: by their names in `combine.members`.

    Raises:
        UserError: a file is missing, or is not the one that the name's hash is of.
    """
    return [_read(place, name) for name in members]


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
    return Mixture(copy.deepcopy(one) for _ in trial.config.combine.members)


def _read(place: Place, name: str) -> dict[str, Tensor]:
    trial_id = trial_of(name)
    what = f"{trial_id}/{GENERATOR}"
    try:
        data = place.at(trial_id).read(GENERATOR)
    except FileNotFoundError:
        raise UserError(f"{what} is missing, and a student was to learn from it: put it back") from None
    if member(trial_id, data) != name:
        raise UserError(f"{what} is not the file that was combined ({name}): put that one back")
    return read_tensors(data, what)
