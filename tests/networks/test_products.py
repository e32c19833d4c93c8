"""Convolutions of small maps by products of matrices are torch's own, in bf16 on a CPU alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from degan_search.networks import products
from degan_search.networks.layers import channels_last
from degan_search.networks.products import SMALL, Doubling, FromPixel, Halving, ToPixel
from degan_search.system import device

pytestmark = pytest.mark.usefixtures("seeded")

LAYERS = {
    "halving": (lambda: Halving(6, 10), 6, 2 * SMALL),
    "halving_to_one": (lambda: Halving(6, 10), 6, 2),
    "doubling": (lambda: Doubling(10, 6), 10, SMALL),
    "doubling_of_one": (lambda: Doubling(10, 6), 10, 1),
    "from_pixel": (lambda: FromPixel(7, 6, 4, bias=False), 7, 1),
    "to_pixel": (lambda: ToPixel(6, 1, 2, stride=2, bias=False), 6, 2),
}
EXACT = 2.0**-8
"""The largest error of a rounding to bf16, as a share of the number."""


def torchs_own(layer):
    """The layer as torch has it, with the same weights."""
    kind = nn.ConvTranspose2d if isinstance(layer, nn.ConvTranspose2d) else nn.Conv2d
    own = kind(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        bias=layer.bias is not None,
    )
    own.to(layer.weight.dtype).load_state_dict(layer.state_dict())
    return own


def run(layer, maps, gradient, precision):
    """Outputs, the inputs' gradient and the weights'."""
    maps = maps.clone().requires_grad_()
    with device.arithmetic(precision, "cpu"):
        outputs = layer(maps)
        outputs.backward(gradient.to(outputs.dtype))
    return [outputs.detach(), maps.grad, *(weights.grad for weights in layer.parameters())]


@pytest.fixture
def made():
    """A layer, inputs and the outputs' gradient, whose numbers are bf16 already, so that only results are rounded."""

    def make(name, count=3):
        build, channels, side = LAYERS[name]
        layer = channels_last(build().bfloat16().float())
        maps = torch.randn(count, channels, side, side).bfloat16().float()
        return layer, maps, torch.randn(layer(maps).shape).bfloat16().float()

    return make


@pytest.mark.parametrize("name", LAYERS)
def test_products_are_torchs_convolution_rounded_once(made, name):
    layer, maps, gradient = made(name)
    exact = run(torchs_own(layer).double(), maps.double(), gradient.double(), "float32")
    ours = run(layer, maps, gradient, "bf16")
    for value, right in zip(ours, exact, strict=True):
        torch.testing.assert_close(value.double(), right, rtol=EXACT, atol=1e-5)
    assert [value.dtype for value in ours] == [torch.bfloat16, torch.float32, torch.float32]
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.grad.stride() == layer.weight.stride()  # else Adam's fused step would be slow


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, "float32"), (torch.float64, "bf16")])
@pytest.mark.parametrize("name", LAYERS)
def test_where_nothing_is_cast_to_bf16_the_layer_is_torchs_own_bit_for_bit(made, name, dtype, precision):
    layer, *given = (one.to(dtype) for one in made(name))
    own = channels_last(torchs_own(layer).to(dtype))
    for value, right in zip(run(layer, *given, precision), run(own, *given, precision), strict=True):
        assert value.dtype == dtype
        assert torch.equal(value, right)


@pytest.mark.parametrize("name", ["halving", "doubling"])
def test_large_maps_take_torchs_own_convolution(made, name, monkeypatch):
    layer, maps, _ = made(name)
    monkeypatch.setattr(products, "_patches", None)  # products of halving need it
    monkeypatch.setattr(products, "_framed", None)  # and of doubling
    with device.arithmetic("bf16", "cpu"), torch.no_grad():
        with pytest.raises(TypeError):
            layer(maps)
        larger = nn.functional.interpolate(maps, scale_factor=2)
        assert torch.equal(layer(larger), torchs_own(layer)(larger))


@pytest.mark.parametrize("name", ["doubling", "from_pixel", "halving"])
def test_a_folded_norms_shift_is_kept(made, name):
    layer, maps, _ = made(name)
    norm = nn.BatchNorm2d(layer.out_channels)
    nn.init.normal_(norm.bias)
    folded = fuse_conv_bn_eval(layer.eval(), norm.eval(), transpose=isinstance(layer, nn.ConvTranspose2d))
    with torch.no_grad(), device.arithmetic("bf16", "cpu"):
        ours, own = folded(maps), torchs_own(copy.deepcopy(folded))(maps)
    torch.testing.assert_close(ours, own, rtol=0.02, atol=0.02)
