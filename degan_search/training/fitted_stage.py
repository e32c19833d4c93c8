"""A stage that is one fitting loop over batches: what training a teacher, a student and new classes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from degan_search.networks.layers import draw_from
from degan_search.training.loop import Fitting, Progress

DROPOUT = "dropout_rng"
"""The name of the stream that the network's dropout draws from."""


class SavedBatches(Protocol):
    """Batches that can be saved, and go on where they were saved."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the batches need to go on."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from a saved state."""


class FittedStage:
    """A stage of one `Fitting`, with its batches and its random streams; see `loop.Stage`.

    While it lasts, the network's dropout draws from the stage's own stream; afterwards from torch's global one again.
    """

    def __init__(
        self, network: nn.Module, fitting: Fitting, batches: SavedBatches, streams: Mapping[str, torch.Generator]
    ) -> None:
        """Begin.

        Args:
            network: whose dropout draws from `streams[DROPOUT]`.
            fitting: trains it, or a part of it.
            batches: that the fitting draws.
            streams: every random stream of the stage, by its name in a saved state.
        """
        self.network, self.fitting, self.batches, self.streams = network, fitting, batches, dict(streams)
        draw_from(network, self.streams[DROPOUT])

    @property
    def learned(self) -> nn.Module:
        """The network as it would be if training ended now and kept its last weights; in eval mode after an epoch."""
        return self.network

    @property
    def watch(self) -> Callable[[], dict[str, float]]:
        """Called after each epoch; what it returns is reported."""
        return self.fitting.watch

    @watch.setter
    def watch(self, watch: Callable[[], dict[str, float]]) -> None:
        self.fitting.watch = watch

    @property
    def done(self) -> bool:
        """Whether the network has its final weights."""
        return self.fitting.done

    @property
    def steps(self) -> int:
        """Steps of the network so far."""
        return self.fitting.steps

    def step(self) -> Progress | None:
        """Train on a batch; returns the progress after an epoch.

        Raises:
            DivergedError: the loss is not finite.
        """
        progress = self.fitting.step()
        if self.done:
            draw_from(self.network, None)
        return progress

    def state_dict(self) -> dict[str, Any]:
        """Return the training's state, that of the batches, and the random streams'."""
        return {
            "fitting": self.fitting.state_dict(),
            "batches": self.batches.state_dict(),
            **{name: stream.get_state() for name, stream in self.streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.fitting.load_state_dict(state["fitting"])
        self.batches.load_state_dict(state["batches"])
        for name, stream in self.streams.items():
            stream.set_state(state[name])
        draw_from(self.network, None if self.done else self.streams[DROPOUT])
