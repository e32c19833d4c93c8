"""`sweep`: what it would do, and what it refuses before it trains anything."""

import pytest
import torch
import yaml

from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from tests.cli.calls import TRIAL, call, nothing_in, refused, write
from tests.made_ledger import Sweep

pytestmark = pytest.mark.usefixtures("elsewhere")


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

    def test_of_repeats_and_of_an_end_when_flat(self, tmp_path):
        weights = {"gan.lambda_d": {"range": [0, 5]}}
        file = write(tmp_path, {"trial": TRIAL, "parameters": weights, "search": {"trials": 5, "repeats": 2}})
        result = call("sweep", file, "--dry-run", "--stop-when-flat")
        assert result.exit_code == 0, result.output
        assert yaml.safe_load(result.stdout.partition("\n# every cell")[0])["search"]["stop_when_flat"] is True
        assert "5 search trials, 4 repeats, 0 final runs" in result.stdout
        assert "5 search trials, 4 repeats and 0 final runs in 1 cells" in result.stdout

    def test_needs_no_data(self, tmp_path):
        space = {"trial": {**TRIAL, "proxy": "cifar100/related_90"}, "parameters": {"gan.lambda_d": {"range": [0, 5]}}}
        result = call("sweep", write(tmp_path, space), "--dry-run", "--data-dir", tmp_path / "none")
        assert result.exit_code == 0, result.output
        assert "16 search trials and 0 final runs" in result.stdout

    def test_refuses_what_the_sweep_would(self, tmp_path, monkeypatch):
        monkeypatch.setattr("degan_search.search.sweep.ray_cluster", None)
        for name, values, says in (
            ("count", [60, 5000], "count = 5000: cifar100/background_6 has 3,000 images"),
            ("teacher.count", [300, 2000], "teacher.count = 2000: digits has 1,437 images"),
            ("gan.batch_size", [8, 64], "fewer than gan.batch_size = 64"),
        ):
            trial = {**TRIAL, "proxy": "cifar100/background_6", "gan": {**TRIAL["gan"], "batch_of": "used"}}
            file = write(tmp_path, {"trial": trial, "parameters": {name: values}})
            refused("sweep", file, "--dry-run", says=["cell all", says])
            refused("sweep", file, says=["cell all", says])
            assert nothing_in(tmp_path / "runs")


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


class TestFrom:
    """`sweep --from`."""

    @pytest.fixture
    def old(self, tmp_path):
        sweep = Sweep(tmp_path / "runs" / "old")
        for weight in (0, 5, 20):
            sweep.add("digits", "degan", weight / 30, settings={**TRIAL, "gan.lambda_d": weight}, cell="all")
        return sweep.folder

    def test_says_where_it_begins_and_keeps_it_in_the_space(self, tmp_path, old):
        file = write(tmp_path, {"trial": TRIAL, "parameters": {"gan.lambda_d": {"range": [0, 10]}}})
        result = call("sweep", file, "--from", "runs/old", "--dry-run")
        assert result.exit_code == 0, result.output
        said, _, resolved = result.stdout.partition("\ndescription")
        assert "all: begins with search-0002 of old (alike 1.00), search-0001 of old (alike 1.00)" in said
        assert "search-0002 of old: gan.lambda_d = 20.0 becomes 10.0" in said
        space = yaml.safe_load("description" + resolved.partition("\n# every cell")[0])
        assert [one["point"] for one in space["earlier"]] == [{"gan.lambda_d": weight} for weight in (10, 5, 0)]

    def test_refuses_what_is_no_earlier_run(self, tmp_path, old):
        file = write(tmp_path, {"trial": TRIAL, "parameters": {"gan.lambda_d": {"range": [0, 10]}}})
        refused("sweep", file, "--from", "runs/older", says=["no run at", "did you mean old"])
        refused("sweep", file, "--from", old, "--name", "old", says=["the folder of the new run itself"])
        assert not (tmp_path / "runs" / "mine").exists()
