"""A teacher's weights from a file, read without trust."""

from __future__ import annotations

import io
import os

import torch
from torch import Tensor, nn

from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.settings.trial import TeacherConfig
from degan_search.system import seeds, untrusted
from degan_search.system.errors import UserError
from degan_search.system.weights_file import read_tensors

OWN_SUFFIXES = (".safetensors", ".pt", ".pth")
"""A state dict, or TorchScript if it is trusted. Not torch.export: its loader unpickles constants and loads native
code."""

TRUST = "DEGAN_SEARCH_TRUSTED"
_TRUSTED: set[str | None] = set()
"""Files that the user's own settings have called trusted in this process, by path."""


def trust(config: TeacherConfig) -> None:
    """Remember that the user's own settings trust this file, for commands that read the run later in this process."""
    _TRUSTED.add(config.path)


def recorded(config: TeacherConfig) -> TeacherConfig:
    """Return the teacher's settings from a ledger, not trusted unless the user says so outside the ledger.

    Whoever made the ledger may have written `trusted` into it. The user says so in settings of their own in this
    process (`trust`), as in the sweep that made the run, or by the environment variable TRUST = 1.
    """
    if config.path in _TRUSTED or os.environ.get(TRUST) == "1":
        return config
    return config.model_copy(update={"trusted": False})


def read_network(config: TeacherConfig, data: bytes, suffix: str, classes: int) -> nn.Module:
    """Return the network that a file's bytes hold; no pickled code is run, and no TorchScript that is not trusted.

    Raises:
        UserError: the bytes are broken, not trusted, or do not fit the settings.
    """
    what = f"teacher.path {config.path!r}" if config.path else "the teacher in the cache"
    if suffix == ".safetensors":
        state = read_tensors(data, what)
    elif _is_script(data, what):
        return _script(config, data, what)
    else:
        state = _state(data, what)
    with seeds.seeded(
        config.seed, "teacher", "weights"
    ):  # the weights are replaced, but torch's global generator must not advance
        model = build_classifier(config.network, classes, config.width)
    misfit = (
        f"{what} does not fit network {config.network!r} with {classes} classes "
        f"and width {config.width or CLASSIFIERS[config.network].width}"
    )
    try:
        expected = model.state_dict()
        for name in expected.keys() & state.keys():
            if state[name].is_floating_point() != expected[name].is_floating_point():
                raise UserError(f"{misfit}: {name} is {state[name].dtype}, not {expected[name].dtype}")
        model.load_state_dict(state)
    except UserError:
        raise
    except Exception as error:  # such as a kind of tensor that cannot be copied
        raise UserError(f"{misfit}: {(str(error) or repr(error)).splitlines()[-1].strip()}") from None
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise UserError(f"{what} holds values in {name} that are not finite")
    return model


def _is_script(data: bytes, what: str) -> bool:
    try:
        return untrusted.is_script(untrusted.check_zip(io.BytesIO(data), what, untrusted.MODEL_BYTES))
    except UserError as error:
        raise UserError(f"{what} is neither TorchScript nor a plain state dict (weights only): {error}") from None


def _script(config: TeacherConfig, data: bytes, what: str) -> nn.Module:
    if not config.trusted:
        raise UserError(
            f"{what} is TorchScript, a program that runs on this machine: set teacher.trusted to true (for a command "
            f"that reads a run, {TRUST}=1) if you know who made it, or give a state dict (.safetensors)"
        )
    try:
        script: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UserError(f"{what} is not whole TorchScript: {str(error).strip().splitlines()[0]}") from None
    return script


def _state(data: bytes, what: str) -> dict[str, Tensor]:
    try:
        untrusted.check_state(data, what)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a file made to do harm can make the reader raise anything
        why = error if isinstance(error, UserError) else "it is broken"
        raise UserError(f"{what} is neither TorchScript nor a plain state dict (weights only): {why}") from None
    plain = isinstance(state, dict) and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in state.items())
    if not plain:
        raise UserError(f"{what} holds no plain state dict, tensors by name")
    return dict(state)  # an OrderedDict may carry further attributes
