"""Several generators as one: who makes which image."""

import pytest
import torch
from torch import nn

from degan_search.networks.mixture import Mixture


class Paints(nn.Module):
    """Makes images of one value, with the noise's number in the corner."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, z):
        images = torch.full((len(z), 1, 2, 2), self.value)
        images[:, 0, 0, 0] = z[:, 0]
        return images


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_members_take_turns_and_each_image_is_of_its_own_noise(count):
    images = Mixture(map(Paints, (10.0, 20.0, 30.0)))(torch.arange(count).float()[:, None])
    assert images[:, 0, 1, 1].tolist() == [(10.0, 20.0, 30.0)[place % 3] for place in range(count)]
    assert images[:, 0, 0, 0].tolist() == list(range(count))
