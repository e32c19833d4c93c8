"""Clusters: machines are lost, ask for a token, lack this project, or do not see the run's folder."""

import os
import platform
import re
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from harness import TRIAL, Driver, check, rows, same_as_uninterrupted, write_space
from safetensors.torch import save_file

import degan_search
from degan_search import ledger
from degan_search.networks.named import vouch_for
from degan_search.networks.table import build_classifier
from degan_search.search.workers.connect import connect
from degan_search.system.errors import UserError
from tests.faults.nodes import Cluster, free_ports

OPTIONS = ("--storage", "runs", "--checkpoint-every", "0", "--address")
SOURCE = Path(degan_search.__file__).parent.parent
PROGRAM = {"PYTHONPATH": str(SOURCE), "DEGAN_SEARCH_TRUSTED": "1"}  # the program, not a run, names the network
LONGER = {"trial": {**TRIAL, "gan": {**TRIAL["gan"], "steps": 400}, "probe": {**TRIAL["probe"], "at": [40, 300]}}}


@pytest.fixture
def cluster(tmp_path):
    """A cluster without workers, which ends with the test."""
    made = Cluster(tmp_path)
    yield made
    made.end()


def amid(run, trials):
    """Return a condition: so many trials have checkpoints, and none has ended."""
    return lambda: len({file.parent for file in (run / "trials").glob("*/checkpoint-*")}) == trials and not rows(run)


def lost_and_done(driver, run):
    """Check a run of which a machine was lost amid a trial."""
    assert driver.wait() == 0, driver.text
    assert re.search(r"^\S+ of the cluster is lost; its trials are tried again$", driver.text, re.M), driver.text
    assert re.search(r"^search-000\d is tried again in 5 s \(.*\): \S+", driver.text, re.M), driver.text
    assert "Traceback" not in driver.text
    frame = check(run)
    assert (frame["attempt"] == 2).sum() == 1
    same_as_uninterrupted(run, frame)


def test_an_address_at_which_no_cluster_is():
    (port,) = free_ports(1)
    for address, said in (
        (f"127.0.0.1:{port}", r"no Ray cluster at '127.0.0.1:\d+': Connection refused; is the head up"),
        ("nobody.invalid:6379", "no Ray cluster at 'nobody.invalid:6379': Name or service not known|resolution"),
        ("head", "'head' must be host:port of the cluster's head, or auto"),
        ("head:port", "'head:port' must be host:port"),
        ("ray://head:10001", "Ray Client is not served"),
    ):
        with pytest.raises(UserError, match=said):
            connect(address, {})


@pytest.mark.faults
def test_a_port_that_does_not_answer_and_a_machine_outside_the_cluster(cluster, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Ray cluster at '{address}': what listens there does not answer"):
            connect(address, {})
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("degan_search.search.workers.ray_patches.find_node_ids", set)
    with pytest.raises(UserError, match=f"this machine is not part of the Ray cluster.*--address={cluster.address}"):
        connect(cluster.address, {})


@pytest.mark.faults
def test_a_machine_is_lost_in_a_cluster_of_three(tmp_path):
    from ray.cluster_utils import Cluster as RaysOwn

    write_space(tmp_path, LONGER)
    run = tmp_path / "runs" / "tiny"
    cluster = RaysOwn(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
        driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, cluster.address)
        driver.until(amid(run, 2))
        cluster.remove_node(workers[0], allow_graceful=False)
        lost_and_done(driver, run)
    finally:
        cluster.shutdown()


@pytest.mark.faults
def test_a_machine_is_lost_of_three_that_ask_for_a_token(tmp_path, cluster):
    """Each is a `ray start` of its own. Without the token nobody gets in, and is told so at once."""
    wrong = tmp_path / "wrong"
    wrong.write_text("another-token-of-the-tests-012345")
    workers = [cluster.add() for _ in range(2)]

    write_space(tmp_path, LONGER)
    sweep = ("sweep", "tiny.yaml", *OPTIONS, cluster.address)
    nobody = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": ""}
    for environment, said in (
        (nobody, "asks for a token"),
        (nobody | {"RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE is token, but there is no token for"),
        (cluster.environment | {"RAY_AUTH_TOKEN_PATH": str(wrong)}, "asks for another token than the one here"),
    ):
        refused = Driver(tmp_path, *sweep, environment=environment)
        assert refused.wait(60) == 2
        (line,) = refused.text.splitlines()
        assert said in line
        assert line.endswith("copy its token file to ~/.ray/auth_token here, or name it by RAY_AUTH_TOKEN_PATH")

    for worker in workers:
        worker.up()
    run = tmp_path / "runs" / "tiny"
    driver = Driver(tmp_path, *sweep, environment=cluster.environment)
    driver.until(amid(run, 2))
    workers[0].kill()
    lost_and_done(driver, run)


ON_THE_CLUSTER = """
import sys
from pathlib import Path
import ray
from degan_search.networks.table import build_classifier
from degan_search.search.workers.connect import check_nodes, connect

address, name = sys.argv[1:]
connect(address, {"log_to_driver": False}, [name])
check_nodes(None)
sent = ray.put(build_classifier(name, 7))
Path("own_net.py").unlink()

@ray.remote(num_cpus=1)
def build(sent):
    return type(sent).__name__, build_classifier(name, 5)[-1].out_features, sys.modules["own_net"].__file__

print("built", *ray.get(build.remote(sent)))
"""


@pytest.mark.faults
def test_a_machine_without_the_users_network_gets_it(tmp_path, cluster):
    """Its file is gone once the driver has connected, as on a machine that never had it."""
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential): ...\n"
        "def build(classes): return Net(nn.Flatten(), nn.Linear(3072, classes))\n"
    )
    worker = cluster.add().up()
    (tmp_path / "program.py").write_text(ON_THE_CLUSTER)
    done = subprocess.run(
        [sys.executable, "program.py", cluster.address, f"{tmp_path}/own_net.py:build"],
        cwd=tmp_path,
        env={**os.environ, **cluster.environment, **PROGRAM},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert re.search(rf"^built Net 5 {worker.folder}/\S+/own_net\.py$", done.stdout, re.M), done.stdout + done.stderr


@pytest.mark.faults
def test_a_machine_without_this_project_gets_it(tmp_path, cluster):
    """Its Python has the libraries and not degan_search, which comes through Ray's runtime environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (packages,) = (tmp_path / "bare" / "lib").glob("python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))  # .pth files in there are not followed
    bare = tmp_path / "bare" / "bin" / "python"
    program = "import ray, torch; import degan_search"
    looked = subprocess.run([bare, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "No module named 'degan_search'" in looked.stderr, looked.stderr

    worker = cluster.add(python=bare).up()
    write_space(tmp_path)
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, cluster.address, environment=cluster.environment)
    run = tmp_path / "runs" / "tiny"
    driver.until(amid(run, 1))
    (trial,) = worker.workers()
    assert f"{worker.folder}/" in Path(f"/proc/{trial}/environ").read_text().partition("PYTHONPATH=")[2]
    assert driver.wait() == 0, driver.text
    same_as_uninterrupted(run, check(run))
    ours = {file.relative_to(SOURCE).as_posix() for file in (SOURCE / "degan_search").rglob("*") if file.is_file()}
    assert worker.shipped() == {name for name in ours if "__pycache__" not in name}


@pytest.mark.faults
def test_a_machine_without_the_libraries_and_a_head_that_is_lost(tmp_path, cluster):
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    cluster.add(environment={"PYTHONPATH": str(tmp_path)}).up()
    write_space(tmp_path, LONGER)
    sweep = ("sweep", "tiny.yaml", *OPTIONS, cluster.address)
    refused = Driver(tmp_path, *sweep, environment=cluster.environment)
    assert refused.wait() == 2
    told = (
        f"error: {platform.node()} of the cluster cannot run this project: ModuleNotFoundError: No module named 'torch'"
    )
    assert refused.text.splitlines()[-1].startswith(told)

    (tmp_path / "sitecustomize.py").unlink()
    run = tmp_path / "runs" / "tiny"
    driver = Driver(tmp_path, *sweep, environment=cluster.environment)
    driver.until(amid(run, 1))
    cluster.nodes[0].kill()
    assert driver.wait(50) == 1
    told = driver.text.splitlines()[-1]
    assert re.fullmatch(
        r"error: the head of the Ray cluster, \S+, is gone \(Connection refused\); when one is up again, "
        "go on with: degan-search resume runs/tiny",
        told,
    ), driver.text
    last = Driver(tmp_path, "resume", run, "--address", "")  # on this machine alone
    assert last.wait() == 0, last.text
    same_as_uninterrupted(run, check(run))


NO_TORCH = """
import sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'")
sys.meta_path.insert(0, Finder())
"""


NET = """
from torch import nn
def build(classes, width=4):
    layers = [nn.Conv2d(3, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16 * width, classes))
"""


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["code", "onnx"])
def test_a_sweep_of_own_networks_on_a_machine_without_their_files(kind, tmp_path, cluster):
    """No true data either: the machine that runs the trials has nothing of the networks' folder."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace of its own is not permitted here")
    (nets := tmp_path / "nets").mkdir()
    (nets / "own_net.py").write_text(NET)
    (tmp_path / "vouch").mkdir()
    home = cluster.environment | {"XDG_STATE_HOME": str(tmp_path / "vouch")}
    vouch_for([{"network": f"{nets}/own_net.py:build"}])
    model = build_classifier(f"{nets}/own_net.py:build", 3).eval()
    if kind == "onnx":
        torch.onnx.export(model, (torch.zeros(2, 3, 40, 40),), nets / "teacher.onnx", dynamic_shapes=({0: "n"},))
        teacher = {"network": f"{nets}/teacher.onnx"}
    else:
        save_file(model.state_dict(), nets / "weights.safetensors")
        teacher = {"network": f"{nets}/own_net.py:build", "path": f"{nets}/weights.safetensors", "input": {"size": 40}}
    trial = {**TRIAL, "teacher": teacher, "student": {"network": f"{nets}/own_net.py:build?width=2"}}
    hidden = f'mount -t tmpfs none {nets} && exec "$@"'
    cluster.add(first=("unshare", "-m", "sh", "-c", hidden, "-")).up()
    write_space(tmp_path, {"trial": trial})
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, cluster.address, environment=home)
    assert driver.wait() == 0, driver.text
    frame = ledger.load(tmp_path / "runs" / "tiny")
    assert set(frame["state"]) <= {"COMPLETE", "PRUNED"}, frame["reason"].tolist()
    assert (frame["state"] == "COMPLETE").any()
    assert frame["oracle_accuracy"].isna().all()
    assert frame.loc[frame["state"] == "COMPLETE", "balanced_soft_agreement"].between(0, 1).all()


@pytest.mark.faults
def test_a_machine_that_does_not_see_the_folder(tmp_path, cluster, s3):
    """It is refused by its name; with the run in an object store the same cluster does."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace of its own is not permitted here")
    (tmp_path / "runs").mkdir()
    hidden = f'mount -t tmpfs none {tmp_path / "runs"} && exec "$@"'
    blind = cluster.add(first=("unshare", "-m", "sh", "-c", hidden, "-")).up()
    write_space(tmp_path)
    refused = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, cluster.address, environment=cluster.environment)
    assert refused.wait() == 2
    said = refused.text.splitlines()[-1]
    assert said.startswith(f"error: {platform.node()} of the cluster cannot see and write {tmp_path / 'runs' / 'tiny'}")
    assert "such as s3://bucket/runs" in said
    assert not (tmp_path / "runs" / "tiny").exists()

    home = {"XDG_CACHE_HOME": str(tmp_path / "copies")}
    options = ("--storage", s3.uri, "--checkpoint-every", "0", "--address", cluster.address)
    before = blind.fetched()
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *options, environment=home | cluster.environment)
    assert driver.wait() == 0, driver.text
    # Proxy and teacher for the bank's generator; teacher and images for trials, once for all five; and the seven
    # parameters that Tune hands to each of the two phases: references, referees, place, threads and the like.
    assert blind.fetched() - before == 1 + 1 + 2 * 7
    (run,) = (tmp_path / "copies").glob("degan_search/*/tiny")
    same_as_uninterrupted(run, check(run))
