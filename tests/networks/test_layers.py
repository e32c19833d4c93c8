"""The local response norm is the stock one."""

import pytest
import torch
from torch import nn

from degan_search.networks.layers import LocalResponseNorm2

pytestmark = pytest.mark.usefixtures("seeded")

STOCK_RESPONSE = nn.LocalResponseNorm(2, alpha=1e-4, beta=0.75, k=1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 6, 5, 4), (2, 1, 3, 3), (2, 2, 1, 1)])
@pytest.mark.parametrize("scale", [1, 200])
def test_response_norm_equals_the_stock_one(shape, scale, memory_format):
    x = (scale * torch.randn(shape)).to(memory_format=memory_format).requires_grad_()
    weights = torch.randn(shape)
    ours, stock = LocalResponseNorm2()(x), STOCK_RESPONSE(x)
    assert ours.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(ours, stock, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad((output * weights).sum(), x)[0] for output in (ours, stock)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_response_norm_gradient_against_finite_differences():
    x = (60 * torch.randn(2, 4, 2, 2, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(LocalResponseNorm2(), x)


def test_response_norm_keeps_bfloat16():
    x = torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)
    output = LocalResponseNorm2()(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), STOCK_RESPONSE(x.float()), rtol=0.02, atol=0)
