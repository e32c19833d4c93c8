"""Frozen copies are the same function as the network in eval mode."""

import copy

import pytest
import torch
from torch import Tensor, nn

from degan_search.networks.dcgan import build_discriminator, build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.table import CLASSIFIERS, build_classifier
from tests.networks.models import SMALL, images, norms, used

pytestmark = pytest.mark.usefixtures("seeded")


class Backwards(nn.Sequential):
    """Layers that stand in one order and run in the other."""

    def __init__(self):
        super().__init__(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x):
        return self[0](self[1](x).relu())


MODELS = {
    **{name: lambda name=name: build_classifier(name, 10, SMALL.get(name, 12)) for name in CLASSIFIERS},
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), Backwards()),
    "generator": lambda: build_generator(3, 8, latent=20),
    "discriminator": lambda: build_discriminator(3, 8),
}


def inputs_of(name: str, count: int) -> Tensor:
    if name == "generator":
        return torch.randn(count, 20)
    return images(count, CLASSIFIERS[name].channels if name in CLASSIFIERS else 3)


@pytest.mark.parametrize("fold_norms", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_frozen_copy_is_the_same_function_in_eval_mode(name, fold_norms):
    model = used(MODELS[name](), inputs_of(name, 32))
    before = copy.deepcopy(model.state_dict())
    frozen = freeze(model, fold_norms)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(m.training for m in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())

    model.eval()
    results = []
    for network in (model, frozen):
        torch.manual_seed(1)
        x = inputs_of(name, 9).requires_grad_()
        output = network(x)
        weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
        results.append((output, torch.autograd.grad((output * weights).sum(), x)[0]))
    for ours, original in zip(*reversed(results), strict=True):
        torch.testing.assert_close(ours, original, rtol=1e-5, atol=1e-5)
    assert results[0][1].abs().max() > 0


def test_freezing_folds_the_generators_norms_where_asked():
    frozen = freeze(build_generator(3, 4), fold_norms=True)
    assert norms(frozen) == 0
    assert all(
        m.weight.is_contiguous(memory_format=torch.channels_last)
        for m in frozen.modules()
        if isinstance(m, nn.ConvTranspose2d)
    )


@pytest.mark.parametrize("name", MODELS)
def test_freezing_keeps_norms_otherwise(name):
    model = MODELS[name]()
    assert norms(freeze(model)) == norms(model)


@pytest.mark.parametrize(("name", "left"), [("resnet18", 0), ("resnet32", 0), ("inception_v3", 0), ("alexnet", 7)])
def test_folding_takes_every_norm_that_follows_a_convolution(name, left):
    """AlexNet's follow a ReLU or a pooling."""
    assert norms(freeze(build_classifier(name, 10, 4), fold_norms=True)) == left
