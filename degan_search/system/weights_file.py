"""Tensors as safetensors bytes, which hold no code."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor

from degan_search.system.errors import UserError


def tensors_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return named tensors (a network's state, images) as safetensors bytes."""
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
