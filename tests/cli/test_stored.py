"""Commands on a run in a store: what each fetches, and what it puts there."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.api import stored
from degan_search.api.options import stored_in
from degan_search.cli.main import app
from degan_search.cli.trial import read_trial
from degan_search.ledger.columns import trial_schema
from degan_search.storage import Mirror, filesystems, layout, place, working_copy


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Another machine: nothing is there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DATA_DIR", raising=False)


@pytest.fixture
def storage(s3, finished_run, tmp_path):
    """A storage in the store: a run `digits` and, beside it, its teacher."""
    shutil.copytree(finished_run.parent, tmp_path / "first")
    for name in ("digits", layout.CACHE):
        mirror = Mirror(tmp_path / "first" / name, place(s3.at(name)))
        mirror.push_all()
        assert mirror.flush()
    place(s3.at("digits")).write("trials/search-0000/checkpoint-000001", b"large")
    place(s3.at("digits")).write("trials/search-0002/samples.png", b"\x89PNG")
    return s3


def call(*arguments):
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


def here(storage):
    """The names of the files in the working copy."""
    folder = working_copy(storage.uri)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file()}


ROWS = {f"digits/ledger/search-000{number}-1.parquet" for number in range(3)} | {"digits/scores/search-0000.parquet"}


def test_a_table_needs_rows_alone_and_is_put_there(storage):
    result = call("table", storage.at("digits"))
    assert result.exit_code == 0, result.output
    assert "degan" in result.stdout
    assert here(storage) == ROWS | {f"digits/table.{kind}" for kind in ("csv", "md", "tex", "png")}
    there = place(storage.at("digits"))
    assert there.read("table.csv") == (working_copy(storage.uri) / "digits" / "table.csv").read_bytes()
    assert {name for name in there.names() if "/" not in name} == {"table.csv", "table.md", "table.tex", "table.png"}


def test_a_report_needs_the_samples_too(storage):
    result = call("report", storage.at("digits"))
    assert result.exit_code == 0, result.output
    samples = {"digits/trials/search-0000/samples.png", "digits/trials/search-0002/samples.png"}
    assert here(storage) == ROWS | samples | {"digits/report.html"}
    assert b"search-0000" in place(storage.at("digits")).read("report.html")


def test_images_need_generator_and_teacher_but_no_checkpoint(storage):
    result = call("generate", storage.at("digits"), "--count", 8, "--out", "images.npz", "--format", "npz")
    assert result.exit_code == 0, result.output
    assert Path("images.npz").is_file()
    assert "digits/trials/search-0000/generator.safetensors" in here(storage)
    assert any(name.startswith("cache/") for name in here(storage))
    assert not any("checkpoint-" in name for name in here(storage))
    assert "images.npz" not in place(storage.uri).names()


def test_what_is_measured_comes_back(storage, monkeypatch):
    place(storage.at("digits")).delete("scores/search-0000.parquet")
    result = call("evaluate", storage.at("digits"))
    assert result.exit_code == 0, result.output
    assert "trials scored" in result.stdout
    found = place(storage.at("digits"))
    assert {"scores/search-0000.parquet", "scores/search-0001.parquet"} <= set(found.names())
    assert ledger.load(working_copy(storage.uri) / "digits")["oracle_accuracy"].notna().sum() == 2


def test_a_new_row_is_fetched_with_the_next_command(storage, finished_run, tmp_path):
    def trials():
        return {row["trial"] for row in json.loads(call("best", storage.at("digits"), "--top", 9, "--json").stdout)}

    before = trials()
    row = ledger.load(finished_run).iloc[0].dropna().to_dict()
    row = {name: value for name, value in row.items() if name in trial_schema().names} | {"trial_id": "search-0009"}
    ledger.write_row(tmp_path / "first" / "digits", row)
    first = Mirror(tmp_path / "first" / "digits", place(storage.at("digits")))
    first.push_all()
    assert first.flush()
    assert trials() == before | {"search-0009"}


def test_several_runs_and_a_folder(storage, finished_run, tmp_path):
    other = tmp_path / "local"
    for path in finished_run.glob("*/*.parquet"):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        (other / path.parent.name / path.name).write_bytes(path.read_bytes())
    result = call("best", storage.at("digits"), other, "--json")
    assert result.exit_code == 0, result.output
    assert {row["run"] for row in json.loads(result.stdout)} <= {"digits", "local"}
    result = call("best", f"file://{other}", "--json")
    assert {row["run"] for row in json.loads(result.stdout)} == {"local"}


class TestRefused:
    """One line, exit code 2."""

    def refused(self, *arguments, says, code=2):
        result = call(*arguments)
        assert result.exit_code == code, (result.output, result.exception)
        assert result.stderr.count("\n") == 1, result.stderr
        for part in says:
            assert part in result.stderr, result.stderr

    def test_no_such_run(self, storage):
        self.refused("best", storage.at("digit"), says=[f"{storage.prefix}/digit is no run"])

    def test_no_name(self, storage):
        self.refused("best", "s3://bucket", says=["names no run, as s3://bucket/runs/x does"])

    def test_no_store(self):
        self.refused("best", "s4://bucket/x/y", says=["'s4' is no kind of store"])

    def test_wrong_credentials(self, storage):
        self.refused("best", storage.at("digits").replace("//", "//nobody:wrong@"), says=["set AWS_ACCESS_KEY_ID"])

    def test_closed_port(self, monkeypatch, storage):
        monkeypatch.setattr(stored, "PATIENCE", 0.2)
        address = "s3://bucket/x/y?endpoint_override=127.0.0.1:9&scheme=http"
        self.refused("best", address, says=["cannot list s3://bucket/x/y", "Could not connect"])

    def test_an_address_where_a_folder_is_needed(self, storage):
        arguments = ["generate", storage.at("digits"), "--out", "s3://bucket/images"]
        self.refused(*arguments, says=["s3:/bucket/images is in a store: a folder or file on this machine"])
        assert not Path("s3:").exists()

    def test_who_may_not_write_sees_the_table_and_is_told(self, storage, monkeypatch):
        for name, value in storage.reader_env.items():
            monkeypatch.setenv(name, value)
        filesystems.connection.cache_clear()
        result = call("table", storage.at("digits"))
        filesystems.connection.cache_clear()
        assert "degan" in result.stdout
        assert result.exit_code == 1
        assert "4 files, such as table.csv, are not in s3://bucket/" in result.stderr
        assert "access is denied" in result.stderr


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stored_in("~/runs") == {"storage": tmp_path / "runs"}
    assert stored_in("runs") == {"storage": Path("runs")}
    with stored.local({"storage": Path("~/runs"), "runs": [Path("~/a"), Path("b")], "out": None}) as given:
        assert given == {"storage": tmp_path / "runs", "runs": [tmp_path / "a", Path("b")], "out": None}
    said = call("resume", "~/runs/none")
    assert f"no run at {tmp_path}/runs/none" in " ".join(said.output.split())


def test_the_home_folder_is_meant_by_a_tilde_in_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "trial.yaml").write_text("{teacher: {path: ~/t.pt, dataset: digits, network: lenet}, proxy: digits}")
    config = read_trial(tmp_path / "trial.yaml", ["proxy=folder:~/photos"])
    assert config.teacher.path == f"{tmp_path}/me/t.pt"
    assert config.proxy == f"folder:{tmp_path}/me/photos"
