"""What trials share on a device, so that each process holds it once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from degan_search.data.images import to_input
from degan_search.networks.frozen import freeze
from degan_search.stages.teacher_file import Teacher
from degan_search.system.device import settled
from degan_search.training.measures import predict
from degan_search.trial import bank as banks
from degan_search.trial.images import Proxy

Pair = tuple[Tensor, Tensor]
"""Images with the teacher's logits, or training images with held-out ones."""


class Shared:
    """What trials on the same inputs share on a device: the frozen teacher, and images with its logits.

    No trial changes any of it, but each adds to `first_scores`. Each part is made when it is first asked for, and the
    device has finished it before it is returned, as each trial may run on a CUDA stream of its own. It holds no
    `Inputs`: those hold it, and a cycle would keep both in memory.
    """

    def __init__(
        self,
        teacher: Teacher,
        proxy: Proxy,
        bank: banks.Images,
        true: tuple[banks.Images | None, banks.Images | None],
        device: str,
    ) -> None:
        self.device = device
        self._teacher, self._proxy, self._bank, self._true = teacher, proxy, bank, true
        self._resized: dict[int, Tensor] = {}
        self.first_scores: dict[str, float] = {}
        """What a probe of the proxy images before a GAN's first step scored, by the settings that decide it."""

    @cached_property
    def teacher(self) -> nn.Module:
        """The frozen network."""
        return settled(self._teacher.model(self.device))

    @cached_property
    def fast_teacher(self) -> nn.Module:
        """The teacher with its norms folded."""
        return settled(freeze(self.teacher, fold_norms=True))

    @cached_property
    def bank(self) -> Pair:
        """The bank's images and logits."""
        images = self.moved(self._bank)
        return settled((images, predict(self.teacher, images)))

    @cached_property
    def proxy(self) -> Tensor:
        """Every proxy image."""
        return settled(self.moved(self._proxy.images))

    def proxy_of(self, size: int) -> Tensor:
        """Return every proxy image, brought to a height and width."""
        if self._proxy.images.shape[2:] == (size, size):
            return self.proxy
        images = self._proxy.images
        if size not in self._resized:
            self._resized[size] = settled(self.moved(to_input(images, images.shape[1], (size, size), "stretch")))
        return self._resized[size]

    @cached_property
    def proxy_logits(self) -> Pair:
        """The logits of `proxy_parts`."""
        return self._logits(self.proxy_parts())

    @cached_property
    def true_logits(self) -> Pair:
        """The logits of `true_parts`."""
        return self._logits(self.true_parts())

    def proxy_parts(self) -> Pair:
        """Return copies of the proxy's training and held-out images; they are not kept here, to save memory."""
        train, held_out = (self.moved(rows) for rows in (self._proxy.train, self._proxy.held_out))
        return self.proxy[train], self.proxy[held_out]

    def true_parts(self) -> Pair:
        """Return the true training and held-out images."""
        train, held_out = self._true
        assert train is not None and held_out is not None, "prepare() gives them for this method"
        return self.moved(train), self.moved(held_out)

    def moved(self, array: np.ndarray) -> Tensor:
        """Return an array on the device."""
        return torch.from_numpy(array).to(self.device)

    def _logits(self, parts: Pair) -> Pair:
        return settled((predict(self.teacher, parts[0]), predict(self.teacher, parts[1])))
