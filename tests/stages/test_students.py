"""The student that is offered: half of a built-in teacher, else a smaller network that takes its images."""

import pytest
import torch

from degan_search.networks.table import build_classifier
from degan_search.networks.takes import teacher_input
from degan_search.settings.trial import StudentConfig, TeacherConfig
from degan_search.stages.students import named, offered, with_student
from degan_search.system.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::degan_search.system.errors.NoticeWarning")


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


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ({"network": "alexnet"}, {"network": "alexnet_half"}),
        ({"network": "resnet18", "width": 8}, {"network": "resnet18", "width": 4}),
        ({"network": "torchvision/resnet18", "input": {"size": 64}, "dataset": "glyphs@64"}, {"size": (32, 32)}),
        ({"network": "torchvision/resnet18", "input": {"size": 32}, "dataset": "folder:not/looked/at"}, {}),
    ],
)
def test_stands_in_a_trial_s_settings(teacher, student):
    given = {"teacher": teacher, "student.network": "auto", "count": 5}
    resolved = with_student(given)
    chosen = {"network": "resnet18", "width": 16, "size": None} if "torch" in teacher["network"] else {"width": None}
    found = StudentConfig(**resolved["student"])
    known = {"network": found.network, "width": found.width, "size": found.input.size}
    assert {name: known[name] for name in chosen | student} == chosen | student
    assert (resolved["count"], resolved["teacher"]["network"]) == (5, teacher["network"])


def test_stands_in_settings_with_a_teacher_s_file(tmp_path):
    file = tmp_path / "w.pt"
    torch.save(build_classifier("lenet", 3).state_dict(), file)
    teacher = {"network": "lenet", "path": str(file)}
    size = {"input": {"size": 28}}
    given = {"teacher": teacher, "student": {"network": "auto", **size}}
    assert with_student(given)["student"] == {"network": "lenet_half", **size}
    torch.jit.script(build_classifier("resnet18", 3, 20)).save(file)  # its own network says nothing: half were 32
    teacher = {"network": "resnet18", "path": str(file), "trusted": True}
    assert with_student(given | {"teacher": teacher})["student"] == {"network": "resnet18", "width": 16, **size}
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"w\.pt"):
        with_student(given)


def test_a_named_student_stays():
    assert with_student({"student": {"network": "lenet", "width": 3}}) == {"student": {"network": "lenet", "width": 3}}
    with pytest.raises(UserError, match="width = 3 beside"):
        with_student({"student": {"network": "auto", "width": 3}})
