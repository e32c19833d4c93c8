"""SQL over ledgers: what can be read, in which styles, and that nothing else can be reached."""

import json
import shutil
import sys

import pandas as pd
import pytest

import degan_search as ds
from degan_search import ledger
from tests.cli.calls import call, refused

duckdb = pytest.importorskip("duckdb", reason="degan-search[sql] is not installed")
FORBIDDEN = [
    "copy trials to 'out.csv'",
    "copy (select 1) to 'out.parquet'",
    "attach 'other.db'",
    "install httpfs",
    "load httpfs",
    "export database 'out'",
    "import database 'out'",
    "create table mine as select 1",
    "insert into trials values (1)",
    "drop view trials",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "update extensions",
    "select 1; select 2",
    "select 1; copy trials to 'out.csv'",
    "",
    "select * from read_csv('secret.csv')",
    "select * from 'secret.csv'",
    "select * from read_text('secret.csv')",
    "select * from glob('*')",
    "select * from sniff_csv('secret.csv')",
    "select * from query('copy trials to ''out.csv''')",
    "select * from variable_of_python",
]


@pytest.fixture
def runs(finished_run, tmp_path, monkeypatch):
    """Two runs, and a file beside them that no query may read."""
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        shutil.copytree(finished_run, tmp_path / name)
    (tmp_path / "secret.csv").write_text("word\nhidden\n")
    return ["first", "second"]


def test_the_tables_are_those_of_pandas(runs):
    run = ds.open_run("first")
    trials = run.sql("select * from trials")
    assert list(trials) == list(run.trials)
    assert trials["trial_id"].tolist() == run.trials["trial_id"].tolist()
    assert trials["score"].tolist() == run.trials["score"].tolist()
    measured = run.trials["oracle_accuracy"].notna()
    scores = run.sql("select * from scores")
    assert set(run.trials.loc[measured, "trial_id"]) <= set(scores["trial_id"])
    (points,) = run.sql("select count(*) from curves").iloc[0]
    assert points == len(run.curves)


def test_columns_without_a_value_keep_their_type(runs):
    assert ds.open_run("first").sql("select * from trials where cause = 'disk' or n_check > 3").empty


@pytest.mark.parametrize("style", ["text", "markdown", "csv", "json"])
def test_styles(runs, style):
    wanted = "select run, trial_id, score from trials where score is not null order by run, score desc"
    result = call("sql", *runs, wanted, "--style", style)
    assert result.exit_code == 0, result.output
    expected = ledger.load(runs).dropna(subset="score").sort_values(["run", "score"], ascending=[True, False])
    for line in expected[["run", "trial_id"]].agg(lambda row: tuple(row), axis=1):
        assert all(part in result.stdout for part in line)
    if style == "json":
        assert pd.DataFrame(json.loads(result.stdout))["score"].tolist() == expected["score"].tolist()
    refused("sql", "first", "select 1", "--style", "xml", says=["'xml' must be one of text, markdown, csv, json"])


def test_nothing_is_written_and_no_other_file_read(runs, tmp_path):
    variable_of_python = pd.DataFrame({"word": ["hidden"]})
    before = sorted(tmp_path.rglob("*"))
    for select in FORBIDDEN:
        refused("sql", "first", select, says=[f"sql {select!r}: "])
    assert sorted(tmp_path.rglob("*")) == before
    assert len(variable_of_python)


def test_a_fault_is_one_line(runs):
    refused("sql", "first", "select scoer from trials", says=["scoer"])
    refused("sql", "first", "selec 1", says=["syntax error"])
    refused("sql", "frist", "select 1", says=["no run at", "did you mean first"])


def test_without_duckdb_the_line_says_what_to_install(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    refused("sql", "first", "select 1", says=["sql needs duckdb: pip install 'degan-search[sql]'"])
