"""The front of a classifier: sizes, channels and scales, with gradients, against what torch and torchvision give."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.v2.functional import normalize, rgb_to_grayscale

from degan_search.networks.front import Classifier, resized, with_channels
from degan_search.networks.frozen import freeze
from degan_search.networks.image_input import NORMALISATIONS, ImageInput, changed
from degan_search.networks.takes import generated_size, student_input, teacher_input
from degan_search.settings.image_input import InputConfig
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import UserError


@pytest.fixture
def images():
    return torch.rand(3, 3, 20, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Seen(nn.Module):
    """Keeps what it is given."""

    def forward(self, images):
        self.images = images
        return images.mean((2, 3))


@pytest.mark.parametrize("size", [(8, 8), (20, 16), (28, 33), (64, 64), (512, 9)])
def test_resizing_is_torchs_bilinear_with_antialias(images, size):
    expected = F.interpolate(images, size, mode="bilinear", antialias=True)
    torch.testing.assert_close(resized(images, size), expected, rtol=0, atol=1e-5)
    assert resized(images, (20, 32)) is images
    assert resized(torch.ones(1, 1, 13, 7), size).sub(1).abs().max() < 1e-5


def test_resizing_has_the_gradient_of_finite_differences():
    images = torch.rand(1, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = torch.rand(1, 2, 8, 3, generator=torch.Generator().manual_seed(2))

    def total(given):
        return (resized(given.float(), (8, 3)) * weights).sum()

    given = images.requires_grad_()
    total(given).backward()
    for place in ((0, 0, 0, 0), (0, 1, 4, 3), (0, 0, 2, 1)):
        step = torch.zeros_like(images)
        step[place] = 0.1  # a linear map
        slope = (total(images + step) - total(images - step)) / 0.2
        assert given.grad[place].item() == pytest.approx(slope.item(), abs=1e-4)


def test_channels_are_repeated_or_their_luma(images):
    gray = with_channels(images, 1)
    torch.testing.assert_close(gray, rgb_to_grayscale(images), rtol=0, atol=1e-3)
    again = with_channels(gray, 3)
    assert again.shape == images.shape
    assert (again == gray).all()
    assert with_channels(images, 3) is images


@pytest.mark.parametrize("name", NORMALISATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_are_given_pixels_as_torchvision_normalises_them(name, channels, images):
    takes = changed(ImageInput(20, 32), InputConfig(normalise=name, channels=channels), "input")
    network = Seen()
    Classifier(network, takes)(images)
    pixels = with_channels((images + 1) / 2, channels)
    torch.testing.assert_close(network.images, normalize(pixels, list(takes.mean), list(takes.std)))
    assert takes.signed == (name == "signed")


def test_a_range_is_pixels_between_its_ends(images):
    takes = changed(ImageInput(20, 32), InputConfig(range=(0, 255), mean=(123.0, 117.0, 104.0), std=(58.0,)), "input")
    network = Seen()
    Classifier(network, takes)(images)
    expected = ((images + 1) * 127.5 - torch.tensor([123.0, 117.0, 104.0]).reshape(3, 1, 1)) / 58
    torch.testing.assert_close(network.images, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"input\.mean has 2 numbers for 3 channels"):
        changed(ImageInput(), InputConfig(mean=(1.0, 2.0)), "input")


def test_blue_comes_before_red_where_the_network_takes_it_so(images):
    settings = {"order": "bgr", "mean": (0.1, 0.2, 0.3), "size": (10, 16)}
    takes, network = changed(ImageInput(20, 32), InputConfig(**settings), "input"), Seen()
    given = images.clone().requires_grad_()
    Classifier(network, takes)(given)
    pixels = (resized(images, (10, 16)) + 1) / 2 - torch.tensor([0.3, 0.2, 0.1]).reshape(3, 1, 1)
    torch.testing.assert_close(network.images, pixels[:, [2, 1, 0]])
    network.images[:, 0].sum().backward()
    assert [bool(slope.any()) for slope in given.grad.unbind(1)] == [False, False, True]
    bgr = changed(ImageInput(), InputConfig(order="bgr"), "input")
    Classifier(network, bgr)(images)
    assert changed(bgr, InputConfig(order="rgb"), "input") == ImageInput()
    assert not changed(bgr, InputConfig(channels=1), "input").bgr  # a gray student of a colour teacher
    with pytest.raises(UserError, match=r"input\.order = 'bgr' needs 3 channels"):
        changed(ImageInput(), InputConfig(order="bgr", channels=1), "input")


def test_what_a_network_takes_as_it_is_reaches_it_as_it_is(images):
    network = Seen()
    Classifier(network, ImageInput(20, 32))(images)
    assert network.images is images


def test_states_have_the_networks_own_names():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    classifier = Classifier(network, ImageInput(1, 1, 3, *NORMALISATIONS["imagenet"]))
    assert classifier.state_dict().keys() == network.state_dict().keys()
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        other.network[1].weight.add_(1)
    classifier.load_state_dict(other.state_dict())
    assert torch.equal(network[1].weight, other.network[1].weight)
    assert freeze(classifier).state_dict().keys() == network.state_dict().keys()


def test_teacher_and_student_take_what_settings_say():
    config = trial_config({"teacher.input": {"size": 64, "normalise": "imagenet"}, "student.input": {"size": [48, 40]}})
    teacher, student = teacher_input(config.teacher), student_input(config)
    assert teacher == ImageInput(64, 64, 3, *NORMALISATIONS["imagenet"])
    assert student == ImageInput(48, 40, 3, *NORMALISATIONS["imagenet"])
    assert teacher_input(trial_config({"teacher.network": "lenet"}).teacher) == ImageInput(32, 32, 1, (0.5,), (0.5,))


@pytest.mark.parametrize(
    ("size", "generated"),
    [(8, 8), (28, 16), (32, 32), (33, 32), ([64, 96], 64), (127, 64), (128, 128), (224, 128), (512, 128)],
)
def test_generated_images_are_the_power_of_two_below(size, generated):
    config = trial_config({"teacher.input.size": size})
    assert generated_size(config.gan, teacher_input(config.teacher)) == generated
    assert generated_size(trial_config({"gan.size": 16}).gan, ImageInput(224, 224)) == 16


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 7}, "greater than or equal to 8"),
        ({"size": 513}, "less than or equal to 512"),
        ({"channels": 2}, "should be 1 or 3"),
        ({"normalise": "unit", "mean": [0.5]}, "says mean already"),
        ({"range": [1, 0]}, "range must ascend"),
        ({"std": [0]}, "greater than 0"),
    ],
)
def test_inputs_that_cannot_be_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        trial_config({"teacher": {"input": given}})
