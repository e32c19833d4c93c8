"""Broken files are named and left out, and whatever a text holds reads back."""

import tempfile
import warnings
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_ledger import made_ledger
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli import main  # noqa: F401  (adds the commands)
from degan_search.cli.app import app
from degan_search.ledger import row_file
from degan_search.ledger.columns import (
    score_schema,
    trial_schema,
)
from degan_search.system.errors import BrokenFileWarning, visible
from tests.ledger.rows import synthetic


@pytest.mark.parametrize("kept", [0, 2, 0.5, -1])
def test_a_broken_file_is_named_and_the_others_load(tmp_path, kept):
    report = {"budget": 1, "score": 0.5, "seconds": 1.0}
    ledger.write_row(tmp_path, synthetic("search-0000", reports=[report]))
    file = ledger.write_row(tmp_path, synthetic("search-0001"))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    for read in (ledger.load, ledger.curves):
        with pytest.warns(BrokenFileWarning, match=r"search-0001-1\.parquet cannot be read"):
            frame = read(tmp_path)
        assert list(frame.trial_id) == ["search-0000"]
    assert ledger.broken(tmp_path) == [file]


def test_broken_scores_are_named_and_their_trial_has_none(tmp_path):
    ledger.write_row(tmp_path, synthetic())
    file = ledger.write_scores(tmp_path, {"trial_id": "search-0000", "oracle_accuracy": 0.5})
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.warns(BrokenFileWarning, match=r"scores.search-0000\.parquet cannot be read"):
        assert ledger.load(tmp_path).oracle_accuracy.isna().tolist() == [True]


def test_a_command_tells_a_broken_file_once_and_goes_on(tmp_path):
    run = made_ledger(tmp_path / "made", 12)
    file = sorted((run / "ledger").glob("search-*"))[0]
    file.write_bytes(file.read_bytes()[:-9])
    answer = CliRunner().invoke(app, ["table", str(run)])
    assert answer.exit_code == 0, answer.output
    assert answer.stderr.count(f"warning: {file} cannot be read and is left out") == 1
    assert "lambda_e" in answer.stdout


@pytest.mark.parametrize("text", ["degan_search.sha256 @" + "a" * 64, "no \udcff such file"])
def test_a_reason_with_odd_text_blocks_nothing(tmp_path, text):
    ledger.write_row(tmp_path, synthetic(reason=text))
    assert list(ledger.load(tmp_path).reason) == [visible(text)]
    assert not ledger.broken(tmp_path)


SEALED_TEXT = "degan_search.sha256 @" + "a" * 64

TEXTS = st.text(max_size=20) | st.just(SEALED_TEXT) | st.just(f"{row_file.SEAL.decode('latin-1')}{'a' * 64}")


def text_columns(schema, *others):
    names = [field.name for field in schema if field.type == pa.string() and field.name not in others]
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, TEXTS))


@given(text_columns(trial_schema(), "trial_id", "phase", "state"), text_columns(score_schema(), "trial_id"))
@settings(max_examples=30, deadline=None)
def test_whatever_a_text_holds_reads_back_and_blocks_nothing(texts, scores):
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        ledger.write_row(run, synthetic(**texts))
        ledger.write_scores(run, {"trial_id": "search-0000", **scores})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            row = ledger.load(run).iloc[0]
        for column, text in (texts | scores).items():
            written = text.encode("utf-8", "backslashreplace").decode()
            assert row[column] == (written if column == "config_json" else visible(text))


def test_flipped_bits_are_noticed_before_the_file_is_read(tmp_path, monkeypatch):
    """Pyarrow would crash on some of them."""
    file = ledger.write_row(tmp_path, synthetic())
    data = file.read_bytes()
    monkeypatch.setattr(row_file.pq, "ParquetFile", lambda *_, **__: pytest.fail("a broken file is read"))
    seal, end = data.index(row_file.SEAL), len(data)
    places = [*range(0, seal, 199), *range(seal + len(row_file.SEAL), end, 99), *range(end - 8, end)]
    for place, bit in [(place, place % 8) for place in places] + [(end - 8, bit) for bit in range(8)]:
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        assert ledger.broken(tmp_path) == [file]


def test_unfinished_files_are_passed_over(tmp_path):
    ledger.write_row(tmp_path, synthetic())
    (tmp_path / "ledger" / ".tmp-1-search-0001-1.parquet").write_bytes(b"PAR1")
    assert len(ledger.load(tmp_path)) == 1
