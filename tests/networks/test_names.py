"""Classifiers of other libraries by their names, what they take, and sizes other than 32x32."""

import copy
import sys
import warnings

import pytest
import torch
from torch import nn

from degan_search.networks.image_input import NORMALISATIONS, ImageInput, of_size, signed
from degan_search.networks.names import parts
from degan_search.networks.table import (
    CLASSIFIERS,
    KINDS,
    build_classifier,
    check_name,
    default_input,
    has_weights,
    kind_of,
    own_classes,
)
from degan_search.system.errors import UserError
from tests.networks.models import SMALL

pytestmark = pytest.mark.usefixtures("seeded")

MOBILE = "torchvision/mobilenet_v3_small?width_mult=0.1"
TINY = [MOBILE, "torchvision/shufflenet_v2_x0_5", "torchvision/squeezenet1_1", "timm/test_resnet", "timm/test_vit"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TINY)
def test_classifiers_of_libraries_train(name, channels):
    model = build_classifier(name, 7, channels=channels, size=(64, 64))
    assert model.training
    images = torch.rand(4, channels, 64, 64, requires_grad=True)
    logits = model(images)
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert images.grad.abs().sum() > 0
    assert copy.deepcopy(model).eval()(images).shape == (4, 7)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "inception_v3?aux_logits=true"])
def test_networks_with_auxiliary_outputs_give_logits_alone_and_do_not_warn(name):
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("error")
        model = build_classifier(f"torchvision/{name}", 5, size=(96, 96))
        if "?" not in name:
            assert model(torch.zeros(2, 3, 96, 96)).shape == (2, 5)
        assert any("aux" in key.lower() for key in model.state_dict()) == ("?" in name)
    assert torch.is_tensor(model.state_dict()["fc.weight" if "fc.weight" in model.state_dict() else "fc.bias"])


def test_the_first_convolution_is_replaced_with_the_same_settings():
    with torch.device("meta"):
        grey, colour = (build_classifier("torchvision/resnet18", 3, channels=channels) for channels in (1, 3))
    assert grey.conv1.weight.shape == (64, 1, 7, 7)
    assert grey.conv1.bias is None
    assert (grey.conv1.stride, grey.conv1.padding) == (colour.conv1.stride, colour.conv1.padding)
    assert grey.state_dict().keys() == colour.state_dict().keys()


def test_the_same_seed_gives_the_same_bits():
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.flatten() for p in build_classifier(MOBILE, 4).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_what_networks_take():
    imagenet = NORMALISATIONS["imagenet"]
    assert default_input("lenet") == ImageInput(32, 32, 1, (0.5,), (0.5,))
    assert default_input("resnet18") == ImageInput()
    assert default_input("torchvision/inception_v3") == ImageInput(299, 299, 3, *imagenet)
    assert default_input("timm/resnet10t") == ImageInput(176, 176, 3, *imagenet)
    assert default_input("timm/vit_tiny_patch16_224").signed
    assert not default_input(MOBILE).signed
    given = ImageInput(24, 48, 1, (0.0,), (1.0,))
    assert (given.shape, given.size, given.signed) == ((1, 24, 48), (24, 48), False)
    assert ImageInput().signed
    assert signed(1).signed


@pytest.mark.parametrize(("size", "is_"), [(28, (3, (28, 28))), ((20, 40), (3, (20, 40))), ([1, 8, 16], (1, (8, 16)))])
def test_input_sizes(size, is_):
    assert of_size(size, "net") == is_


@pytest.mark.parametrize("size", [0, -3, True, "32", (1, 2, 3, 4), (32, 0), None, [3.5, 4]])
def test_input_sizes_that_are_none(size):
    with pytest.raises(UserError, match="net: input_size is"):
        of_size(size, "net")


@pytest.mark.parametrize("size", [(28, 28), (40, 56)])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_built_in_classifiers_at_other_sizes(name, size):
    channels = CLASSIFIERS[name].channels
    model = build_classifier(name, 7, SMALL.get(name), size=size)
    logits = model(torch.rand(4, channels, *size))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_smallest_size_works_and_is_named_for_smaller_ones(name):
    network = CLASSIFIERS[name]
    small, width = network.smallest, SMALL.get(name)
    logits = build_classifier(name, 7, width, size=(small, small)).eval()(torch.rand(2, network.channels, small, small))
    assert logits.shape == (2, 7)
    if small > 1:
        with pytest.raises(UserError, match=f"{small}x{small} at least"):
            build_classifier(name, 7, width, size=(64, small - 1))
        with pytest.raises(Exception):  # noqa: B017
            network.build(7, network.channels, width, size=(small - 1, small - 1))(
                torch.rand(2, network.channels, small - 1, small - 1)
            )


def test_lenet_at_28_is_the_classic():
    assert build_classifier("lenet", 10, size=(28, 28))[7].in_features == 16 * 4 * 4


def test_the_smallest_size_of_a_librarys_network_is_found():
    with pytest.raises(UserError, match="32x32 are too small for network 'torchvision/alexnet': 63x63 at least"):
        check_name("torchvision/alexnet", 3, (32, 32))
    check_name("torchvision/alexnet", 3, (63, 63))


@pytest.mark.parametrize("name", [*CLASSIFIERS, MOBILE, "timm/test_resnet"])
def test_a_name_is_checked_without_a_random_number(name):
    before = torch.get_rng_state()
    check_name(name)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("alexnt", "did you mean alexnet.*torchvision/NAME, timm/NAME"),
        ("lenet?width=3", "takes no options"),
        ("torchvision/resnet19", "did you mean resnet18"),
        ("torchvision/fcn_resnet50", "no image classifier"),
        ("torchvision/r3d_18", "no image classifier"),
        ("torchvision/quantized_resnet18", "no image classifier"),
        ("torchvision/mobilenet_v3_small?widthmult=1", "has no option 'widthmult'; did you mean width_mult"),
        ("torchvision/mobilenet_v3_small?width_mult", "must be OPTION=VALUE"),
        ("torchvision/mobilenet_v3_small?width_mult=[1]", "must be a number"),
        ("torchvision/mobilenet_v3_small?width_mult=x", "cannot be built"),
        ("torchvision/resnet18?weights=DEFAULT", "has no option|not yours"),
        ("timm/resnet10", "did you mean"),
        ("timm/test_resnet?pretrained=true", "not yours"),
        ("timm/test_resnet?nonsense=3", "cannot be built"),
        ("models/mine", "unknown classifier 'models/mine'"),
        ("lenet\0", "zero byte"),
        ("x" * 1001, "at most"),
    ],
)
def test_bad_names_are_refused_in_one_line(name, said):
    with pytest.raises(UserError, match=said) as caught:
        check_name(name, 3, (64, 64))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[2]], ids=lambda kind: kind.form)
def test_a_width_is_for_the_projects_own_networks(kind):
    name = kind.form.replace("NAME", "resnet18")
    with pytest.raises(UserError, match="takes no width"):
        build_classifier(name, 3, width=3)
    assert kind_of(name)[0] is kind
    assert own_classes(name) is None
    assert not has_weights(name)


def test_without_timm_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'degan-search\[timm\]'"):
        build_classifier("timm/test_resnet", 3)


def test_options_are_yaml_scalars():
    assert parts("a/b?x=1&y=0.5&z=true&v=null&w=word&e=1e-3").options == {
        **{"x": 1, "y": 0.5, "z": True, "v": None},
        **{"w": "word", "e": 0.001},
    }
