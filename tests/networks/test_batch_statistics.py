"""The distance of images from a network's BatchNorm statistics: known values, and that nothing moves."""

import copy
import math

import pytest
import torch
from torch import nn

from degan_search.networks.batch_statistics import distances, gathered_statistics, norms, statistics_distance
from degan_search.networks.frozen import freeze
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.system.errors import UserError

SMALL = {"inception_v3": 2}
NORMED = [name for name in CLASSIFIERS if norms(build_classifier(name, 2, 3))]


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


# What DeGAN's generator is drawn to


def classifier(name):
    """A frozen classifier whose BatchNorms keep some statistics, and images for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_classifier(name, 4, SMALL.get(name, 6))
        for layer in norms(model):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.3, 2)
        return freeze(model), torch.rand(5, CLASSIFIERS[name].channels, 32, 32) * 2 - 1


def expected_distances(model, images):
    """The distance in plain float64, from the inputs of each layer by a hook of this test."""
    seen = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append((layer, inputs[0]))) for layer in norms(model)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    found = []
    for layer, values in seen:
        channels = [values[:, channel].double().flatten() for channel in range(values.shape[1])]
        total = 0.0
        for channel, pixels in enumerate(channels):
            mean = pixels.sum() / len(pixels)
            deviation = (((pixels - mean) ** 2).sum() / len(pixels) + layer.eps) ** 0.5
            kept = (layer.running_var[channel].double() + layer.eps) ** 0.5
            total = total + ((mean - layer.running_mean[channel]) ** 2 + (deviation - kept) ** 2) / kept**2
        found.append(total / len(channels))
    return torch.stack(found)


def test_the_networks_with_norms_are_all_seen():
    assert set(CLASSIFIERS) - set(NORMED) == {"lenet", "lenet_half"}


@pytest.mark.parametrize("name", NORMED)
def test_distances_and_their_gradients_are_the_equations(name):
    model, images = classifier(name)
    images.requires_grad_()
    with gathered_statistics(model) as sums:
        model(images)
    ours, expected = distances(sums), expected_distances(model, images)
    assert ours.shape == (len(norms(model)),)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-5)
    gradients = [torch.autograd.grad(value.mean(), images)[0] for value in (ours, expected)]
    assert gradients[0].isfinite().all()
    assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[1].norm()
    assert gradients[1].flatten(1).norm(dim=1).min() > 0  # each image has a part
    assert all(weights.grad is None for weights in model.parameters())
    with torch.no_grad():
        assert statistics_distance(model, images) == pytest.approx(expected.sqrt().mean().item(), rel=1e-3)


def test_gradients_hold_in_float64():
    network = nn.Sequential(*norm((0.1, 0.2, 0.3), (0.5, 1.0, 2.0)), nn.Flatten(), nn.BatchNorm1d(12)).double().eval()

    def distance(x):
        with gathered_statistics(network, torch.float64) as sums:
            network(x)
        return distances(sums)

    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(distance, x)


def test_images_of_one_colour_have_a_finite_gradient():
    network = nn.Sequential(nn.BatchNorm2d(3)).eval()
    x = torch.full((4, 3, 8, 8), 0.5, requires_grad=True)
    with gathered_statistics(network) as sums:
        network(x)
    distances(sums).sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0


def test_training_images_are_at_no_distance_with_the_usual_epsilon():
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=1.0))
    many = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.02
    network(many)
    assert statistics_distance(network.eval(), many) == pytest.approx(0, abs=1e-3)


def test_chunks_add_up_and_a_layer_that_runs_twice_counts_once():
    images = torch.randn(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    layer = norm((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    found = []
    for sizes in ([9], [4, 5], [1] * 9):
        with gathered_statistics(layer, torch.float64) as sums:
            for chunk in images.split(sizes):
                layer(chunk)
        assert list(sums) == [layer[0]]
        assert sums[layer[0]][2].tolist() == [9 * 16] * 3
        found.append(distances(sums))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    twice = nn.Sequential(layer, layer).eval()
    with gathered_statistics(twice) as sums:
        twice(images)
    assert distances(sums).shape == (1,)
    assert sums[layer[0]][2].tolist() == [2 * 9 * 16] * 3


class Broken(nn.Module):
    """Fails when it runs."""

    def forward(self, x):
        raise ArithmeticError("broken")


def test_nothing_is_left_behind_even_by_a_failure():
    network = nn.Sequential(norm(), Broken()).eval()
    with pytest.raises(ArithmeticError), gathered_statistics(network) as sums:
        network(images())
    assert len(sums) == 1  # the layer before the failure was seen
    with pytest.raises(ArithmeticError):
        statistics_distance(network, images())
    assert not any(module._forward_pre_hooks for module in network.modules())
    whole = norm()
    with gathered_statistics(whole) as sums:
        pass
    whole(images())
    assert not sums


def test_a_network_that_cannot_be_looked_into_has_no_layers_to_watch():
    script = torch.jit.trace(norm(), images())
    assert norms(script) == []
    assert norms(build_classifier("lenet", 10)) == []
    with gathered_statistics(script) as sums:
        script(images())
    assert not sums


def test_one_image_has_no_statistics():
    with pytest.raises(UserError, match="at least 2"):
        statistics_distance(norm(), images(count=1))
