"""`run` and `incremental`: one trial in the foreground."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from degan_search.networks.table import build_classifier
from degan_search.settings.resolve import trial_config
from degan_search.system import weights_file
from tests.cli.calls import TRIAL, call, nothing_in, refused, write

pytestmark = pytest.mark.usefixtures("elsewhere")


class TestRun:
    """`run`."""

    def test_saves_files_and_prints_json(self, tmp_path):
        file = write(tmp_path, TRIAL)
        result = call(
            "run", file, "--out", "mine", "--set", "gan.lambda_e=2", "--set", "seed = 3", "--storage", "store"
        )
        assert result.exit_code == 0, (result.output, result.exception)
        text, _, last = result.stdout.strip().rpartition("\n")
        metrics = json.loads(text)
        assert 0 <= metrics["score"] <= 1
        kept = sorted(file.name for file in (tmp_path / "mine").iterdir())
        assert last == f"Saved in mine: {', '.join(kept)}"
        saved = json.loads((tmp_path / "mine/result.json").read_text())
        assert saved["metrics"] == metrics
        assert saved["config"]["gan"]["lambda_e"] == 2
        assert saved["config"]["seed"] == 3
        config = trial_config(saved["config"])
        for name in ("student.safetensors", "generator.safetensors"):
            assert weights_file.read_tensors((tmp_path / "mine" / name).read_bytes(), name)
        assert config.proxy == "digits"
        assert Image.open(tmp_path / "mine/samples.png").size[0] > 32
        # Again into the same folder it does not go, and the first result stays.
        refused("run", file, "--out", "mine", "--storage", "store", says=["mine is already there", "--out"])
        assert json.loads((tmp_path / "mine/result.json").read_text()) == saved

    def test_a_trial_that_diverges(self, tmp_path):
        file = write(tmp_path, TRIAL)
        changes = [part for change in ("gan.lr=10", "gan.steps=400", "precision=float32") for part in ("--set", change)]
        refused("run", file, "--storage", "store", *changes, says=["trial failed"])

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("gan.lambda_e", "key=value"),
            ("=3", "key=value"),
            ("gan.lambda_e=[", "--set 'gan.lambda_e=['"),
            ("gan.lambda_e=2024-01-01", "date"),
            ("gan.lambda_x=1", "unknown key 'gan.lambda_x'"),
            ("gan.lambda_e=-1", "gan.lambda_e = -1"),
            ("gan.lambda_e=much", "gan.lambda_e = 'much'"),
            ("method=degun", "'degun'"),
            ("proxy=digitts", "digits"),
            ("proxy=cifar100/[flowerss]", "flowers"),
            ("proxy='folder:'", "folder:PATH"),
            ("teacher.network=lenot", "lenet"),
            ("student.network=lenot", "lenet"),
            ("teacher.dataset=cifar11", "cifar10"),
            ("teacher.dataset=noise/uniform", "labelled"),
            ("teacher.count=10", "batch_size"),
            ("count=7", "gan.batch_size"),
            ("count=100000", "100000"),
            ("teacher.path=none.pt", "none.pt"),
            ("teacher.path=teacher.txt", "teacher.txt' cannot be opened"),
        ],
    )
    def test_wrong_settings(self, tmp_path, change, says):
        refused("run", write(tmp_path, TRIAL), "--storage", "store", "--set", change, says=[says])
        assert nothing_in(tmp_path / "trial")

    def test_proxies_of_the_users_own(self, tmp_path, pictures):
        file = write(tmp_path, {**TRIAL, "count": None})
        pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "wrong.parquet")
        for proxy, says in (("folder:pictures", "broken.png"), ("parquet:wrong.parquet", "wrong.parquet")):
            refused("run", file, "--storage", "store", "--set", f"proxy={proxy}", says=[says])
            assert nothing_in(tmp_path / "trial")
        (pictures / "broken.png").unlink()
        (pictures / "notes.txt").write_text("no image")
        result = call("run", file, "--storage", "store", "--set", "proxy=folder:pictures")
        assert result.exit_code == 0, result.output
        assert result.stderr.count("warning: ") == result.stderr.count("1 passed over") == 1
        assert "notes.txt" in result.stderr

    @pytest.mark.parametrize(
        ("text", "says"),
        [("[1, 2]", "key: value"), ("a: [", "not YAML"), ("1: 2", "must be text"), ("gan: &a {lr: *a}", "aliases")],
    )
    def test_files_that_are_no_settings(self, tmp_path, text, says):
        (tmp_path / "mine.yaml").write_text(text)
        refused("run", "mine.yaml", says=["mine.yaml", says])

    def test_files_that_are_not_there(self):
        refused("run", "none.yaml", says=["none.yaml", "does not exist"])

    def test_folders_that_cannot_be_written(self, tmp_path):
        file = write(tmp_path, TRIAL)
        refused("run", file, "--storage", file / "below", says=["mine.yaml"])
        refused("run", file, "--out", file / "below", "--storage", "store", says=["mine.yaml"])
        refused("run", file, "--out", file, "--storage", "store", says=["mine.yaml"])
        assert nothing_in(tmp_path / "store")


def teacher_file(folder, name="own.safetensors", network="lenet", classes=10, width=2, channels=None):
    state = build_classifier(network, classes, width, channels).state_dict()
    if name.endswith(".pt"):
        torch.save(state, folder / name)
    else:
        (folder / name).write_bytes(weights_file.tensors_bytes(state))
    return folder / name


class TestIncremental:
    """New classes, in the foreground."""

    SPACE = {
        "trial": TRIAL
        | {
            "task": "incremental",
            "teacher": TRIAL["teacher"] | {"dataset": "digits/[0-4]", "count": 100},
            "incremental": {"batch_size": 8, "steps": 4, "lr": 0.01},
            "proxy": "digits/[5-9]",
        },
        "cells": {"method": ["finetuning", "degan"]},
        "when": [{"if": {"method": "degan"}, "parameters": {"gan.lambda_e": [0, 1], "gan.lambda_d": [0, 5]}}],
    }

    @pytest.mark.parametrize("method", ["finetuning", "degan"])
    def test_the_grown_network_is_saved(self, tmp_path, method):
        names = ("--old", "digits/[1-3]", "--new", "digits/[7,8]", "--set", "count=40")
        result = call("incremental", *names, "--space", write(tmp_path, self.SPACE), "--method", method)
        assert result.exit_code == 0, result.output
        about = json.loads((tmp_path / "grown" / "result.json").read_text())
        config = about["config"]
        assert (config["teacher"]["dataset"], config["proxy"]) == ("digits/[1-3]", "digits/[7,8]")
        assert (config["student"]["network"], config["student"]["width"]) == ("lenet", 2)
        # The released code's weights, not the lowest of the space.
        assert (config["gan"]["lambda_e"], config["gan"]["lambda_d"]) == ((0, 5) if method == "degan" else (0, 0))
        state = weights_file.read_tensors((tmp_path / "grown" / "student.safetensors").read_bytes(), "student")
        assert build_classifier("lenet", 5, 2).load_state_dict(state)
        assert (tmp_path / "grown" / "generator.safetensors").exists() == (method == "degan")

    def test_what_is_wrong_is_said(self, tmp_path):
        space = write(tmp_path, self.SPACE)
        refused("incremental", "--space", space, "--method", "lwf_mc", says=("lwf_mc", "finetuning"))
        refused("incremental", "--space", "smoke", says=("smoke", "table3_cifar100"))
        refused("incremental", "--space", space, "--new", "photos", says=("labelled",))
        refused("incremental", "--space", space, "--old", "digts", says=("digits",))
        assert nothing_in(tmp_path / "runs")


class TestOwnTeacher:
    """A teacher's file."""

    @pytest.mark.parametrize("name", ["own.safetensors", "own.pt"])
    def test_that_fits(self, tmp_path, name):
        own = teacher_file(tmp_path, name)
        result = call("run", write(tmp_path, TRIAL), "--set", f"teacher.path={own}", "--storage", "store")
        assert result.exit_code == 0, result.output

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"classes": 7}, "10 classes"),
            ({"channels": 3}, "lenet"),
            ({"width": 5}, "width 2"),
            ({"network": "alexnet"}, "lenet"),
        ],
    )
    def test_that_does_not_fit(self, tmp_path, change, says):
        own = teacher_file(tmp_path, **change)
        refused("run", write(tmp_path, TRIAL), "--set", f"teacher.path={own}", "--storage", "store", says=[own, says])
        assert nothing_in(tmp_path / "trial")

    def test_that_takes_images_of_another_size(self, tmp_path):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28, 10))
        torch.jit.script(model).save(tmp_path / "own.pt")
        refused(
            *("run", write(tmp_path, TRIAL), "--set", "teacher.path=own.pt", "--set", "teacher.trusted=true"),
            *("--storage", "store"),
            says=["(1, 32, 32)"],
        )

    def test_that_is_broken(self, tmp_path):
        for name in ("own.safetensors", "own.pt"):
            (tmp_path / name).write_bytes(b"no weights")
            refused("run", write(tmp_path, TRIAL), "--set", f"teacher.path={name}", "--storage", "store", says=[name])
