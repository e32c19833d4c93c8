"""A teacher as bytes, and its weights from a file, read without trust."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from degan_search.networks.front import Classifier
from degan_search.networks.frozen import freeze
from degan_search.networks.image_input import ImageInput
from degan_search.networks.own import Outputs
from degan_search.networks.table import build_classifier, has_weights, own_classes
from degan_search.networks.takes import teacher_input
from degan_search.settings.paths import whole
from degan_search.settings.trial import TeacherConfig
from degan_search.stages.checkpoint_state import describe, find_state, misfit, nearest, state_of_classes
from degan_search.system import seeds, untrusted
from degan_search.system.errors import UserError
from degan_search.system.trust import TRUSTED
from degan_search.system.weights_file import read_tensors

_TRUSTED: set[str | None] = set()
"""Files that the user's own settings have called trusted in this process, by path."""


@dataclass(frozen=True)
class Teacher:
    """A teacher as bytes, so that workers can share it; `model` makes the frozen network."""

    config: TeacherConfig
    data: bytes
    suffix: str
    class_names: tuple[str, ...]
    hash: str
    holdout_accuracy: float | None
    """On held-out true images; None: there are none."""
    outputs: Outputs = "logits"
    """What the network gives; `model` gives logits always."""

    @property
    def classes(self) -> int:
        """How many classes it knows."""
        return len(self.class_names)

    @property
    def takes(self) -> ImageInput:
        """What the network takes, and the shape in which images are given to it."""
        return teacher_input(self.config)

    def model(self, device: str = "cpu") -> nn.Module:
        """Return the frozen network on a device, in eval mode: images in [-1, 1] to logits."""
        network = freeze(read_network(self.config, self.data, self.suffix, self.classes, device))
        return Classifier(network, self.takes, self.outputs).eval().to(device)


def decisive(config: TeacherConfig) -> dict[str, Any]:
    """Return the settings that decide what a teacher gives, without those that are left out: they came later."""
    about = config.model_dump(mode="json", exclude={"trusted", "check", "input", "classes"})
    given = config.input.model_dump(mode="json", exclude_none=True)
    return about | ({"input": given} if given else {})


def trust(config: TeacherConfig) -> None:
    """Remember that the user's own settings trust this file, for commands that read the run later in this process."""
    _TRUSTED.add(config.path)


def recorded(config: TeacherConfig) -> TeacherConfig:
    """Return the teacher's settings from a ledger, not trusted unless the user says so outside the ledger.

    Whoever made the ledger may have written `trusted` into it. The user says so in settings of their own in this
    process (`trust`), as in the sweep that made the run, or by the environment variable TRUSTED = 1.
    """
    if config.path in _TRUSTED or os.environ.get(TRUSTED) == "1":
        return config
    return config.model_copy(update={"trusted": False})


def read_network(
    config: TeacherConfig,
    data: bytes,
    suffix: str,
    classes: int | None,
    device: str = "cpu",
    note: Callable[[str], None] = lambda text: None,
) -> nn.Module:
    """Return the network that a file's bytes hold; no pickled code is run, and no TorchScript that is not trusted.

    What the file is, its content says; the suffix decides only where that is broken.

    Args:
        config: the network, and whether TorchScript is trusted.
        data: safetensors, TorchScript, or what torch.save wrote: a state dict, or a checkpoint with one in it.
        suffix: of the file's name.
        classes: how many outputs a network has that is built from its name; None: as many as the file's.
        device: where TorchScript is loaded to; its constants cannot be moved. Other networks are on the CPU.
        note: is told what the user should know.

    Raises:
        UserError: the bytes are broken, not trusted, or do not fit the settings.
    """
    what = named(config) if config.path else "the teacher in the cache"
    if has_weights(config.network):
        takes, known = teacher_input(config), classes or own_classes(config.network) or 1
        return build_classifier(config.network, known, None, takes.channels, takes.size)
    if _is_safetensors(data, suffix):
        loaded: object = read_tensors(data, what)
    elif _is_script(data, what):
        return _script(config, data, what, device)
    else:
        loaded = _loaded(data, what)
    return _filled(config, loaded, classes, what, note)


def _filled(
    config: TeacherConfig, loaded: object, classes: int | None, what: str, note: Callable[[str], None]
) -> nn.Module:
    """Return the network that settings name, with the weights that a loaded file holds."""
    takes = teacher_input(config)
    # The weights are replaced, but torch's global generator must not advance.
    with seeds.seeded(config.seed, "teacher", "weights"):
        if classes is None:
            classes = state_of_classes(loaded, config.network, config.width, channels=takes.channels, size=takes.size)
        model = build_classifier(config.network, classes, config.width, takes.channels, takes.size)
    expected = model.state_dict()
    found = find_state(loaded, expected, what)
    state = found.state
    where = f"{what} at {found.place!r}" if found.place else what
    why_not = f"{where} does not fit {describe(config, classes)}"
    if fault := misfit(state, expected):
        raise UserError(f"{why_not}: {fault}; {nearest(state)}")
    for name, value in state.items():
        if value.is_floating_point() != expected[name].is_floating_point():
            raise UserError(f"{why_not}: {name} is {value.dtype}, not {expected[name].dtype}")
    try:
        model.load_state_dict(state)
    except Exception as error:  # such as a kind of tensor that cannot be copied
        raise UserError(f"{why_not}: {(str(error) or repr(error)).splitlines()[-1].strip()}") from None
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise UserError(f"{where} holds values in {name} that are not finite")
    if found.note:
        note(found.note)
    return model


def named(config: TeacherConfig) -> str:
    """Return what messages call the user's file: with its whole path."""
    return f"teacher.path {whole(str(config.path))!r}"


def _is_safetensors(data: bytes, suffix: str) -> bool:
    """Return whether bytes begin with a safetensors file's length of the header and the header's brace."""
    if data.startswith(b"PK"):
        return False
    return suffix == ".safetensors" or (data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8)


def _is_script(data: bytes, what: str) -> bool:
    if untrusted.is_legacy(data):
        return False
    try:
        return untrusted.is_script(untrusted.check_zip(io.BytesIO(data), what, untrusted.MODEL_BYTES))
    except UserError as error:
        raise UserError(f"{what} is neither TorchScript nor a plain state dict (weights only): {error}") from None


def _script(config: TeacherConfig, data: bytes, what: str, device: str) -> nn.Module:
    if not config.trusted:
        raise UserError(
            f"{what} is TorchScript, a program that runs on this machine: set teacher.trusted to true (for a command "
            f"that reads a run, {TRUSTED}=1) if you know who made it, or give a state dict (.safetensors)"
        )
    try:
        script: nn.Module = torch.jit.load(io.BytesIO(data), map_location=device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UserError(f"{what} is not whole TorchScript: {str(error).strip().splitlines()[0]}") from None
    if any(weight.is_floating_point() and weight.dtype != torch.float32 for weight in script.parameters()):
        script.float()  # half precision, say: images are float32
    return script


def _loaded(data: bytes, what: str) -> object:
    try:
        untrusted.check_state(data, what)
        numpys = [(untrusted.Unread, name) for name in untrusted.NUMPY]
        with torch.serialization.safe_globals([argparse.Namespace, *numpys]):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a file made to do harm can make the reader raise anything
        why = error if isinstance(error, UserError) else "it is broken"
        raise UserError(
            f"{what} is neither TorchScript nor a plain state dict (weights only): {why}; write one by "
            "torch.save(model.state_dict(), FILE)"
        ) from None
