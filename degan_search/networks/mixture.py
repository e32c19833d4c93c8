"""Several generators as one."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn


class Mixture(nn.Module):
    """Generators of one shape that take turns: of k, the n-th image of a call is made by number n mod k."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, z: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Return the images of this noise, in its order."""
        turns = len(self.members)
        made = [member(z[place::turns]) for place, member in enumerate(self.members) if place < len(z)]
        images: Tensor = made[0].new_empty((len(z), *made[0].shape[1:]))
        for place, own in enumerate(made):
            images[place::turns] = own
        return images
