"""Network weights as bytes without pickled code, and the state of a running trial, so that it can go on later."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from degan_search import untrusted
from degan_search.errors import UserError

MAGIC = b"degan_search trial state 1\n"
"""What a file of a trial's state begins with. Raise the number when a stage's parts change."""
DIGEST = hashlib.sha256().digest_size


class Stateful(Protocol):
    """What can be saved and put back: a network, an optimiser, a schedule, or a class of ours."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return what the part needs to go on."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Put a returned state back, in place."""


P = TypeVar("P", bound=Stateful)


class Parts:
    """The parts of a running stage under names; a part is put back when it is added, if its state was saved.

    A stage adds its networks, optimisers, random generators and counters as it makes them, and then just runs. What is
    added again under a name replaces the former part. `Parts` within `Parts` make a tree. Parts may go on
    with the very tensors that were saved: give a `snapshot` of a state that shall stay as it is.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        self._saved, self._parts = dict(saved or {}), dict[str, Stateful]()

    def add(self, name: str, part: P) -> P:
        """Return the part, from now on saved under this name; the saved state is loaded once."""
        if name in self._saved:
            part.load_state_dict(self._saved.pop(name))
        self._parts[name] = part
        return part

    def stream(self, name: str, rng: torch.Generator) -> torch.Generator:
        """Return the random generator, from now on saved under this name."""
        self.add(name, _Stream(rng))
        return rng

    def saved(self, name: str) -> bool:
        """Return whether a part of this name was saved, and not yet added."""
        return name in self._saved

    def drop(self, name: str) -> None:
        """Forget a part that is no longer needed."""
        del self._parts[name]

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all parts; tensors are those in use, see `snapshot`."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the saved states of the parts that are going to be added."""
        self._saved = dict(state)


class Values(SimpleNamespace):
    """Numbers, tensors and dicts of these as attributes; a loaded one's tensors are put on the device."""

    def __init__(self, device: str | torch.device = "cpu", **values: Any) -> None:
        super().__init__(**values)
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        """Return the values by name."""
        return {name: value for name, value in vars(self).items() if name != "_device"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set all values."""
        vars(self).update(_on_tensors(lambda tensor: tensor.to(self._device), state))


class _Stream:
    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng

    def state_dict(self) -> dict[str, Tensor]:
        return {"state": self.rng.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.rng.set_state(state["state"])


def snapshot(state: Any) -> Any:
    """Return a copy on the CPU that nothing changes any more; each tensor keeps its strides and has its own memory."""
    return _on_tensors(lambda tensor: tensor.detach().to("cpu", copy=True), state)


def _on_tensors(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, Mapping):
        return {key: _on_tensors(function, value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_on_tensors(function, value) for value in state)
    return state


def state_bytes(state: dict[str, Any]) -> bytes:
    """Return a trial's state (`pipeline.Trial.state`) as bytes: a magic word, the content's SHA-256, the content."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return b"".join((MAGIC, hashlib.sha256(buffer.getbuffer()).digest(), buffer.getbuffer()))


def read_state(data: bytes, what: str) -> dict[str, Any]:
    """Return the state that `state_bytes` wrote; no pickled code is run.

    Raises:
        UserError: the bytes are not whole, or of another version; `what` names them.
    """
    if not data.startswith(MAGIC):
        raise UserError(f"{what} is not a trial's state, or of another version of degan_search; remove it")
    view = memoryview(data)[len(MAGIC) :]
    digest, content = view[:DIGEST], view[DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise UserError(f"{what} is not whole: its content does not have the SHA-256 written in it; remove it")
    try:
        untrusted.check_state(bytes(content), what)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # whatever a made-up file makes the reader raise
        state = None
    if not isinstance(state, dict):
        raise UserError(f"{what} does not hold a trial's state; remove it")
    return state


def tensors_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return named tensors (a network's state, images) as safetensors bytes: no pickled code inside."""
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def read_tensors(data: bytes, what: str) -> dict[str, Tensor]:
    """Return the tensors that `tensors_bytes` wrote.

    Raises:
        UserError: the bytes are not whole safetensors; `what` names them.
    """
    try:
        return load(data)
    except Exception as error:  # its own, and those of kinds or shapes that torch does not have
        raise UserError(f"{what} is not a whole safetensors file: {error}") from None
