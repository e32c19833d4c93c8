"""A stored run, read from Python."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import degan_search as ds
from degan_search import ledger
from degan_search.storage import Mirror, place
from tests.cli.calls import call


@pytest.fixture
def run(finished_run, tmp_path, monkeypatch):
    """A copy of the finished run, from a folder in which nothing is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)
    shutil.copytree(finished_run.parent, tmp_path / "storage")
    return ds.open_run("storage/digits")


def test_it_reads_what_the_ledger_has(run):
    assert run.path == Path("storage/digits").absolute()
    pd.testing.assert_frame_equal(run.trials, ledger.load(run.path))
    pd.testing.assert_frame_equal(run.curves, ledger.curves(run.path))
    assert repr(run) == f"Run('{run.path}')"


def test_the_best_are_those_of_the_command(run):
    found = run.best()
    assert found[["trial", "score"]].to_dict("list") == {"trial": ["search-0001", "search-0000"], "score": [0.7, 0.5]}
    assert found["config"][1]["gan"]["width"] == 2
    printed = call("best", run.path).stdout
    assert [line.split()[1] for line in printed.splitlines()[2:4]] == list(found["trial"])
    assert list(run.best(per="proxy")["trial"]) == ["search-0001"]
    with pytest.raises(ds.UserError, match="'proxi' must be one of proxy"):
        run.best(per="proxi")


def test_networks_go_together(run):
    student, generator = run.student("search-0000"), run.generator()
    assert not student.training
    assert not generator.training
    with torch.no_grad():
        images = generator(torch.randn(3, 4))
        assert images.shape == (3, 1, 32, 32)
        assert images.abs().max() < 1
        assert student(images).shape == (3, 10)
        assert torch.equal(student(images), run.student()(images))  # both trials saved one student
    with pytest.raises(ds.UserError, match="distils from images"):
        run.generator("search-0001")
    with pytest.raises(ds.UserError, match="has no trial 'search-0009'"):
        run.student("search-0009")


def test_tables_and_report(run):
    assert set(run.table()["method"]) >= {"degan", "proxy"}
    shown = run._repr_html_()
    assert "<table>" in shown
    assert "digits" in shown
    assert run.report() == run.path / "report.html"
    assert run.report("mine.html").is_file()
    with pytest.raises(ds.UserError, match="there is no folder none"):
        run.report("none/mine.html")
    with pytest.raises(ds.UserError, match="table9"):
        run.table("table9")


def test_where_there_is_no_table_a_line_says_why(run):
    for file in (run.path / "ledger").iterdir():
        file.unlink()
    assert "No trials yet." in run._repr_html_()
    shutil.rmtree(run.path)
    assert "no run at" in run._repr_html_()


def test_no_run(run):
    with pytest.raises(ds.UserError, match=r"no run at .*digitz; did you mean digits"):
        ds.open_run("storage/digitz")
    with pytest.raises(ds.UserError, match="is no run: it has no folder 'ledger'"):
        ds.open_run("storage")
    with pytest.raises(ds.UserError, match="s3:/bucket/runs/x is in a store"):
        ds.open_run("s3:/bucket/runs/x")


def test_a_run_in_a_store_is_fetched(s3, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    shutil.copytree(finished_run, tmp_path / "first")
    mirror = Mirror(tmp_path / "first", place(s3.at("digits")))
    mirror.push_all()
    assert mirror.flush()
    run = ds.open_run(s3.at("digits"))
    assert tmp_path / "home" in run.path.parents
    assert len(run.trials) == 3
    assert not (run.path / "trials").exists()
    assert run.generator()(torch.randn(1, 4)).shape == (1, 1, 32, 32)
    assert run.report().is_file()
    assert "report.html" in place(s3.at("digits")).names()
    with pytest.raises(ds.UserError, match="is no run"):
        ds.open_run(s3.at("none"))
