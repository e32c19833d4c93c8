"""What Ray brings to workers: the user's own networks, also where their files are not."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import degan_search
from degan_search.networks import of_onnx
from degan_search.networks.named import networks_named
from degan_search.search.workers.environment import environment
from degan_search.system.errors import UserError

NET = """
from torch import nn
class Net(nn.Sequential):
    pass
def build(classes):
    return Net(nn.Flatten(), nn.Linear(3072, classes))
"""
ON_A_WORKER = """
import shutil, sys
from pathlib import Path
import ray
from degan_search.networks.named import vouch_for
from degan_search.networks.table import build_classifier
from degan_search.search.workers.start import start

names = sys.argv[1:]
start({"log_to_driver": False}, names)
vouch_for([{"network": name} for name in names])
sent = ray.put(build_classifier(names[0], 7))
Path("own_net.py").unlink()
shutil.rmtree("own_nets")

@ray.remote
def build(sent):
    return [type(sent).__name__, *(type(build_classifier(name, 5)).__module__ for name in names)]

print("built", *ray.get(build.remote(sent)))
"""


def write(path, text=NET):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_network_that_settings_name_is_found():
    settings = {
        "trial": {"teacher": {"network": "a", "path": "not"}, "student.network": "b", "method": "not"},
        "parameters": {"student.network": ["c", "d"], "gan.lambda_d": {"log": [1, 2]}},
        "when": [{"if": {"student.network": "e"}, "trial": {"student": {"network": "f"}}}],
    }
    assert networks_named(settings) == set("abcdef")
    assert networks_named([]) == set()


def test_a_cluster_gets_the_project_the_files_and_the_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "here")
    file = write(tmp_path / "own_net.py")
    write(tmp_path / "own_nets" / "__init__.py", "")
    inner = write(tmp_path / "own_nets" / "inner.py")
    onnx = write(tmp_path / "a.onnx", "")
    monkeypatch.setattr(of_onnx, "files", lambda name: [onnx])
    names = ["lenet", f"{file}:build", f"{file}:build?x=3", f"{inner}:build", "torchvision.models:resnet18", str(onnx)]
    with environment(names, cluster=True) as made:
        project, *sent, staged = made["py_modules"]
        assert Path(project) == Path(degan_search.__file__).parent
        assert sorted(sent) == [str(file), str(inner.parent)]
        assert Path(staged).name == of_onnx.BROUGHT
        assert [path.name for path in Path(staged).iterdir()] == ["a.onnx"]
        assert made["env_vars"]["AWS_REGION"] == "here"
    assert not Path(staged).exists()


def test_ray_here_is_told_nothing_where_no_code_is_named():
    with environment(["lenet", "torchvision/resnet18", "torchvision.models:resnet18"], cluster=False) as made:
        assert made == {}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["a/own_net.py", "b/own_net.py"], "by the name 'own_net'; rename one of them"),
        (["json.py"], "another module is called 'json'; give the file another name"),
        (["torch.py"], "another module is called 'torch'"),
    ],
)
def test_files_that_workers_could_take_for_another_are_refused(tmp_path, files, said):
    names = [f"{write(tmp_path / file)}:build" for file in files]
    with pytest.raises(UserError, match=said), environment(names, cluster=False):
        pass


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"), environment([f"{tmp_path}/gone.py:build"], cluster=False):
        pass


def test_workers_build_what_the_driver_named_without_its_files(tmp_path):
    """The files are gone once Ray has started, as on a machine that never had them."""
    write(tmp_path / "own_net.py")
    write(tmp_path / "own_nets" / "__init__.py", "")
    write(tmp_path / "own_nets" / "inner.py", "from .parts import build\n")
    write(tmp_path / "own_nets" / "parts.py")
    program = write(tmp_path / "script" / "program.py", textwrap.dedent(ON_A_WORKER))
    names = [f"{tmp_path}/own_net.py:build", f"{tmp_path}/own_nets/inner.py:build"]
    done = subprocess.run(
        [sys.executable, program, *names],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(degan_search.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "built Net own_net own_nets.parts" in done.stdout, done.stdout + done.stderr
