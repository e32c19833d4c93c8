"""The distance of images from a network's BatchNorm statistics: known values, and that nothing moves."""

import copy
import math

import pytest
import torch
from torch import nn

from degan_search.batchnorm import statistics_distance
from degan_search.errors import UserError
from degan_search.networks.table import build_classifier


def norm(mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0)):
    layer = nn.BatchNorm2d(3, eps=0.0)
    layer.running_mean.copy_(torch.tensor(mean))
    layer.running_var.copy_(torch.tensor(deviation) ** 2)
    return nn.Sequential(layer).eval()


def images(mean=0.0, deviation=1.0, count=4):
    """Images whose channels have exactly this mean and deviation."""
    signs = torch.ones(count, 3, 8, 8)
    signs[..., ::2] = -1
    return mean + deviation * signs


def test_the_images_that_made_the_statistics_are_at_no_distance():
    assert statistics_distance(norm(), images()) == pytest.approx(0, abs=1e-7)
    assert statistics_distance(norm((0.5,) * 3, (0.25,) * 3), images(0.5, 0.25)) == pytest.approx(0, abs=1e-7)


def test_distance_is_in_units_of_the_stored_deviation():
    assert statistics_distance(norm(), images(mean=2.0)) == pytest.approx(2)
    assert statistics_distance(norm(), images(deviation=4.0)) == pytest.approx(3)
    assert statistics_distance(norm(deviation=(0.5,) * 3), images(mean=2.0, deviation=0.5)) == pytest.approx(4)
    # The root of the mean of squares over channels: one of three is 2 away.
    assert statistics_distance(norm(mean=(2.0, 0.0, 0.0)), images()) == pytest.approx(math.sqrt(4 / 3))


def test_layers_count_equally_and_chunks_do_not_matter():
    both = nn.Sequential(norm(mean=(2.0,) * 3), norm()).eval()
    # Behind the first layer, which takes the mean of 2 off, images of mean 0 have mean -2.
    assert statistics_distance(both, images()) == pytest.approx(2)
    many = torch.randn(700, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    network = norm((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    order = torch.randperm(700, generator=torch.Generator().manual_seed(1))
    assert statistics_distance(network, many) == pytest.approx(statistics_distance(network, many[order]))


def test_a_network_without_norms_or_that_cannot_be_looked_into_has_no_distance():
    some = torch.rand(4, 1, 32, 32)
    assert math.isnan(statistics_distance(build_classifier("lenet", 10).eval(), some))
    script = torch.jit.trace(norm(), images())
    assert math.isnan(statistics_distance(script, images()))


def test_nothing_moves():
    network = build_classifier("alexnet", 10, 12).eval()
    before = copy.deepcopy(network.state_dict())
    far, near = (statistics_distance(network, torch.rand(8, 3, 32, 32) * scale) for scale in (20.0, 1.0))
    assert 0 < near < far
    assert not any(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_one_image_has_no_statistics():
    with pytest.raises(UserError, match="at least 2"):
        statistics_distance(norm(), images(count=1))
