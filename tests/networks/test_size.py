"""Parameters and multiply-adds, by hand."""

import torch
from torch import nn

from degan_search.networks.image_input import signed
from degan_search.networks.size import size
from degan_search.networks.table import build_classifier


def test_counts_are_those_by_hand():
    network = build_classifier("lenet", 10, 3, 1, (32, 32))
    adds, shapes = 0, []

    def count(module, given, output):
        shapes.append(output.shape)
        weights = module.weight[0].numel()  # of one output number
        places.append(weights * output.numel())

    places = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(1, 1, 32, 32))
    adds = sum(places)
    found = size("lenet", 10, 3, signed(1))
    assert found == {
        "student_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": adds,
    }
    assert shapes[-1] == (1, 10)
    assert size("lenet", 10, 4, signed(1))["multiply_adds"] > adds


def test_no_random_number_is_drawn():
    before = torch.get_rng_state()
    size.cache_clear()
    size("alexnet_half", 7, None, signed(3))
    assert torch.equal(torch.get_rng_state(), before)
