"""A trial in the foreground: what it saves, what it refuses, and that it needs no Ray."""

import json
import subprocess
import sys

import pytest
from PIL import Image
from safetensors.torch import load_file

from degan_search.data import proxies
from degan_search.networks.table import build_classifier
from degan_search.settings.methods import normalised
from degan_search.settings.trial import TrialConfig
from degan_search.stages import gan
from degan_search.system.errors import UserError
from degan_search.trial import run_here

GAN_STEPS = 12


def test_a_trial_is_saved_and_its_folder_not_taken_twice(tiny, tmp_path, monkeypatch):
    asked, load = [], proxies.load
    monkeypatch.setattr(
        proxies,
        "load",
        lambda name, split="train", *rest, **named: asked.append(split) or load(name, split, *rest, **named),
    )
    config, shown = tiny({"gan.lambda_e": 0.5}), []
    out = tmp_path / "out"
    metrics = run_here.run(config, out, tmp_path / "runs", show=lambda *what: shown.append(what))
    assert sorted(path.name for path in out.iterdir()) == [
        "early_generator.safetensors",
        "generator.safetensors",
        "result.json",
        "samples.png",
        "student.safetensors",
    ]
    assert set(asked) == {"train"}  # the test split is for the final evaluation alone
    about = json.loads((out / "result.json").read_text())
    assert TrialConfig.model_validate(about["config"]) == normalised(config)
    assert about["metrics"] == metrics
    assert "torch" in about["about"]["versions"]
    student = build_classifier("lenet_half", 10, 2, 1)
    student.load_state_dict(load_file(out / "student.safetensors"))
    generator = gan.build_generator(1, 2, 4)
    generator.load_state_dict(load_file(out / "generator.safetensors"))
    with Image.open(out / "samples.png") as picture:
        assert picture.format == "PNG"
        picture.load()
        assert picture.size == (2 * (8 * 34 + 2), 2 * (8 * 34 + 2))
    assert {stage for stage, *_ in shown} == {"teacher", "comparison images", "gan", "distill", "done"}

    files = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(UserError, match=r"out is already there"):
        run_here.run(config, out, tmp_path / "runs")
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == files

    (tmp_path / "empty").mkdir()
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert len(cached) == 2  # a teacher and a bank
    shown.clear()
    again = run_here.run(config, tmp_path / "empty", tmp_path / "runs", show=lambda *what: shown.append(what))
    assert {stage for stage, *_ in shown} == {"comparison images", "gan", "distill", "done"}  # the teacher is there
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")} == cached
    assert again["score"] == metrics["score"]
    for name in ("student.safetensors", "generator.safetensors", "samples.png"):
        assert (tmp_path / "empty" / name).read_bytes() == (out / name).read_bytes()


def test_a_student_of_images_has_no_generator_to_save(tiny, tmp_path):
    run_here.run(tiny({"method": "proxy", "bank.generators": []}), tmp_path / "out", tmp_path / "runs")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["result.json", "student.safetensors"]


def test_a_folder_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="already there"):
        run_here.run(tiny(), tmp_path / "out", tmp_path / "runs")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_failed_trial_speaks_to_the_user_and_saves_nothing(tiny, tmp_path):
    config = tiny({"gan.lr": 3, "gan.lambda_e": 1e6, "bank.generators": []})
    with pytest.raises(UserError, match="the trial failed: gan: "):
        run_here.run(config, tmp_path / "out", tmp_path / "runs")
    assert not (tmp_path / "out").exists()


ALONE = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = None
from pathlib import Path
from degan_search.settings.trial import TrialConfig
from degan_search.trial import run_here
metrics = run_here.run(TrialConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
print(metrics["score"], metrics["gan_steps"])
"""


def test_a_trial_runs_without_ray_and_optuna_and_gives_the_same(tiny, tmp_path):
    config = tiny()
    command = [sys.executable, "-c", ALONE, config.model_dump_json(), str(tmp_path / "out"), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = run_here.run(config, tmp_path / "here", tmp_path / "here-runs")
    assert done.stdout.split() == [str(here["score"]), str(GAN_STEPS)]
    for name in ("student.safetensors", "generator.safetensors", "samples.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
