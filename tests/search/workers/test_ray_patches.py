"""Ray's private parts that `ray_patches` uses are still what it needs; each case is named after the patch it breaks."""

import ast
import inspect
import io
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray._private import worker as ray_worker
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from rich.console import Console

from degan_search.search.workers import ray_patches

ROOT = Path(__file__).parents[3]
PATCHES = ROOT / "degan_search/search/workers/ray_patches.py"
PRIVATE = {"temporary_state", "run_metadata", "evaluated_params", "ray_actor"}
"""Attributes of Tune's trials that no documentation names."""


def arguments(function):
    return list(inspect.signature(function).parameters)


def made_trial(**config):
    return Trial("stub", config=config, stub=True)


def lost_worker():
    """Return what Ray's manager keeps of a worker's task, and the errors that it passes on."""
    heard = []
    worker = SimpleNamespace(actor_id=0, _on_error=None)
    return SimpleNamespace(_tracked_actor=worker, _on_error=lambda actor, error: heard.append(error)), heard


def fails(manager, error):
    """Tell a manager, without a cluster, of a task that failed; returns the errors that Tune's callbacks hear."""
    task, heard = lost_worker()
    made = manager.__new__(manager)
    made._failed_actor_ids, made._cleanup_actor = set(), lambda **given: None
    made._actor_task_failed(task, error)
    return heard


def outlive_lost_workers():
    assert arguments(RayActorManager._actor_task_failed) == ["self", "tracked_actor_task", "exception"]
    assert "RayActorManager" in TuneController.__init__.__code__.co_names, "Tune makes its manager elsewhere"
    (heard,) = fails(ray_patches.PatientManager, OutOfMemoryError("2 workers were killed"))
    assert isinstance(heard, RayActorError)
    assert "OutOfMemoryError" in str(heard)
    with pytest.raises(RuntimeError):  # else the patch is needed no more
        fails(RayActorManager, OutOfMemoryError("2 workers were killed"))


def print_in_one_line():
    plain = inspect.unwrap(ray_worker.print_to_stdstream)
    if not isinstance(plain, ray_patches.partial):  # a sweep in this process may have put ours there
        assert arguments(plain) == ["data", "ignore_prefix"]
    assert "print_to_stdstream" in ray_worker.listen_error_messages.__code__.co_names, "Ray prints elsewhere"
    out = io.StringIO()
    lost = "The node with node id: ab and address: 10.0.0.7 and node name: x has been marked dead because"
    for line in (lost, "Raylet is terminated. Termination", "Something else. And more"):
        ray_patches._print(Console(file=out), {"lines": [line], "is_err": True, "pid": "1"}, ignore_prefix=True)
    assert out.getvalue().splitlines() == [
        "10.0.0.7 of the cluster is lost; its trials are tried again",
        "Ray: Something else",
    ]


def use_token_of_home():
    assert arguments(ray_patches.maybe_enable_token_auth_if_token_available) == ["warn_if_disabled"]


def is_part_of_cluster():
    assert arguments(ray_patches.find_node_ids) == []
    assert isinstance(ray_patches.find_node_ids(), set)


def cpus_of_machine():
    assert arguments(ray_patches.get_num_cpus) == ["override_docker_cpu_warning", "truncate"]
    assert 1 <= ray_patches.cpus_of_machine() <= os.cpu_count()


def ask_workers_to_end():
    kv = ray_patches.internal_kv
    for function, names in ((kv._internal_kv_put, ["key", "value"]), (kv._internal_kv_exists, ["key"])):
        found = arguments(inspect.unwrap(function))
        assert found[: len(names)] == names
        assert "namespace" in found
    assert not ray_patches.driver_stops()  # without Ray


def worker_of():
    trial = made_trial(id="a")
    assert ray_patches.worker_of(trial) is None
    assert not ray_patches.kill_worker(trial)
    trial.temporary_state.ray_actor = actor = object()
    assert ray_patches.worker_of(trial) is actor


def forget():
    trial = made_trial(id="search-0000", weight="a value of the configuration")
    trial.update_last_result({"score": 0.5, "text": "a value of a result", "time_total_s": 1, "training_iteration": 1})
    assert repr(vars(trial)).count("a value of the configuration") >= 2, "Tune keeps its copy elsewhere"
    assert trial.last_result["text"] == "a value of a result"
    ray_patches.forget(trial)
    assert trial.config == {"id": "search-0000"}
    assert not {"score", "text"} & set(trial.last_result)
    assert "a value of" not in repr(vars(trial)) + repr(vars(trial.run_metadata))


@pytest.mark.parametrize(
    "patch",
    [
        outlive_lost_workers,
        print_in_one_line,
        use_token_of_home,
        is_part_of_cluster,
        cpus_of_machine,
        ask_workers_to_end,
        worker_of,
        forget,
    ],
    ids=lambda check: check.__name__,
)
def test_what_a_patch_needs_is_still_there(patch):
    assert callable(getattr(ray_patches, patch.__name__))
    patch()


def test_every_patch_has_its_case():
    functions = {name for name, one in vars(ray_patches).items() if inspect.isfunction(one)}
    own = {name for name in functions if getattr(ray_patches, name).__module__ == ray_patches.__name__}
    checked = set(test_what_a_patch_needs_is_still_there.pytestmark[0].args[1])
    others = {"kill_worker", "driver_stops"}  # are checked with one of the cases
    assert {name for name in own if not name.startswith("_")} - others == {one.__name__ for one in checked}


def test_the_installed_ray_is_one_that_the_patches_were_checked_with():
    minor = ".".join(ray.__version__.split(".")[:2])
    assert minor == ray_patches.CHECKED
    following = f"2.{int(minor.split('.')[1]) + 1}"
    assert f'"ray[tune]>={minor},<{following}"' in (ROOT / "pyproject.toml").read_text()


def private_uses(text):
    """Yield the lines of a file that import a private module of Ray's or read a private attribute of its trials."""
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
            if node.attr in PRIVATE:
                yield node.lineno
        if any(re.match(r"ray\.(.*\.)?_|ray\.tune\.execution", name) for name in names):
            yield node.lineno


def test_no_other_file_uses_private_parts_of_ray():
    files = [file for part in ("degan_search", "analysis", "benchmarks") for file in (ROOT / part).rglob("*.py")]
    found = {file: list(private_uses(file.read_text())) for file in files}
    assert [file for file, lines in found.items() if lines] == [PATCHES]
    assert len(found[PATCHES]) >= 6
