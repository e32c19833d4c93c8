"""`degan-search init`: what it says, and a file that `sweep` takes without a further word."""

import pytest
import torch

from degan_search.networks.table import build_classifier
from tests.cli.calls import call, refused
from tests.search.planning.made_up_steps import steps_take

pytestmark = pytest.mark.usefixtures("elsewhere")
LENET = ("--teacher", "lenet", "--weights", "w.pt", "--proxy", "photos", "--classes", 3, "--images", 50)


@pytest.fixture(autouse=True)
def teacher(elsewhere, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(build_classifier("lenet", 3).state_dict(), tmp_path / "w.pt")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """`init` computes on all CPUs, where other tests run too: threads that wait for each other take their time."""
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)


@pytest.fixture
def steps(monkeypatch):
    """A millisecond for each image of a step."""
    steps_take(monkeypatch, 0.001, 0.001)


@pytest.mark.usefixtures("steps")
def test_says_what_it_sees_and_writes_a_space(tmp_path, pictures):
    refused("init", *LENET, "--proxy", "folder:pictures", says=["broken.png"])
    (pictures / "broken.png").unlink()
    result = call("init", *LENET, "--proxy", "folder:pictures", "--budget", "20m")
    assert result.exit_code == 0, (result.output, result.exception)
    for part in (
        "Teacher: lenet, 61,",
        "3 classes (0, 1, 2); takes 32x32 gray, normalised as signed",
        "10,000",
        "39",
        "folder:pictures: 39 images are few",
        "folder:pictures: half of its images are 20 pixels",
        "Student: lenet_half",
        "of --budget 20m",
        "degan-search sweep my.yaml",
    ):
        assert part in result.stdout, result.stdout
    dry = call("sweep", "my.yaml", "--dry-run")
    assert dry.exit_code == 0, (dry.output, dry.exception)
    assert "batch_size: 16" in dry.stdout  # of 39 images 31 are trained on


@pytest.mark.usefixtures("steps")
def test_the_order_of_channels_is_in_the_file(tmp_path):
    torch.save(build_classifier("alexnet", 3).state_dict(), tmp_path / "w.pt")
    options = ("--weights", "w.pt", "--proxy", "photos", "--images", 50, "--order", "bgr", "--budget", "5h")
    result = call("init", "--teacher", "alexnet", *options)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "takes 32x32 BGR, normalised as signed" in result.stdout
    text = (tmp_path / "my.yaml").read_text()
    assert "order: bgr" in text
    assert "--order bgr" in text


@pytest.mark.usefixtures("steps")
def test_the_file_sweeps():
    assert call("init", *LENET, "--out", "first.yaml", "--student", "lenet_half", "--budget", "1h").exit_code == 0
    dry = call("sweep", "first.yaml", "--dry-run")
    assert dry.exit_code == 0, (dry.output, dry.exception)
    assert "lenet -> lenet_half" in dry.stdout


@pytest.mark.usefixtures("steps")
def test_overwrites_nothing(tmp_path):
    (tmp_path / "my.yaml").write_text("mine")
    refused("init", *LENET, says=["'my.yaml' is already there"])
    assert (tmp_path / "my.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--weights", "nowhere.pt"], "nowhere.pt"),
        (["--teacher", "alexnett"], "did you mean alexnet"),
        (["--teacher", "alexnet"], "does not fit network 'alexnet'"),
        (["--teacher", "net.onnx"], "leave out --weights"),
        (["--classes", "a,b"], "with 2 classes"),
        (["--proxy", "folder:nowhere"], "is not a folder"),
        (["--student", "nothing"], "unknown classifier 'nothing'"),
        (["--size", "big"], "--size 'big'"),
        (["--size", "4"], "input.size"),
        (["--normalise", "none"], "input.normalise"),
        (["--order", "grb"], "input.order"),
        (["--order", "bgr"], "teacher.input.order = 'bgr' needs 3 channels"),
        (["--budget", "soon"], "--budget 'soon' is no time"),
        (["--out", "first.txt"], "must end in .yaml"),
    ],
)
def test_says_what_is_wrong(options, says, tmp_path):
    refused("init", *LENET, *options, says=[says])
    assert not (tmp_path / "my.yaml").exists()


def test_weights_are_needed():
    refused("init", "--teacher", "torchvision/resnet18", "--proxy", "photos", says=["--weights is missing"])
