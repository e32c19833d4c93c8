"""`degan-search figures`."""

import pandas as pd
from typer.testing import CliRunner

from analysis import figures
from degan_search.cli.main import app


class TestCommand:
    """`degan-search figures`."""

    def call(self, *arguments):
        return CliRunner().invoke(app, ["figures", *map(str, arguments)])

    def test_writes_each_figure_or_says_why_not(self, run, tmp_path, trials):
        measures = pd.DataFrame({"proxy": trials["config_proxy"].unique(), "near": range(4)})
        measures.to_csv(tmp_path / "measures.csv")
        result = self.call(run, "--out", tmp_path / "out", "--relatedness", tmp_path / "measures.csv")
        assert result.exit_code == 0, (result.output, result.exception)
        drawn = {file.stem for file in (tmp_path / "out").glob("*.png")}
        assert drawn == set(figures.FIGURES) - {"samples", "goals"}  # a made run has no networks, and one goal
        lines = " ".join(result.stdout.split())
        assert "samples is not drawn: no trial of" in lines

    def test_samples_of_the_best_trial_on_each_proxy(self, finished_run, tmp_path):
        result = self.call(finished_run, "--only", "samples", "--out", tmp_path)
        assert result.exit_code == 0, (result.output, result.exception)
        assert [file.name for file in tmp_path.iterdir()] == ["samples_digits.png"]

    def test_what_it_refuses(self, run, tmp_path):
        for arguments, says in (
            ([run, "--only", "weight"], "did you mean weights"),
            ([run, "--only", "relatedness", "--out", tmp_path], "no figure could be drawn"),
            ([tmp_path / "none"], "none"),
        ):
            result = self.call(*arguments)
            assert result.exit_code == 2
            assert says in " ".join(result.output.split())
        (tmp_path / "empty.csv").write_text("")
        result = self.call(run, "--only", "relatedness", "--relatedness", tmp_path / "empty.csv", "--out", tmp_path)
        assert "is no table" in " ".join(result.output.split())
