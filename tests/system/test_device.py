"""The device, threads, and the precision in which it computes."""

import os

import pytest
import torch

from degan_search.system import device


def test_no_gpu_is_used_that_was_not_assigned():
    assert device.choose_device(0) == "cpu"
    assert device.choose_device() == device.choose_device(1) == ("cuda" if torch.cuda.is_available() else "cpu")


def test_set_up_flushes_denormals_and_sets_threads():
    tiny = torch.tensor([1e-40])
    assert (tiny * 0.5).item() > 0
    device.set_up_torch(1)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    if torch.set_flush_denormal(True):  # False on a processor without it
        assert (tiny * 0.5).item() == 0


def test_precision_is_what_the_device_multiplies():
    assert [device.precision_of(asked, "cpu") for asked in ("float32", "tf32", "bf16")] == [
        "float32",
        "float32",
        "bf16",
    ]
    assert [device.precision_of(asked, "cuda") for asked in ("float32", "tf32", "bf16")] == ["float32", "tf32", "bf16"]
    native = {"avx512_bf16", "amx_bf16"} & {name for name, there in torch.cpu.get_capabilities().items() if there}
    assert device.precision_of("auto", "cpu") == ("bf16" if native else "float32")


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_arithmetic_rounds_products_alone_and_puts_settings_back(precision):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    weight = torch.nn.Parameter(torch.full((1, 1), 1 / 3))
    with device.arithmetic(precision, "cpu"):
        product = torch.ones(1, 1) @ weight
        inside = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    assert weight.dtype == torch.float32
    if precision == "bf16":
        assert product.dtype == torch.bfloat16
        assert product.item() != weight.item()
    else:
        assert torch.equal(product, weight.data)
        assert inside == ((True, True) if precision == "tf32" else before)


def test_a_weight_that_changes_inside_bf16_arithmetic_is_cast_anew():
    weight = torch.nn.Parameter(torch.ones(1, 1))
    with device.arithmetic("bf16", "cpu"):
        first = torch.ones(1, 1) @ weight
        with torch.no_grad():
            weight.fill_(3)
        assert (torch.ones(1, 1) @ weight).item() == 3 * first.item()
