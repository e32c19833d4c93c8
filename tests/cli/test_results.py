"""`table`, and a student that is not there."""

import pytest
from PIL import Image

from degan_search import ledger
from degan_search.evaluation import networks
from degan_search.settings.resolve import trial_config
from tests.cli.calls import TRIAL, call, refused

pytestmark = pytest.mark.usefixtures("elsewhere")


class TestTable:
    """`table`."""

    @pytest.fixture
    def measured(self, tmp_path):
        from degan_search.ledger.columns import config_columns

        row = {"trial_id": "search-0000", "attempt": 1, "phase": "search", "state": "COMPLETE", "score": 0.5}
        ledger.write_row(tmp_path, row | config_columns(trial_config(TRIAL)))
        ledger.write_scores(tmp_path, {"trial_id": "search-0000", "oracle_accuracy": 0.625, "n_oracle": 40})
        return tmp_path

    def test_folders_without_results(self, tmp_path):
        refused("table", tmp_path, says=["ledger"])
        refused("table", tmp_path / "none", says=["none"])

    def test_unknown_options(self, measured):
        refused("table", measured, "--paper", "table3", says=["table3", "table1"])
        refused("table", measured, "--style", "rtf", says=["rtf", "latex"])
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
