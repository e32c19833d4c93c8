"""The commands of exported students and generated images: which trial they take, and what they refuse."""

import pytest
from typer.testing import CliRunner

from degan_search.cli.main import app
from degan_search.products.student_file import export_student
from degan_search.system.errors import UserError
from tests.products.test_student_file import CHANGES


@pytest.mark.parametrize(
    ("trial", "name", "says"),
    [
        ("best", "s.pt", r"must end in one of \.pt2, \.onnx, or for a folder in none"),
        ("best", "old.pt2", "already there"),
        ("search-0002", "s.pt2", r"search-0002 has no student, as it did not finish \(PRUNED\)"),
        ("search-3", "s.pt2", "no trial 'search-3'; did you mean search-000"),
        (None, "s.pt2", "--trial is needed"),
    ],
)
def test_refuses(trial, name, says, finished_run, tmp_path):
    (tmp_path / "old.pt2").write_text("mine")
    with pytest.raises(UserError, match=says):
        export_student(finished_run, trial, tmp_path / name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_commands_say_which_trial_was_taken(finished_run, tmp_path):
    def call(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments)])
        return result.exit_code, " ".join((result.stdout + result.stderr).split())

    code, text = call("export-student", finished_run, "--trial", "best", "--out", tmp_path / "s.pt2")
    assert (code, "search-0001 (proxy on digits, score 0.700)" in text) == (0, True), text
    code, text = call("check-student", tmp_path / "s.pt2")
    assert (code, "as exported: 8 check images" in text) == (0, True), text
    CHANGES["pt2"](tmp_path / "s.pt2")
    code, text = call("check-student", tmp_path / "s.pt2")
    assert (code, "no longer gives the outputs" in text) == (2, True), text
    code, text = call("check-student", tmp_path / "none.pt2")
    assert (code, text.startswith("error: ") and "cannot be opened" in text) == (2, True), text
    code, text = call("generate", finished_run, "--trial", "best", "--out", tmp_path / "a", "--count", 3)
    assert (code, "search-0000 (degan on digits, score 0.500): 3 images" in text) == (0, True), text
    short = ("--count", 1000, "--balance", "--draws", 1, "--format", "npz")
    code, text = call("generate", finished_run, "--out", tmp_path / "b.npz", *short)
    assert (code, "Short of images" in text) == (0, True), text
    code, text = call("generate", finished_run, "--trial", "search-0001", "--out", tmp_path / "c")
    assert (code, text.startswith("error: trial search-0001 has no generator")) == (2, True), text
