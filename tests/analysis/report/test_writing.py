"""The report page as a file: where it goes, what it weighs, and what it refuses."""

import pytest
from typer.testing import CliRunner

from analysis import report
from analysis.report import content, page, samples
from degan_search import ledger
from degan_search.cli.main import app
from degan_search.system.errors import UserError


class TestWriting:
    """`write`, and what a page weighs."""

    def test_into_the_run_or_where_asked(self, made, written, tmp_path):
        assert written == made / "report.html"
        assert report.write(made, tmp_path / "page.html") == tmp_path / "page.html"
        assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]

    def test_nothing_comes_from_elsewhere(self, written):
        text = written.read_text().replace(page.get_plotlyjs(), "")
        assert not any(f"{name}={quote}http" in text for name in ("src", "href") for quote in ('"', "'", ""))
        assert 'content="default-src ' in text

    def test_faults_are_told(self, made, tmp_path):
        with pytest.raises(UserError, match="no run at"):
            report.write(tmp_path / "none")
        with pytest.raises(UserError, match="is no run"):
            report.write(tmp_path)
        with pytest.raises(UserError, match="no folder"):
            report.write(made, tmp_path / "none" / "page.html")

    def test_command(self, made, tmp_path):
        result = CliRunner().invoke(app, ["report", str(made), "--out", str(tmp_path / "page.html")])
        assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "page.html"))
        refused = CliRunner().invoke(app, ["report", str(tmp_path / "none")])
        assert refused.exit_code == 2
        assert refused.stderr.count("\n") == 1

    def test_commands_to_go_on_with_are_there(self):
        known = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
        assert {command.split()[0] for command in content.COMMANDS} <= known

    def test_the_best_grids_are_held_and_others_linked(self, made, tmp_path, monkeypatch):
        frame = ledger.load(made)
        everything = samples.find(made, frame, made / "report.html")
        assert everything
        assert all(grid.picture for grid in everything)
        monkeypatch.setattr(samples, "BYTES", len(everything[0].picture) + 200)
        some = samples.find(made, frame, tmp_path / "page.html")
        assert [bool(grid.picture) for grid in some] == [True] + [False] * (len(some) - 1)
        assert all((tmp_path / grid.link).is_file() for grid in some)
