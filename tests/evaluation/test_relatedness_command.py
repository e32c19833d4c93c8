"""The command `degan-search relatedness`."""

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli.main import app
from degan_search.evaluation.relatedness import MEASURES
from degan_search.ledger.columns import config_columns


def call(*arguments):
    return CliRunner(env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


class TestCommand:
    """`degan-search relatedness`."""

    @pytest.fixture
    def trial(self, tiny, tmp_path):
        file = tmp_path / "trial.yaml"
        file.write_text(yaml.safe_dump(tiny().model_dump(mode="json")))
        return file

    def test_ranks_with_a_trial_s_settings(self, trial, teacher, store, tmp_path):
        (tmp_path / "cache").symlink_to(store)
        out = tmp_path / "measures.csv"
        result = call(
            *("relatedness", "--teacher", trial, "--proxy", "noise/uniform", "--proxy", "digits", "--images", 100),
            *("--true", "--storage", tmp_path, "--out", out),
        )
        assert result.exit_code == 0, (result.output, result.exception)
        lines = [line.split() for line in result.stdout.splitlines()]
        ranked = [line[:2] for line in lines if line and line[0].isdigit()]
        assert ranked == [["1", "digits"], ["2", "noise/uniform"]] * 3
        assert all(
            title in result.stdout for title in ("Without true images", "teacher's features", "random network's")
        )
        frame = pd.read_csv(out)
        assert list(frame) == ["proxy", "count", "images", *MEASURES]
        assert frame["proxy"].tolist() == ["digits", "noise/uniform"]

    def test_correlates_with_a_run(self, tiny, teacher, store, tmp_path):
        (tmp_path / "cache").symlink_to(store)
        for number, (proxy, accuracy) in enumerate([("digits", 0.9), ("digits/[0-4]", 0.5), ("digits/[0]", 0.2)]):
            config = tiny({"proxy": proxy, "count": 40, "method": "dcgan", "gan.lambda_d": 0})
            row = {"trial_id": f"t{number}", "attempt": 1, "phase": "search", "state": "COMPLETE", "score": 0.5}
            ledger.write_row(tmp_path / "x", {**row, "teacher_hash": teacher.hash, **config_columns(config)})
            ledger.write_scores(tmp_path / "x", {"trial_id": row["trial_id"], "oracle_accuracy": accuracy})
        result = call("relatedness", "--teacher", tmp_path / "x", "--runs", tmp_path / "x")
        assert result.exit_code == 0, (result.output, result.exception)
        assert "**40 images of each proxy**" in result.stdout
        line = next(line for line in result.stdout.splitlines() if line.startswith("| effective_classes"))
        assert "1.00 [1.00, 1.00], p 0.333, n 3" in line

    def test_a_run_without_true_data_has_measures_and_no_correlations(self, tiny, teacher, store, tmp_path):
        (tmp_path / "cache").symlink_to(store)
        file = tmp_path / "teacher.pt"
        torch.save(teacher.model().state_dict(), file)
        own = {"teacher.dataset": None, "teacher.path": str(file), "teacher.input": {"size": 32, "channels": 1}}
        row = {"trial_id": "t0", "attempt": 1, "phase": "search", "state": "COMPLETE", "score": 0.5}
        config = tiny(own, {"teacher.classes": 10, "count": 40, "method": "proxy"})
        ledger.write_row(tmp_path / "x", {**row, "teacher_hash": "own", **config_columns(config)})
        result = call("relatedness", "--teacher", tmp_path / "x", "--runs", tmp_path / "x")
        assert result.exit_code == 0, (result.output, result.exception)
        assert "Without true images" in result.stdout and "No correlations: these trials have no true" in result.stdout

    def test_says_before_it_measures_that_no_trial_has_an_accuracy(self, tiny, tmp_path):
        row = {"trial_id": "t0", "attempt": 1, "phase": "search", "state": "COMPLETE", "score": 0.5}
        ledger.write_row(tmp_path / "x", {**row, **config_columns(tiny())})
        result = call("relatedness", "--teacher", tmp_path / "x", "--runs", tmp_path / "x")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "no finished search trial with oracle_accuracy" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--proxy", "digit"], "did you mean digits"),
            ([], "no proxy given"),
            (["--proxy", "digits", "--runs", "nowhere"], "no run at"),
        ],
    )
    def test_says_what_is_wrong(self, arguments, says, trial, tmp_path):
        result = call("relatedness", "--teacher", trial, "--storage", tmp_path, *arguments)
        assert result.exit_code == 2, (result.output, result.exception)
        assert says in result.stderr
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "cache").exists()
