"""The student that is offered: half of a built-in teacher, else a smaller network that takes its images."""

import pytest

from degan_search.networks.takes import teacher_input
from degan_search.search.planning.students import named, offered
from degan_search.settings.trial import TeacherConfig
from degan_search.system.errors import UserError


def config(network, size=32, channels=3, width=None):
    return TeacherConfig(
        network=network, width=width, path="w.pt", classes=3, input={"size": size, "channels": channels}
    )


@pytest.mark.parametrize(
    ("teacher", "network", "width"),
    [
        (config("alexnet"), "alexnet_half", None),
        (config("lenet", channels=1), "lenet_half", None),
        (config("lenet", channels=1, width=12), "lenet", 6),
        (config("resnet18"), "resnet18", 32),
        (config("torchvision/resnet18", 64), "resnet18", 16),
        (config("torchvision/mobilenet_v3_small", 64), "resnet18", 16),
        (config("torchvision/resnet18"), "resnet18", 16),
        (config("torchvision/resnet18", 64, 1), "resnet18", 16),
    ],
)
def test_is_smaller_than_the_teacher(teacher, network, width):
    whole = named(teacher.network, 3, teacher_input(teacher), teacher.width).parameters
    chosen, others = offered(teacher, 3, whole)
    assert (chosen.student.network, chosen.student.width) == (network, width)
    assert all(one.parameters < whole for one in (chosen, *others))
    assert chosen.student not in [one.student for one in others]


@pytest.mark.parametrize(("size", "taken"), [(48, None), (64, (32, 32)), (224, (64, 64)), ([64, 128], (32, 64))])
def test_of_a_large_teacher_takes_smaller_images(size, taken):
    chosen, _ = offered(config("torchvision/resnet18", size), 3, 10_000_000)
    assert chosen.student.input.size == taken


def test_a_script_s_network_says_nothing():
    assert offered(config("alexnet"), 3, 10_000_000, script=True)[0].student.network == "resnet18"


def test_refuses():
    with pytest.raises(UserError, match="fewer than any student"):
        offered(config("torchvision/resnet18"), 3, 100)
    with pytest.raises(UserError, match="file of weights"):
        named("net.onnx", 3, teacher_input(config("alexnet")))
    with pytest.raises(UserError, match="did you mean alexnet"):
        named("alexnett", 3, teacher_input(config("alexnet")))
