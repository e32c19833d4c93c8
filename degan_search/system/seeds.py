"""Named streams of random numbers, each with a seed of its own."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_GLOBAL = threading.RLock()
"""Held while torch's global generators, which all threads share, follow a stream."""


def stream_seed(seed: int, *names: str | int) -> int:
    """Return the seed (63 bits) of the stream with these names; other names give independent streams."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: str = "cpu") -> torch.Generator:
    """Return torch's random generator of the named stream on a device."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *names))


@contextmanager
def seeded(seed: int, *names: str | int, device: str = "cpu") -> Iterator[torch.Generator]:
    """Make torch's global generators (initial weights, dropout) follow the named stream, and restore them after.

    The block is given the device's global generator.
    """
    with _GLOBAL, torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, *names))
        own = torch.device(device)
        if own.type == "cuda":
            yield torch.cuda.default_generators[torch.cuda.current_device() if own.index is None else own.index]
        else:
            yield torch.default_generator
