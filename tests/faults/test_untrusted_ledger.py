"""Rows from somebody else that are made to harm: each is refused, or named and left out."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from degan_search import ledger
from degan_search.evaluation import networks
from degan_search.ledger import pack as packs
from degan_search.ledger import row_file
from degan_search.ledger.columns import config_columns, config_of
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import LONGEST, BrokenFileWarning, UserError, visible
from tests.faults.hostile import ESCAPES, refused


def left_out(run, *says):
    """A file of one row is broken: it is named, and the other rows are there."""
    with pytest.warns(BrokenFileWarning) as told:
        frame = ledger.load(run)
    for part in ("cannot be read and is left out", *says):
        assert part in str(told[0].message)
    assert len(frame) == len(list((run / "ledger").iterdir())) - 1 > 0


def change(run, **columns):
    """Write other values into the first row's file; return it."""
    file = sorted((run / "ledger").glob("search-*"))[0]
    table = pq.read_table(file)
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        array = value if isinstance(value, pa.Array) else pa.array([value], table.schema.field(name).type)
        table = table.set_column(place, pa.field(name, array.type), array)
    pq.write_table(table, file)
    return file


def first(run):
    """The row that `change` changes."""
    return ledger.load(run).set_index("trial_id", drop=False).loc["search-0000"]


class TestLedger:
    """Rows of somebody else's."""

    @pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", ".hidden", "a/b", "a\0b", "x" * 200, "", None])
    def test_a_trial_cannot_name_another_place(self, run, name):
        file = change(run, trial_id=name)
        refused(lambda: ledger.load(run), str(file), "move it away")
        refused(lambda: networks.find(run, "best", "student"), str(file))

    def test_a_row_is_its_files(self, run):
        file = change(run, trial_id="search-9999")
        refused(lambda: ledger.curves(run), str(file), "'search-9999'")

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"attempt": None}, "attempt None"),
            ({"state": "DONE"}, "state 'DONE'; known: COMPLETE, PRUNED, FAIL"),
            ({"phase": None}, "phase None; known: search, repeat, final"),
            ({"schema_version": 99}, "rows of schema 99"),
            ({"started": pa.array([2**62], pa.timestamp("us", "UTC"))}, "before 1970 or after 2199"),
        ],
    )
    def test_odd_rows(self, run, columns, said):
        change(run, **columns)
        refused(lambda: ledger.load(run), str(run), said)

    @pytest.mark.parametrize(
        "columns",
        [
            {"score": pa.array(["high"])},
            {"score": pa.array([[0.5]])},
            {"reason": pa.array([b"\xff"]).view(pa.string())},
        ],
    )
    def test_values_of_another_kind(self, run, columns):
        left_out(run, change(run, **columns).name)

    def test_reports_without_budget(self, run):
        change(run, reports=[{"score": 0.5, "seconds": 1.0}])
        refused(lambda: ledger.curves(run), "report without budget")

    @pytest.mark.parametrize("times", [0, 2, 1_000_000])
    def test_a_file_is_one_row(self, run, times):
        file = sorted((run / "ledger").glob("*"))[0]
        table = pq.read_table(file, columns=["trial_id", "attempt", "phase", "state"])
        pq.write_table(table.take(pa.array(np.zeros(times, np.int64))), file)
        left_out(run, f"it has {times:,} rows; one is expected")

    def test_a_million_reports_in_few_bytes(self, run):
        reports = [{"budget": 1, "score": 0.5, "seconds": 1.0}] * 1_000_000
        file = change(run, reports=reports)
        assert file.stat().st_size < 1_000_000
        left_out(run, "1,000,000 of one column; that is no trial")

    def test_a_column_that_is_there_twice(self, run):
        file = sorted((run / "ledger").glob("*"))[0]
        pq.write_table(pq.read_table(file).append_column("score", pa.array([1.0])), file)
        left_out(run, "two columns of one name")

    @pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
    def test_what_is_no_file(self, run, make):
        make(run / "ledger" / "search-7777-1.parquet")
        left_out(run, "search-7777-1.parquet", "plain file is needed")

    def test_folders_that_lead_elsewhere(self, run, tmp_path):
        (run / "scores").rename(tmp_path / "other")
        (run / "scores").symlink_to(tmp_path / "other")
        refused(lambda: ledger.load(run), "scores is a link")

    def test_a_pack_is_looked_at_like_its_rows(self, run, monkeypatch):
        monkeypatch.setattr(packs, "PACK_FROM", 1)
        expected = ledger.load(run)
        pack = run / "packed" / "ledger.parquet"
        table = pq.read_table(pack)
        names = table["trial_id"].to_pylist()
        pq.write_table(table.set_column(0, "trial_id", pa.array(["../x", *names[1:]])), pack)
        refused(lambda: ledger.load(run), "../x")
        pq.write_table(pa.concat_tables([table] * 3), pack)
        assert ledger.load(run).equals(expected)

    def test_text_cannot_style_a_terminal(self, run):
        change(run, reason=ESCAPES, cell=f"{ESCAPES}\nx", host=ESCAPES)
        row = first(run)
        assert row["reason"] == row["host"] == visible(ESCAPES)
        assert row["cell"] == f"{visible(ESCAPES)}\nx"

    DEEP = '{"a":' * 900 + "1" + "}" * 900

    @pytest.mark.parametrize("text", [None, "", '{"a"', "[1]", "3", "[" * 10**5, DEEP, "NaN"])
    def test_configurations_that_are_none(self, run, text):
        change(run, config_json=text)
        refused(lambda: config_of(first(run)), "configuration of search-0000")

    @pytest.mark.parametrize(
        "values",
        [{"proxy": ESCAPES}, {"student": {"width": 10**9}}, {"gan": {"latent": 10**6}}, {"proxy": "x" * 10**6}],
    )
    def test_configurations_that_ask_too_much(self, run, values):
        change(run, config_json=json.dumps(values))
        with pytest.raises(UserError) as error:
            config_of(first(run))
        assert "\x1b" not in str(error.value) and len(str(error.value)) < 2 * LONGEST


def test_arrows_pattern_is_that_of_messages():
    for number in (*range(0x2100), *range(0x2000, 0x2070)):
        character = chr(number)
        found = pa.compute.match_substring_regex(pa.array([character]), row_file.UNSEEN)[0].as_py()
        assert found == (visible(character) != character), hex(number)


def test_config_columns_of_settings_with_brackets_are_kept():
    config = trial_config({"proxy": "cifar100/[flowers,trees]"})
    assert config_of({"trial_id": "x", **config_columns(config)}) == config
