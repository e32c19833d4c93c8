"""Generated images of which the teacher sees each class about equally often."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from degan_search.stages.image_sources import CHUNK, Batch, GeneratorSource, no_logits

DRAWS = 4
"""Images drawn for each that is kept."""


class BalancedSource(GeneratorSource):
    """Images of a generator, of which those are kept that the teacher's classes have fewest of.

    Of `DRAWS` times as many, drawn chunk by chunk, each class gives equally many; one that has fewer gives all, and
    the others make up for it.
    """

    @torch.no_grad()
    def make(self, count: int, rng: torch.Generator, with_logits: bool = True) -> Batch:
        """Return this many new images in [-1, 1] and the teacher's logits; [n, 0] without `with_logits`."""
        images, logits = [], []
        for start in range(0, count, CHUNK):
            wanted = min(CHUNK, count - start)
            drawn, seen = super().make(DRAWS * wanted, rng)
            kept = balanced(seen.argmax(dim=1), wanted)
            images.append(drawn[kept])
            logits.append(seen[kept])
        made = torch.cat(images)
        return made, torch.cat(logits) if with_logits else no_logits(made)


def balanced(labels: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " m"]:
    """Return the places of `count` images, as many of each class as there are to be had, the first of each."""
    order = labels.argsort(stable=True)
    sizes = labels.bincount()
    rank = torch.empty_like(labels)
    rank[order] = torch.arange(len(labels), device=labels.device) - (sizes.cumsum(0) - sizes)[labels[order]]
    return rank.argsort(stable=True)[:count]
