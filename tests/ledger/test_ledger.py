"""The ledger: what is written comes back, whole or not at all, and the columns are versioned."""

import datetime as dt
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_ledger import made_ledger
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli import main  # noqa: F401  (adds the commands)
from degan_search.cli.app import app
from degan_search.ledger import pack as packs
from degan_search.ledger import read as reads
from degan_search.ledger import row_file
from degan_search.ledger.columns import (
    METRICS,
    SCHEMA_VERSION,
    Phase,
    Report,
    State,
    config_columns,
    config_of,
    score_schema,
    trial_schema,
)
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import BrokenFileWarning, UserError, visible


def synthetic(trial_id="search-0000", attempt=1, **changes):
    """A row that no trial measured."""
    return {
        "trial_id": trial_id,
        "attempt": attempt,
        "phase": Phase.SEARCH,
        "state": State.COMPLETE,
        "host": "synthetic",
        **changes,
    }


def example(kind, number):
    """A value of an Arrow type, another one for each number."""
    if pa.types.is_list(kind):
        return [example(kind.value_type, number), example(kind.value_type, number + 1)]
    if pa.types.is_struct(kind):
        return {field.name: example(field.type, number + place) for place, field in enumerate(kind)}
    if pa.types.is_timestamp(kind):
        return dt.datetime(2026, 1, 2, 3, 4, 5, number, tzinfo=dt.UTC)
    if pa.types.is_boolean(kind):
        return bool(number % 2)
    if pa.types.is_string(kind):
        return f"text {number}"
    return number + (0.1 if pa.types.is_floating(kind) else 0)


def full(schema, **changes):
    return {field.name: example(field.type, number) for number, field in enumerate(schema)} | changes


def plain(value):
    """A read value as it was written: arrays as lists, moments as datetimes."""
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value]
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def test_every_column_comes_back(tmp_path):
    row = full(trial_schema(), **synthetic(), schema_version=SCHEMA_VERSION)
    scores = full(score_schema(), trial_id="search-0000")
    file = ledger.write(tmp_path / "x", row)
    ledger.write_scores(tmp_path / "x", scores)
    assert file == tmp_path / "x" / "ledger" / "search-0000-1.parquet"
    expected = {"run": "x"} | {k: v for k, v in row.items() if k != "reports"}
    expected |= {k: v for k, v in scores.items() if k != "schema_version"}
    frame = ledger.load(tmp_path / "x")
    assert list(frame.columns) == list(expected)
    assert {k: plain(v) for k, v in frame.iloc[0].items()} == expected
    points = ledger.curves(str(tmp_path / "x"))
    about = {"run": "x"} | {k: row[k] for k in ("trial_id", "cell", "phase", "state")}
    assert points.to_dict("records") == [about | report for report in row["reports"]]


def test_a_configuration_comes_back(tmp_path):
    config = trial_config({"gan.lambda_e": 0.5, "probe.at": [10, 20], "count": 7})
    assert set(config_columns(config)) == {n for n in trial_schema().names if n.startswith("config_")}
    ledger.write(tmp_path, synthetic(**config_columns(config)))
    row = ledger.load(tmp_path).iloc[0]
    assert (row.config_gan_lambda_e, row.config_count, row.config_method) == (0.5, 7, "degan")
    assert plain(row.config_probe_at) == [10, 20]
    assert plain(row.config_bank_generators) == [list(pair) for pair in TrialConfig().bank.generators]
    assert pd.isna(row.config_teacher_path)
    assert config_of(row) == config


def test_columns_of_each_type_are_derived_from_the_configuration():
    schema = trial_schema()
    assert schema.field("config_seed").type == pa.int64()
    assert schema.field("config_gan_lambda_e").type == pa.float64()
    assert schema.field("config_gan_batch_of").type == pa.string()
    assert schema.field("config_teacher_count").type == pa.int64()
    assert schema.field("config_probe_at").type == pa.list_(pa.int64())
    assert schema.field("config_bank_generators").type == pa.list_(pa.list_(pa.float64()))
    assert len(set(schema.names)) == len(schema.names)


def test_every_metric_is_a_column_with_a_direction():
    measured = {f.name for schema in (trial_schema(), score_schema()) for f in schema if f.type == pa.float64()}
    assert set(METRICS) == {name for name in measured if not name.startswith("config_")}
    assert set(METRICS.values()) == {"max", "min"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": 1.0}, "unknown column 'scores'; did you mean score"),
        ({"reports": [{"budjet": 1}]}, "unknown report 'budjet'; did you mean budget"),
        ({"state": "PRUNE"}, "COMPLETE, PRUNED, FAIL"),
        ({"phase": None}, "search, final"),
        ({"attempt": None}, "attempt = None"),
        ({"trial_id": None}, "trial_id = None"),
        ({"trial_id": "../x"}, "trial_id = '../x'"),
        ({"trial_id": ".x"}, "trial_id = '.x'"),
        ({"gan_steps": "many"}, "gan_steps = 'many': int64 is needed"),
        ({"gan_steps": 1.5}, "gan_steps = 1.5: int64 is needed"),
        ({"number": 2**40}, "number = .* int32 is needed"),
        ({"score": "good"}, "score = 'good': double is needed"),
        ({"reports": [{"score": 0.5}]}, "a report without budget"),
        ({"started": dt.datetime(1969, 12, 31, tzinfo=dt.UTC)}, "before 1970"),
    ],
)
def test_a_bad_row_is_refused_and_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        ledger.write(tmp_path, synthetic(**changes))
    assert list(tmp_path.rglob("*.parquet")) == []


def test_an_attempt_is_written_once_and_the_last_counts(tmp_path):
    for attempt in (9, 10):
        ledger.write(tmp_path, synthetic(attempt=attempt, reason=f"attempt {attempt}", reports=[]))
    with pytest.raises(UserError, match="already written"):
        ledger.write(tmp_path, synthetic(attempt=10, reason="again"))
    assert list(ledger.load(tmp_path).reason) == ["attempt 10"]


def test_curves_are_those_of_the_last_attempt(tmp_path):
    early: Report = {"budget": 1, "score": 0.1, "seconds": 1.0}
    ledger.write(tmp_path, synthetic(attempt=1, reports=[early, early]))
    ledger.write(tmp_path, synthetic(attempt=2, reports=[early | {"budget": 2, "stage": "gan"}]))
    ledger.write(tmp_path, synthetic("search-0001"))
    points = ledger.curves(tmp_path)
    assert points[["trial_id", "budget", "stage"]].values.tolist() == [["search-0000", 2, "gan"]]
    assert points.d_loss.isna().all()


def test_accuracies_may_be_replaced_and_are_null_where_absent(tmp_path):
    for trial_id in ("search-0000", "search-0001"):
        ledger.write(tmp_path, synthetic(trial_id))
    for accuracy in (0.5, 0.6):
        ledger.write_scores(tmp_path, {"trial_id": "search-0001", "oracle_accuracy": accuracy})
    frame = ledger.load(tmp_path)
    assert frame.oracle_accuracy.isna().tolist() == [True, False]
    assert frame.oracle_accuracy[1] == 0.6
    with pytest.raises(UserError, match="unknown column 'accuracy'"):
        ledger.write_scores(tmp_path, {"trial_id": "search-0001", "accuracy": 0.5})


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_becomes_null(tmp_path, score):
    file = ledger.write(tmp_path, synthetic(score=score))
    assert pq.read_table(file)["score"].null_count == 1


def test_several_runs_together(tmp_path):
    for name, accuracy in (("b", 0.5), ("a", 0.25)):
        ledger.write(tmp_path / name, synthetic(number=None if name == "b" else 3))
        ledger.write_scores(tmp_path / name, {"trial_id": "search-0000", "oracle_accuracy": accuracy})
    frame = ledger.load([tmp_path / "b", str(tmp_path / "a")])
    assert frame[["run", "oracle_accuracy"]].values.tolist() == [["b", 0.5], ["a", 0.25]]
    ledger.write(tmp_path / "other" / "a", synthetic())
    with pytest.raises(UserError, match="two runs are called 'a'"):
        ledger.load([tmp_path / "a", tmp_path / "other" / "a"])


def test_an_empty_ledger_has_every_column(tmp_path):
    (tmp_path / "x" / "ledger").mkdir(parents=True)
    empty = ledger.load(tmp_path / "x")
    assert len(empty) == len(ledger.curves(tmp_path / "x")) == 0
    ledger.write(tmp_path / "x", synthetic())
    assert list(empty.columns) == list(ledger.load(tmp_path / "x").columns)


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "sweep").mkdir()
    with pytest.raises(UserError, match=r"no run at .*swep; did you mean sweep\?"):
        ledger.load(tmp_path / "swep")
    with pytest.raises(UserError, match="no folder 'ledger'"):
        ledger.load(tmp_path / "sweep")
    with pytest.raises(UserError, match="no run given"):
        ledger.load([])


@pytest.mark.parametrize("kept", [0, 2, 0.5, -1])
def test_a_broken_file_is_named_and_the_others_load(tmp_path, kept):
    report = {"budget": 1, "score": 0.5, "seconds": 1.0}
    ledger.write(tmp_path, synthetic("search-0000", reports=[report]))
    file = ledger.write(tmp_path, synthetic("search-0001"))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    for read in (ledger.load, ledger.curves):
        with pytest.warns(BrokenFileWarning, match=r"search-0001-1\.parquet cannot be read"):
            frame = read(tmp_path)
        assert list(frame.trial_id) == ["search-0000"]
    assert ledger.broken(tmp_path) == [file]


def test_broken_scores_are_named_and_their_trial_has_none(tmp_path):
    ledger.write(tmp_path, synthetic())
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
    ledger.write(tmp_path, synthetic(reason=text))
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
        ledger.write(run, synthetic(**texts))
        ledger.write_scores(run, {"trial_id": "search-0000", **scores})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            row = ledger.load(run).iloc[0]
        for column, text in (texts | scores).items():
            written = text.encode("utf-8", "backslashreplace").decode()
            assert row[column] == (written if column == "config_json" else visible(text))


def test_flipped_bits_are_noticed_before_the_file_is_read(tmp_path, monkeypatch):
    """One in the wrong place would end the process in pyarrow."""
    file = ledger.write(tmp_path, synthetic())
    data = file.read_bytes()
    monkeypatch.setattr(reads.pq, "ParquetFile", lambda *_, **__: pytest.fail("a broken file is read"))
    seal, end = data.index(row_file.SEAL), len(data)
    places = [*range(0, seal, 199), *range(seal + len(row_file.SEAL), end, 99), *range(end - 8, end)]
    for place, bit in [(place, place % 8) for place in places] + [(end - 8, bit) for bit in range(8)]:
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        assert ledger.broken(tmp_path) == [file]


def test_unfinished_files_are_passed_over(tmp_path):
    ledger.write(tmp_path, synthetic())
    (tmp_path / "ledger" / ".tmp-1-search-0001-1.parquet").write_bytes(b"PAR1")
    assert len(ledger.load(tmp_path)) == 1


def test_older_columns_come_as_null_and_newer_schemas_are_refused(tmp_path):
    file = ledger.write(tmp_path, synthetic(agreement=0.5, score=0.5))
    table = pq.read_table(file).drop_columns(["agreement"])
    version = table.schema.get_field_index("schema_version")
    pq.write_table(table.set_column(version, "schema_version", pa.array([0], pa.int32())), file)
    ledger.write(tmp_path, synthetic("search-0001", agreement=0.75))
    frame = ledger.load(tmp_path)
    assert pd.isna(frame.agreement[0])
    assert (frame.score[0], frame.agreement[1]) == (0.5, 0.75)
    newer = pa.array([SCHEMA_VERSION + 1], pa.int32())
    pq.write_table(table.set_column(version, "schema_version", newer), file)
    with pytest.raises(UserError, match=f"rows of schema {SCHEMA_VERSION + 1}"):
        ledger.load(tmp_path)


# A writer that a parent kills at random moments, many times; forked, so that imports are paid once.
KILLED = """
import os, random, sys, time
from pathlib import Path
from degan_search import ledger

folder, moments = Path(sys.argv[1]), random.Random(0)
ledger.write(folder, {"trial_id": "search-99-0", "attempt": 1, "phase": "search", "state": "COMPLETE"})
for life in range(40):
    child = os.fork()
    if not child:
        for number in range(10_000):
            row = {"trial_id": f"search-{life:02}-{number}", "attempt": 1, "phase": "search", "state": "COMPLETE"}
            ledger.write(folder, row)
    time.sleep(moments.uniform(0.001, 0.15))
    os.kill(child, 9)
    os.waitpid(child, 0)
"""


def test_a_killed_writer_leaves_only_whole_files(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=True, timeout=60)
    frame = ledger.load(tmp_path)
    assert len(frame) == len([f for f in (tmp_path / "ledger").iterdir() if f.name[0] != "."])
    assert frame.trial_id.str[:9].nunique() > 3
    lives = frame.trial_id.str.extract(r"search-(\d+)-(\d+)").astype(int)
    # Each life wrote in order: none of its rows is missing before its last.
    assert (lives.groupby(0)[1].agg(lambda written: written.max() + 1 - len(written)) == 0).all()


def test_reading_while_a_sweep_writes(tmp_path):
    (tmp_path / "ledger").mkdir()
    script = KILLED.replace("range(40)", "range(15)")
    seen = [0]
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as writer:
        while writer.poll() is None:
            seen.append(len(ledger.load(tmp_path)))
    assert writer.returncode == 0
    assert seen == sorted(seen)


def test_many_rows_are_packed_and_read_as_they_lie(tmp_path, monkeypatch):
    for number in range(6):
        report = {"budget": number, "score": 0.5, "seconds": 1.0}
        ledger.write(tmp_path, synthetic(f"search-{number:04}", score=number / 8, reports=[report]))
        ledger.write_scores(tmp_path, {"trial_id": f"search-{number:04}", "oracle_accuracy": number / 16})
    plain, curves = ledger.load(tmp_path), ledger.curves(tmp_path)
    assert not (tmp_path / "packed").exists()
    monkeypatch.setattr(packs, "PACK_FROM", 3)
    pd.testing.assert_frame_equal(ledger.load(tmp_path), plain)  # packs
    pack = tmp_path / "packed" / "ledger.parquet"
    assert len(pq.read_table(pack)) == 6
    pd.testing.assert_frame_equal(ledger.load(tmp_path), plain)
    pd.testing.assert_frame_equal(ledger.curves(tmp_path), curves)

    # What has changed, come or gone since is read anew.
    ledger.write_scores(tmp_path, {"trial_id": "search-0002", "oracle_accuracy": 1.0})
    ledger.write(tmp_path, synthetic("search-0006", score=0.9))
    (tmp_path / "ledger" / "search-0001-1.parquet").unlink()
    frame = ledger.load(tmp_path).set_index("trial_id")
    assert list(frame.index) == [f"search-{number:04}" for number in (0, 2, 3, 4, 5, 6)]
    assert frame.loc["search-0002", "oracle_accuracy"] == 1.0
    (tmp_path / "ledger" / "search-0003-1.parquet").write_bytes(b"PAR1")
    with pytest.warns(BrokenFileWarning, match="search-0003-1"):
        assert len(ledger.load(tmp_path)) == 5
    (tmp_path / "ledger" / "search-0003-1.parquet").unlink()

    # A broken pack is passed over, and made anew when it pays.
    pack.write_bytes(pack.read_bytes()[:100])
    assert len(ledger.load(tmp_path)) == 5
    assert len(pq.read_table(pack)) == 5
    data = pack.read_bytes()
    for place in range(0, len(data), len(data) // 20):
        pack.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert len(ledger.load(tmp_path)) == 5


def columns():
    """Names and types of every column, one a line."""
    kinds = {"trial": trial_schema(), "score": score_schema()}
    return "".join(f"{kind} {field.name}: {field.type}\n" for kind, schema in kinds.items() for field in schema)


def test_columns_are_those_of_the_schema_version():
    stored = Path(__file__).with_name(f"schema_v{SCHEMA_VERSION}.txt")
    assert stored.is_file() and columns() == stored.read_text(), (
        "the ledger's columns have changed: raise SCHEMA_VERSION in degan_search/ledger/columns.py, "
        "then python tests/ledger/test_ledger.py > tests/ledger/schema_v<SCHEMA_VERSION>.txt"
    )


if __name__ == "__main__":
    sys.stdout.write(columns())
