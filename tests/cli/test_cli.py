"""The command line: what it prints, and how it refuses."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli.main import app
from degan_search.evaluation import networks
from degan_search.networks.table import build_classifier
from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from degan_search.settings.resolve import trial_config
from degan_search.system import weights_file

TRIAL = {
    "proxy": "digits",
    "count": 60,
    "teacher": {
        "dataset": "digits",
        "network": "lenet",
        "width": 2,
        "count": 200,
        "fit": {"steps": 20, "batch_size": 16},
    },
    "student": {"network": "lenet", "width": 2},
    "gan": {"width": 2, "latent": 4, "steps": 4, "batch_size": 8},
    "distill": {"steps": 6, "steps_per_epoch": 3, "batch_size": 8, "score_images": 32, "pool": 32},
    "distill_images": {"steps": 6, "batch_size": 8, "batch_of": "used"},
    "bank": {"proxy_images": 8},
}
COMMANDS = ("sweep", "run", "table", "spaces")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Default folders are relative: none may appear in the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)


def call(*arguments):
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


def refused(*arguments, says=()):
    """Exit code 2 and one line on stderr that holds these parts."""
    result = call(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: "), result.stderr
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1
    for part in says:
        assert str(part) in result.stderr, result.stderr


def write(folder, content, name="mine.yaml"):
    (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / name


def nothing_in(folder):
    return not folder.exists() or not any(path.is_file() for path in folder.rglob("*"))


class TestHelp:
    """What a newcomer reads first."""

    def test_of_the_app(self):
        for result in (call("--help"), call()):
            assert "lambda_e, lambda_d and the proxy" in " ".join(result.output.split())
            assert all(command in result.output for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_each_command(self, command):
        result = call(command, "--help")
        assert result.exit_code == 0
        expected = {
            "sweep": [
                "space",
                "--name",
                "--storage",
                "--data-dir",
                "--cpus-per-trial",
                "--gpus-per-trial",
                "--dry-run",
            ],
            "run": ["--out", "--set", "--storage", "--data-dir", "--threads", "config"],
            "table": ["--paper", "--style", "runs"],
            "spaces": ["List the space files"],
        }
        for part in expected[command]:
            assert part in result.output

    def test_no_such_command_or_option(self):
        assert call("sweeep").exit_code == 2
        assert call("sweep", "smoke", "--cpus", "1").exit_code == 2
        assert call("sweep", "smoke", "--cpus-per-trial", "0").exit_code == 2
        assert call("sweep", "smoke", "--gpus-per-trial", "-1").exit_code == 2


def test_spaces_lists_every_shipped_space():
    result = call("spaces")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == space_file.shipped()
    assert all(len(line.split()) > 3 for line in lines)


class TestDryRun:
    """`sweep --dry-run`."""

    def test_prints_settings_trials_and_time_and_makes_nothing(self, tmp_path):
        result = call("sweep", "smoke", "--dry-run", "--max-concurrent", "2")
        assert result.exit_code == 0, result.output
        resolved, _, rest = result.stdout.partition("\n# every cell")
        assert schema.Space.model_validate(yaml.safe_load(resolved)) == space_file.load("smoke")
        assert "true glyphs/[A-J], proxy glyphs/[K-Z], method degan, lenet -> lenet_half" in rest
        assert "varies gan.lambda_e, gan.lambda_d; 4 search trials, 2 final runs" in rest
        assert "4 search trials and 2 final runs in 1 cells: about" in rest
        assert "on 2 slots of this machine's CPU" in rest
        assert not any(tmp_path.iterdir())

    def test_needs_no_data(self, tmp_path):
        space = {"trial": {**TRIAL, "proxy": "cifar100/related_90"}, "parameters": {"gan.lambda_d": [0, 5]}}
        result = call("sweep", write(tmp_path, space), "--dry-run", "--data-dir", tmp_path / "none")
        assert result.exit_code == 0, result.output
        assert "16 search trials and 0 final runs" in result.stdout


@pytest.fixture
def pictures(tmp_path):
    """A folder of 40 pictures, one of them broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(39):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no picture")
    return folder


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
        assert last.startswith("Saved in mine")
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
            ("teacher.path=teacher.txt", ".safetensors"),
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
        result = call("run", file, "--storage", "store", "--set", "proxy=folder:pictures")
        assert result.exit_code == 0, result.output

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
        assert config["student"] == {"network": "lenet", "width": 2}
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


class TestSweep:
    """What `sweep` refuses before it trains anything."""

    def refused(self, folder, *arguments, says=(), **changes):
        file = write(folder, {"trial": TRIAL, "parameters": {"gan.lambda_d": [0, 5]}, **changes})
        refused("sweep", file, *arguments, says=says)
        assert nothing_in(folder / "runs")

    def test_unknown_spaces(self):
        refused("sweep", "smokk", says=["'smokk'", "did you mean smoke"])
        refused("sweep", "none.yaml", says=["none.yaml", "does not exist"])

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"cells": {"proxy": ["digits", "diggits"]}}, "digits"),
            ({"cells": {"proxy": ["cifar100/[flowerss]"]}}, "flowers"),
            ({"trial": {"teacher": {"dataset": "cifar11"}}}, "cifar10"),
            ({"trial": {"teacher": {"network": "alexnett"}}}, "alexnet"),
            ({"trial": {"gan": {"lambda": 1}}}, "gan.lambda"),
            ({"parameters": {"gan.lambda_e": {"range": [5, 1]}}}, "lower bound"),
        ],
    )
    def test_wrong_spaces(self, tmp_path, changes, says):
        self.refused(tmp_path, says=[says], **changes)

    def test_proxies_without_images(self, tmp_path):
        (tmp_path / "empty").mkdir()
        self.refused(tmp_path, cells={"proxy": [f"folder:{tmp_path / 'empty'}"]}, says=["empty"])
        self.refused(tmp_path, cells={"proxy": [f"folder:{tmp_path / 'none'}"]}, says=["none"])

    def test_a_broken_image(self, tmp_path, pictures):
        # Seen once Ray is there, but before any trial.
        self.refused(
            tmp_path, trial={**TRIAL, "count": None}, cells={"proxy": [f"folder:{pictures}"]}, says=["broken.png"]
        )
        assert not (tmp_path / "runs" / "mine" / "run.json").exists()

    def test_folders(self, tmp_path):
        (tmp_path / "file").write_text("")
        self.refused(tmp_path, "--storage", tmp_path / "file" / "below", says=["--storage", "file"])
        self.refused(tmp_path, "--storage", tmp_path / "file", says=["--storage"])
        for name in ("a/b", "..", "cache"):
            self.refused(tmp_path, "--name", name, says=[f"--name '{name}'"])
        (tmp_path / "old" / "mine").mkdir(parents=True)
        (tmp_path / "old" / "mine" / "run.json").write_text("{}")
        self.refused(tmp_path, "--storage", "old", says=["old/mine is already there", "--name"])
        assert (tmp_path / "old" / "mine" / "run.json").read_text() == "{}"

    def test_more_than_the_machine_has(self, tmp_path):
        self.refused(tmp_path, "--cpus-per-trial", 4096, says=["4096 CPUs", "--cpus-per-trial"])
        self.refused(tmp_path, "--gpus-per-trial", 512, says=["512 GPUs", "--gpus-per-trial"])

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    def test_a_gpu_where_there_is_none(self, tmp_path):
        self.refused(tmp_path, "--gpus-per-trial", 1, says=["1 GPUs", "0 GPUs"])


class TestTable:
    """`table`."""

    @pytest.fixture
    def measured(self, tmp_path):
        from degan_search.ledger.columns import config_columns

        row = {"trial_id": "search-0000", "attempt": 1, "phase": "search", "state": "COMPLETE", "score": 0.5}
        ledger.write(tmp_path, row | config_columns(trial_config(TRIAL)))
        ledger.write_scores(tmp_path, {"trial_id": "search-0000", "oracle_accuracy": 0.625, "n_oracle": 40})
        return tmp_path

    def test_folders_without_results(self, tmp_path):
        refused("table", tmp_path, says=["ledger"])
        refused("table", tmp_path / "none", says=["none"])

    def test_unknown_options(self, measured):
        refused("table", measured, "--paper", "table3", says=["table3", "table1"])
        refused("table", measured, "--style", "html", says=["html", "latex"])
        assert not list(measured.glob("table.*"))

    def test_prints_and_saves(self, measured):
        result = call("table", measured)
        assert result.exit_code == 0, result.output
        assert "62.5*" in result.stdout
        assert "62.5" in (measured / "table.csv").read_text()
        assert "62.5" in (measured / "table.md").read_text()
        with Image.open(measured / "table.png") as picture:
            assert picture.width > 100
        assert call("table", measured, "--style", "latex").stdout == (measured / "table.tex").read_text()


def test_a_missing_student_is_named(tmp_path):
    from degan_search.system.errors import UserError

    with pytest.raises(UserError, match=r"student\.safetensors is missing"):
        networks.load_student(tmp_path, "search-0000", trial_config(TRIAL), 10)
