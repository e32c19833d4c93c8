"""Every network of the table, and the DCGAN: sizes, shapes, gradients, frozen copies."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from degan_search.networks.dcgan import build_discriminator, build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.layers import LocalResponseNorm2
from degan_search.networks.resnet import ZeroPadding
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.system.errors import UserError
from degan_search.training.measures import predict

# Classes, and how many parameters the network then has.
PARAMETERS = {
    "alexnet": (10, 1_659_178),
    "alexnet_half": (10, 417_434),
    "lenet": (10, 61_706),
    "lenet_half": (10, 35_820),
    "inception_v3": (100, 22_318_148),
    "resnet18": (100, 11_220_132),
    "resnet34": (100, 21_328_292),
    "resnet32": (20, 464_804),
}
SMALL = {"inception_v3": 1, "resnet18": 4, "resnet34": 4, "resnet32": 4}
"""Widths at which the deep networks, whose full size is slow here, still have every layer."""
STOCK_RESPONSE = nn.LocalResponseNorm(2, alpha=1e-4, beta=0.75, k=1)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def images(count: int, channels: int) -> Tensor:
    return torch.rand(count, channels, 32, 32) * 2 - 1


def used(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A model in train mode whose BatchNorms are no longer at their first values."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(3):
            model(inputs)
    return model


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_have_the_papers_parameter_counts(name):
    classes, parameters = PARAMETERS[name]
    with torch.device("meta"):  # shapes alone
        assert count(build_classifier(name, classes)) == parameters


@pytest.mark.parametrize(("channels", "generator", "discriminator"), [(3, 3573824, 2759424), (1, 3573696, 2757376)])
def test_dcgan_has_the_papers_parameter_counts(channels, generator, discriminator):
    assert count(build_generator(channels)) == generator
    assert count(build_discriminator(channels)) == discriminator


@pytest.mark.parametrize(("channels", "more"), [(None, 0), (1, 1), (3, 1)])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_gives_logits_and_trains_every_parameter(name, channels, more):
    """At the small width, or the table's, and at one that is odd."""
    width = SMALL.get(name, CLASSIFIERS[name].width) if not more else SMALL.get(name, 4) + more
    model = build_classifier(name, 7, width, channels)
    logits = model(images(6, channels or CLASSIFIERS[name].channels))
    assert logits.shape == (6, 7)
    nn.functional.cross_entropy(logits, torch.arange(6)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_last_layer_is_linear(name):
    last = list(build_classifier(name, 7, SMALL.get(name)).modules())[-1]
    assert isinstance(last, nn.Linear)
    assert last.out_features == 7


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scoring_moves_no_statistics(name):
    model = used(build_classifier(name, 10, SMALL.get(name)), images(8, CLASSIFIERS[name].channels))
    pixels = torch.randint(256, (5, CLASSIFIERS[name].channels, 32, 32), dtype=torch.uint8)
    before = copy.deepcopy(model.state_dict())
    for training in (True, False):
        model.train(training)
        predict(model, pixels)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert all(module.training == training for module in model.modules())


def shapes_after(name: str, width: int, kinds: tuple[str, ...]) -> list[tuple[int, ...]]:
    """The shapes [channels, height, width] that each layer of these kinds gives, in the order of the network."""
    shapes: list[tuple[int, ...]] = []
    model = build_classifier(name, 10, width).eval()
    for layer in model:
        if type(layer).__name__ in kinds:
            layer.register_forward_hook(lambda _, given, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model(images(1, 3))
    return shapes


def test_inception_sizes_at_twice_the_least_width():
    names = ("BasicConv2d", *(f"Inception{kind}" for kind in "ABCDE"))
    full = [(32, 32), (32, 32), (64, 32), (80, 32), (192, 30), (256, 30), (288, 30), (288, 30)]
    full += [(768, 14)] * 5 + [(1280, 6), (2048, 6), (2048, 6)]
    assert shapes_after("inception_v3", 2, names) == [(channels // 8, size, size) for channels, size in full]


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 2222), ("resnet34", 3463), ("resnet32", 555)])
def test_resnet_stages(name, blocks):
    expected = [(4 * 2**stage, 32 // 2**stage) for stage, n in enumerate(str(blocks)) for _ in range(int(n))]
    assert shapes_after(name, 4, ("BasicBlock",)) == [(channels, size, size) for channels, size in expected]


def test_resnet_convolutions_start_as_he_says():
    model = build_classifier("resnet32", 10)
    for layer in [m for m in model.modules() if isinstance(m, nn.Conv2d)][1:]:
        expected = (2 / (9 * layer.out_channels)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=5 / (2 * layer.weight.numel()) ** 0.5)


def test_zero_padding_keeps_every_second_pixel():
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    nothing = [[0, 0], [0, 0]]
    expected = torch.tensor([[[[0, 2], [8, 10]], [[16, 18], [24, 26]], nothing, nothing]], dtype=torch.float32)
    assert torch.equal(ZeroPadding(2, 4)(x), expected)
    shortcuts = [m for m in build_classifier("resnet32", 10, 4).modules() if isinstance(m, ZeroPadding)]
    assert len(shortcuts) == 2
    assert not any(list(shortcut.parameters()) for shortcut in shortcuts)


def test_a_block_adds_its_shortcut():
    """With a last BatchNorm of scale and shift 0, a block is the ReLU of its shortcut alone."""
    model = build_classifier("resnet32", 10, 4).eval()
    smaller = next(block for block in model if isinstance(getattr(block, "downsample", None), ZeroPadding))
    nn.init.zeros_(smaller.bn2.weight)
    x = torch.randn(2, 4, 6, 6)
    expected = torch.cat([x[:, :, ::2, ::2].relu(), torch.zeros(2, 4, 3, 3)], dim=1)
    assert torch.equal(smaller(x), expected)


def test_the_table_loads_without_torchvision():
    asked = "import sys, degan_search.networks.table; assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", asked], check=True)


@pytest.mark.parametrize(("first", "second"), [(3, 8), (6, 16), (12, 32)])
def test_lenet_widths(first, second):
    convolutions = [m for m in build_classifier("lenet", 10, first) if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [first, second]


def test_alexnet_biases_and_epsilon():
    model = build_classifier("alexnet", 10, 6)
    layers = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [m.bias.unique().tolist() for m in layers] == [[0], [1], [0], [1], [1], [0], [0], [0]]
    assert {m.eps for m in model if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)} == {1e-3}


def test_the_same_seed_gives_the_same_bits_and_another_gives_others():
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.flatten() for p in build_classifier("lenet", 10).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("alexnet_haf", 10), "alexnet_half"),
        (("vgg", 10), "lenet"),
        (("lenet", 10, 0), "width"),
        (("lenet", 0), "classes"),
        (("lenet", 10, 3, 0), "channels"),
    ],
)
def test_bad_classifiers_are_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        build_classifier(*arguments)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [4, 6])
def test_dcgan_shapes_range_and_gradients(width, channels):
    generator, discriminator = build_generator(channels, width, latent=10), build_discriminator(channels, width)
    z = torch.randn(5, 10)
    fake = generator(z)
    logits = discriminator(fake)
    assert fake.shape == (5, channels, 32, 32)
    assert fake.abs().max() < 1
    assert logits.shape == (5,)
    logits.square().sum().backward()
    for model in (generator, discriminator):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    generator.eval()
    assert torch.equal(generator(z), generator(z[:, :, None, None]))


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_dcgan_initialisation(build):
    model = build(3).requires_grad_(False)
    convolutions = [m.weight for m in model if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    norms = [m for m in model if isinstance(m, nn.BatchNorm2d)]
    for weights in (torch.cat([w.flatten() for w in convolutions]), convolutions[0], convolutions[1]):
        assert abs(weights.mean()) < 5 * 0.02 / weights.numel() ** 0.5
        assert weights.std() == pytest.approx(0.02, rel=5 / (2 * weights.numel()) ** 0.5)
    scales = torch.cat([m.weight for m in norms])
    assert abs(scales.mean() - 1) < 5 * 0.02 / len(scales) ** 0.5
    assert scales.std() == pytest.approx(0.02, rel=5 / (2 * len(scales)) ** 0.5)
    assert all((m.bias == 0).all() for m in norms)


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


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())


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
