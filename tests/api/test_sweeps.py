"""Sweeps that Python begins: what is refused before anything is made, and one off the main thread."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import degan_search as ds
from degan_search.search.space import file as space_file
from tests.cli.calls import TRIAL, nothing_in
from tests.search.tiny_sweep import share

SPACE = {"trial": TRIAL, "parameters": {"gan.lambda_d": [0, 5]}, "search": {"sampler": "grid"}}
ONE = {"trial": {**TRIAL, "method": "proxy"}, "parameters": {"seed": [3]}, "search": {"sampler": "grid"}}
IN_A_THREAD = f"""
import json, sys, threading, torch
import degan_search as ds
torch.set_num_threads(2)
before = torch.are_deterministic_algorithms_enabled()
found = []
space = json.loads({json.dumps(json.dumps(ONE))})
thread = threading.Thread(target=lambda: found.append(ds.sweep(space, quiet=True)))
thread.start()
thread.join()
assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (2, before)
assert [*found[0].trials["state"]] == ["COMPLETE"], found[0].trials
sys.stderr.write(str(found[0].path))
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)


def test_a_sweep_may_run_in_any_thread_and_be_quiet(tmp_path):
    share(ONE, tmp_path / "runs" / "cache")
    done = subprocess.run(
        [sys.executable, "-c", IN_A_THREAD], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert done.stderr == str(tmp_path / "runs/sweep")
    assert (tmp_path / "runs/sweep/report.html").is_file()


def test_a_space_may_be_a_dict_a_path_or_a_name(tmp_path):
    given = {**SPACE, "trial": {**TRIAL, "count": np.int64(60)}, "parameters": {"gan.lambda_d": (0, 5)}}
    space = space_file.load(given)
    assert space == space_file.load(SPACE)
    (tmp_path / "mine.yaml").write_text(space_file.dump(space))
    assert space_file.load(tmp_path / "mine.yaml") == space
    assert space_file.load("smoke").search.trials == 4


@pytest.mark.parametrize(
    ("space", "options", "says"),
    [
        ("smokk", {}, "space 'smokk' is not shipped; did you mean smoke"),
        ({**SPACE, "trail": {}}, {}, "trail"),
        ({**SPACE, "trial": {**TRIAL, "proxy": "diggits"}}, {}, "digits"),
        ({**SPACE, "trial": {**TRIAL, "count": object()}}, {}, "is of object: text, numbers, lists and dicts"),
        (SPACE, {"max_concurent": 1}, "did you mean max_concurrent"),
        (SPACE, {"budget": "20 apples"}, "budget '20 apples' is no time"),
        (SPACE, {"budget": 60}, "search.sampler grid runs every combination"),
        (SPACE, {"name": "a/b"}, "'a/b' must be a plain folder name"),
        (SPACE, {"cpus_per_trial": 4096}, "4096 CPUs"),
    ],
)
def test_wrong_ones_are_refused_in_a_line_before_anything_is_made(tmp_path, space, options, says):
    with pytest.raises(ds.UserError) as caught:
        ds.sweep(space, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert nothing_in(tmp_path / "runs")


def test_resume_needs_a_run():
    with pytest.raises(ds.UserError, match="no run at"):
        ds.resume("runs/none", quiet=True)
    with pytest.raises(ds.UserError, match="keep 'few'"):
        ds.resume("runs/none", keep="few", quiet=True)


def test_the_package_offers_what_it_names():
    assert set(ds.__all__) <= set(dir(ds))
    assert all(hasattr(ds, name) for name in ds.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'swep'"):
        ds.swep  # noqa: B018
