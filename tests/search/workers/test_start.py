"""Ray where it cannot be started, and with how many CPUs it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from rich.console import Console
from typer.testing import CliRunner

from degan_search.cli.main import app
from degan_search.search.open_run import here
from degan_search.search.run.options import Options
from degan_search.search.workers import cluster, start
from degan_search.system.errors import UserError
from tests.cli.calls import TRIAL, write

PLACES = {
    "a long path for temporary files": (
        {"TMPDIR": "{folder}" + "/long" * 30},
        ["/long, whose path is ", "bytes too long", "set TMPDIR to a shorter one"],
    ),
    "a home that cannot be written": (
        {"HOME": "/proc/none"},
        ["/proc/none/.ray", "set HOME to a folder that can"],
    ),
    "a token that is not there": (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/none/token"},
        ["RAY_AUTH_TOKEN_PATH=/none/token", "unset it"],
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_start_that_fails_says_what_to_do_and_leaves_nothing(name, tmp_path):
    environment, says = PLACES[name]
    settings = {key: value.format(folder=tmp_path) for key, value in environment.items()}
    if "TMPDIR" in settings:
        Path(settings["TMPDIR"]).mkdir(parents=True)
    file = write(tmp_path, {"trial": TRIAL, "parameters": {"gan.lambda_d": [0, 5]}})
    command = [sys.executable, "-c", "from degan_search.cli.main import main; main()", "sweep", file]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    result = subprocess.run(
        [*command, "--storage", tmp_path / "runs"], capture_output=True, text=True, env=clean | settings, timeout=120
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: Ray cannot be started here: ")
    assert result.stderr.count("\n") == 1
    for part in says:
        assert part in result.stderr
    assert not (tmp_path / "runs" / "mine").exists()
    if "TMPDIR" in settings:
        assert not (Path(settings["TMPDIR"]) / "ray").exists()


def test_other_errors_are_passed_on_in_one_line(monkeypatch):
    def init(**options):
        raise RuntimeError("a first line\nand a second")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match="Ray cannot be started here: a first line and a second"):
        start.start({})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_there_are_as_many_slots_as_cpus_that_may_be_used(monkeypatch, tmp_path):
    asked = []

    def init(**options):
        asked.append(options["num_cpus"])
        raise RuntimeError

    monkeypatch.setattr(ray, "init", init)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert here()["CPU"] == 1
        with pytest.raises(UserError), cluster.ray_cluster(Options(storage=tmp_path), Console()):
            pass
        assert asked == [1]
        file = write(tmp_path, {"trial": TRIAL, "parameters": {"gan.lambda_d": [0, 5]}})
        assert "on 1 slots of" in CliRunner().invoke(app, ["sweep", str(file), "--dry-run"]).stdout
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_machine_that_is_too_busy_is_asked_three_times(failures, monkeypatch):
    asked = []

    def init(**options):
        asked.append(options)
        if len(asked) <= failures:
            raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(ray, "init", init)
    if failures < 3:
        start.start({})
    else:
        with pytest.raises(UserError, match=r"^Ray cannot be started here: in 3 tries .* busy with other programs"):
            start.start({})
    assert len(asked) == min(failures + 1, 3)
