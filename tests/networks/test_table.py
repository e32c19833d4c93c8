"""Every classifier of the table: sizes, shapes, gradients, first weights."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from degan_search.networks.resnet import ZeroPadding
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.system.errors import UserError
from degan_search.training.measures import predict
from tests.networks.models import SMALL, count, images, used

pytestmark = pytest.mark.usefixtures("seeded")

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
    "wrn_40_2": (100, 2_255_156),
    "wrn_40_1": (100, 569_780),
    "wrn_16_2": (100, 703_284),
    "wrn_16_1": (100, 180_916),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_have_the_papers_parameter_counts(name):
    classes, parameters = PARAMETERS[name]
    with torch.device("meta"):  # shapes alone
        assert count(build_classifier(name, classes)) == parameters


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


def in_plain_torch(state, x, strides):
    """A Wide ResNet by its weights in their order: the shortcut, where there is one, is of the activated input."""
    weights = iter(state.values())

    def active(x):
        scale, shift, mean, variance, _ = (next(weights) for _ in range(5))
        return nn.functional.batch_norm(x, mean, variance, scale, shift).relu()

    x = nn.functional.conv2d(x, next(weights), padding=1)
    for stride in strides:
        before = active(x)
        after = active(nn.functional.conv2d(before, next(weights), None, stride, padding=1))
        after = nn.functional.conv2d(after, next(weights), padding=1)
        x = after + (x if x.shape == after.shape else nn.functional.conv2d(before, next(weights), None, stride))
    return nn.functional.linear(active(x).mean((2, 3)), *weights)


@pytest.mark.parametrize(
    ("depth", "factor", "strides"), [(16, 1, [1, 1, 2, 1, 2, 1]), (40, 2, [1] * 6 + [2, *[1] * 5] * 2)]
)
def test_wide_resnets_are_those_of_their_paper(depth, factor, strides):
    name = f"wrn_{depth}_{factor}"
    sizes = [(3 * factor, 32), (6 * factor, 16), (12 * factor, 8)]
    expected = [(channels, size, size) for channels, size in sizes for _ in range(len(strides) // 3)]
    assert shapes_after(name, 3, ("Block",)) == expected
    model = used(build_classifier(name, 5, 3), images(16, 3)).eval().double()
    x = images(4, 3).double()
    torch.testing.assert_close(model(x), in_plain_torch(model.state_dict(), x, strides))
    assert not build_classifier(name, 5, 3)[-1].bias.any()


@pytest.mark.parametrize("name", ["resnet18", "resnet32", "wrn_16_2"])
def test_resnet_convolutions_start_as_he_says_and_those_of_the_student_as_torch_does(name):
    model = build_classifier(name, 10, 16)
    for layer in [m for m in model.modules() if isinstance(m, nn.Conv2d)][1:]:
        pixels = layer.kernel_size[0] ** 2
        variance = 2 / (pixels * layer.out_channels) if name != "resnet18" else 1 / (3 * pixels * layer.in_channels)
        assert layer.weight.std().item() == pytest.approx(variance**0.5, rel=5 / (2 * layer.weight.numel()) ** 0.5)
        assert (layer.weight.abs().max() ** 2 < 3.01 * variance) == (name == "resnet18")  # uniform, else normal


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


@pytest.mark.parametrize("name", ["lenet", "lenet_half"])
def test_lenet_biases_start_at_zero(name):
    layers = [m for m in build_classifier(name, 10) if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [m.bias.unique().tolist() for m in layers] == [[0]] * 5
    assert all(m.weight.std() > 0.01 for m in layers)


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
