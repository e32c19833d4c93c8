"""The state of a running trial as bytes, so that it can go on later."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from degan_search.system import untrusted
from degan_search.system.errors import UserError

MAGIC = b"degan_search trial state 4\n"
"""The first bytes of a saved state. Raise the number when what a stage saves changes."""
DIGEST = hashlib.sha256().digest_size


def snapshot(state: Any) -> Any:
    """Return a copy on the CPU, which no later step changes; its tensors keep their strides."""
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
    """Return a trial's state (`Trial.state_dict`) as bytes: a magic word, the content's SHA-256, the content."""
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
