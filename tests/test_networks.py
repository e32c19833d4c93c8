"""Every network of the table, and the DCGAN: sizes, shapes, gradients, frozen copies."""

import copy

import pytest
import torch
from torch import Tensor, nn

from degan_search.errors import UserError
from degan_search.networks.dcgan import build_discriminator, build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.layers import LocalResponseNorm2
from degan_search.networks.table import CLASSIFIERS, build_classifier

PARAMETERS = {"alexnet": 1_659_178, "alexnet_half": 417_434, "lenet": 61_706, "lenet_half": 35_820}
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
    assert count(build_classifier(name, 10)) == PARAMETERS[name]


@pytest.mark.parametrize(("channels", "generator", "discriminator"), [(3, 3573824, 2759424), (1, 3573696, 2757376)])
def test_dcgan_has_the_papers_parameter_counts(channels, generator, discriminator):
    assert count(build_generator(channels)) == generator
    assert count(build_discriminator(channels)) == discriminator


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("width", [None, 5])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_gives_logits_and_trains_every_parameter(name, width, channels):
    model = build_classifier(name, 7, width, channels)
    logits = model(images(6, channels or CLASSIFIERS[name].channels))
    assert logits.shape == (6, 7)
    nn.functional.cross_entropy(logits, torch.arange(6)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


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


MODELS = {
    **{name: lambda name=name: build_classifier(name, 10, 12) for name in CLASSIFIERS},
    "generator": lambda: build_generator(3, 8, latent=20),
    "discriminator": lambda: build_discriminator(3, 8),
}


def inputs_of(name: str, count: int) -> Tensor:
    if name == "generator":
        return torch.randn(count, 20)
    return images(count, CLASSIFIERS[name].channels if name in CLASSIFIERS else 3)


@pytest.mark.parametrize("name", MODELS)
def test_frozen_copy_is_the_same_function_in_eval_mode(name):
    model = used(MODELS[name](), inputs_of(name, 32))
    before = copy.deepcopy(model.state_dict())
    frozen = freeze(model)
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


def test_freezing_folds_the_generators_norms():
    frozen = freeze(build_generator(3, 4))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    assert all(
        m.weight.is_contiguous(memory_format=torch.channels_last)
        for m in frozen.modules()
        if isinstance(m, nn.ConvTranspose2d)
    )
