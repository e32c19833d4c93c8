"""The one entry point of the tables: what it writes, and what it refuses."""

import pytest
from PIL import Image

from analysis.tables.distillation import COLUMNS
from analysis.tables.table import render, save
from degan_search.system.errors import UserError
from tests.analysis.tables.made_rows import RELATED, mixed


def test_saved_files_hold_what_is_rendered(sweep, tmp_path):
    tidy = mixed(sweep)
    save(tidy, tmp_path)
    for ending, style in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
        assert (tmp_path / f"table.{ending}").read_text() == render(tidy, style)
    with Image.open(tmp_path / "table.png") as picture:
        assert picture.width > 400


def test_a_folder_that_cannot_be_written_is_told(sweep, tmp_path):
    (tmp_path / "none").touch()
    with pytest.raises(UserError, match="none cannot be written"):
        save(mixed(sweep), tmp_path / "none")


def test_nothing_to_show(sweep, tmp_path):
    tidy = sweep.tidy()
    assert list(tidy.columns) == COLUMNS
    assert render(tidy) == "No trials yet.\n"
    assert render(tidy, "csv") == ",".join(COLUMNS) + "\n"
    save(tidy, tmp_path)
    assert {file.name for file in tmp_path.glob("table.*")} == {"table.csv", "table.md", "table.tex"}


def test_an_unknown_style_or_table_is_refused(sweep):
    with pytest.raises(UserError, match="style 'rtf' is unknown; known: text, markdown, csv, latex, html"):
        render(sweep.tidy(), "rtf")
    with pytest.raises(UserError, match="table 'table4' is unknown; did you mean"):
        sweep.tidy(paper="table4")
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5)
    with pytest.raises(
        UserError, match=r"table3 is of the task 'incremental', but .* 'distillation': table1 or table2"
    ):
        sweep.tidy(paper="table3")
