"""The commands `best` and `finals --compare-only`."""

import json

import pytest
from typer.testing import CliRunner

from degan_search.cli.main import app
from degan_search.settings import yaml_text
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig
from tests.search.finals.made_runs import searched


def call(*arguments):
    return CliRunner(env={"TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


class TestCommands:
    """`best`, and `finals --compare-only`."""

    @pytest.fixture
    def folder(self, tmp_path, tiny):
        return searched(tmp_path / "run", tiny)

    def test_best_prints_the_choice(self, folder):
        lines = call("best", folder, "--top", 2).stdout.splitlines()
        assert lines[0].split() == ["run", "trial", "cell", "proxy", "lambda_e", "lambda_d", "score"]
        assert [line.split()[1] for line in lines[2:]] == ["search-0001", "search-0000"]

    def test_best_as_json(self, folder, tiny):
        (found,) = json.loads(call("best", folder, "--json").stdout)
        assert (found["trial"], found["score"]) == ("search-0001", 0.7)
        assert TrialConfig.model_validate(found["config"]) == tiny({"gan.lambda_e": 1})

    def test_best_as_settings_files_that_run_takes(self, folder, tmp_path, tiny):
        assert call("best", folder, "--yaml", tmp_path / "out").exit_code == 0
        (file,) = (tmp_path / "out").iterdir()
        assert trial_config(yaml_text.read(file, "file")) == tiny({"gan.lambda_e": 1})
        again = call("best", folder, "--yaml", tmp_path / "out")
        assert (again.exit_code, "already there" in again.stderr) == (2, True)

    @pytest.mark.parametrize(
        ("option", "says"),
        [(("--by", "scor"), "did you mean score"), (("--per", "proxi"), "proxy"), (("--top", 0), "0")],
    )
    def test_best_refuses(self, folder, option, says):
        result = call("best", folder, *option)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert says in result.stderr

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (("--combine", 1), "members = 1"),
            (("--combine", 4, "--share", 1), "share = 1"),
            (("--combine", 4), "fewer than two have their generator"),
        ],
    )
    def test_combining_what_is_not_there_is_refused(self, folder, options, says):
        result = call("finals", folder, *options)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert says in result.stderr

    def test_compare_only_runs_nothing(self, folder):
        result = call("finals", folder, "--compare-only")
        assert result.exit_code == 0, result.output
        assert "degan (chosen)" in result.stdout
        assert "degan (chosen)" in (folder / "finals.md").read_text()
        assert not (folder / "finals.json").exists()
