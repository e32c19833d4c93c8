"""What is written to the ledger comes back, and a bad row is refused."""

import datetime as dt

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from degan_search import ledger
from degan_search.ledger.columns import (
    SCHEMA_VERSION,
    Report,
    config_columns,
    config_of,
    score_schema,
    trial_schema,
)
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError
from tests.ledger.rows import full, plain, synthetic


def test_every_column_comes_back(tmp_path):
    row = full(trial_schema(), **synthetic(), schema_version=SCHEMA_VERSION)
    scores = full(score_schema(), trial_id="search-0000")
    file = ledger.write_row(tmp_path / "x", row)
    ledger.write_scores(tmp_path / "x", scores)
    assert file == tmp_path / "x" / "ledger" / "search-0000-1.parquet"
    expected = {"run": "x"} | {k: v for k, v in row.items() if k != "reports"}
    expected |= {k: v for k, v in scores.items() if k != "schema_version"}
    expected["compared_on"] = ", ".join(row["config_bank_proxies"])
    expected["price"] = "2eur/h"
    (tmp_path / "x" / "run.json").write_text('{"options": {"price": "2eur/h"}}')
    frame = ledger.load(tmp_path / "x")
    assert list(frame.columns) == list(expected)
    assert {k: plain(v) for k, v in frame.iloc[0].items()} == expected
    points = ledger.curves(str(tmp_path / "x"))
    about = {"run": "x"} | {k: row[k] for k in ("trial_id", "cell", "phase", "state")}
    assert points.to_dict("records") == [about | report for report in row["reports"]]


def test_a_configuration_comes_back(tmp_path):
    config = trial_config({"gan.lambda_e": 0.5, "probe.at": [10, 20], "count": 7})
    assert set(config_columns(config)) == {n for n in trial_schema().names if n.startswith("config_")}
    ledger.write_row(tmp_path, synthetic(**config_columns(config)))
    row = ledger.load(tmp_path).iloc[0]
    assert (row.config_gan_lambda_e, row.config_count, row.config_method) == (0.5, 7, "degan")
    assert plain(row.config_probe_at) == [10, 20]
    assert plain(row.config_bank_generators) == [list(pair) for pair in TrialConfig().bank.generators]
    assert pd.isna(row.config_teacher_path)
    assert config_of(row) == config


def test_what_a_student_is_compared_on(tmp_path):
    for number, changes in enumerate(({}, {"bank.proxies": ["photos", "glyphs/[A,B]"]})):
        config = trial_config({"proxy": "photos"}, changes)
        ledger.write_row(tmp_path, synthetic(**config_columns(config), trial_id=f"search-{number:04d}"))
    assert list(ledger.load(tmp_path)["compared_on"]) == ["photos", "photos, glyphs/[A,B]"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": 1.0}, "unknown column 'scores'; did you mean score"),
        ({"reports": [{"budjet": 1}]}, "unknown report 'budjet'; did you mean budget"),
        ({"state": "PRUNE"}, "COMPLETE, PRUNED, FAIL"),
        ({"phase": None}, "search, repeat, final"),
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
        ledger.write_row(tmp_path, synthetic(**changes))
    assert list(tmp_path.rglob("*.parquet")) == []


def test_an_attempt_is_written_once_and_the_last_counts(tmp_path):
    for attempt in (9, 10):
        ledger.write_row(tmp_path, synthetic(attempt=attempt, reason=f"attempt {attempt}", reports=[]))
    with pytest.raises(UserError, match="already written"):
        ledger.write_row(tmp_path, synthetic(attempt=10, reason="again"))
    assert list(ledger.load(tmp_path).reason) == ["attempt 10"]


def test_curves_are_those_of_the_last_attempt(tmp_path):
    early: Report = {"budget": 1, "score": 0.1, "seconds": 1.0}
    ledger.write_row(tmp_path, synthetic(attempt=1, reports=[early, early]))
    ledger.write_row(tmp_path, synthetic(attempt=2, reports=[early | {"budget": 2, "stage": "gan"}]))
    ledger.write_row(tmp_path, synthetic("search-0001"))
    points = ledger.curves(tmp_path)
    assert points[["trial_id", "budget", "stage"]].values.tolist() == [["search-0000", 2, "gan"]]
    assert points.d_loss.isna().all()


def test_accuracies_may_be_replaced_and_are_null_where_absent(tmp_path):
    for trial_id in ("search-0000", "search-0001"):
        ledger.write_row(tmp_path, synthetic(trial_id))
    for accuracy in (0.5, 0.6):
        ledger.write_scores(tmp_path, {"trial_id": "search-0001", "oracle_accuracy": accuracy})
    frame = ledger.load(tmp_path)
    assert frame.oracle_accuracy.isna().tolist() == [True, False]
    assert frame.oracle_accuracy[1] == 0.6
    with pytest.raises(UserError, match="unknown column 'accuracy'"):
        ledger.write_scores(tmp_path, {"trial_id": "search-0001", "accuracy": 0.5})


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_becomes_null(tmp_path, score):
    file = ledger.write_row(tmp_path, synthetic(score=score))
    assert pq.read_table(file)["score"].null_count == 1


def test_several_runs_together(tmp_path):
    for name, accuracy in (("b", 0.5), ("a", 0.25)):
        ledger.write_row(tmp_path / name, synthetic(number=None if name == "b" else 3))
        ledger.write_scores(tmp_path / name, {"trial_id": "search-0000", "oracle_accuracy": accuracy})
    frame = ledger.load([tmp_path / "b", str(tmp_path / "a")])
    assert frame[["run", "oracle_accuracy"]].values.tolist() == [["b", 0.5], ["a", 0.25]]
    ledger.write_row(tmp_path / "other" / "a", synthetic())
    with pytest.raises(UserError, match="two runs are called 'a'"):
        ledger.load([tmp_path / "a", tmp_path / "other" / "a"])


def test_an_empty_ledger_has_every_column(tmp_path):
    (tmp_path / "x" / "ledger").mkdir(parents=True)
    empty = ledger.load(tmp_path / "x")
    assert len(empty) == len(ledger.curves(tmp_path / "x")) == 0
    ledger.write_row(tmp_path / "x", synthetic())
    assert list(empty.columns) == list(ledger.load(tmp_path / "x").columns)


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "sweep").mkdir()
    with pytest.raises(UserError, match=r"no run at .*swep; did you mean sweep\?"):
        ledger.load(tmp_path / "swep")
    with pytest.raises(UserError, match="no folder 'ledger'"):
        ledger.load(tmp_path / "sweep")
    with pytest.raises(UserError, match="no run given"):
        ledger.load([])


def test_older_columns_come_as_null_and_newer_schemas_are_refused(tmp_path):
    file = ledger.write_row(tmp_path, synthetic(agreement=0.5, score=0.5))
    table = pq.read_table(file).drop_columns(["agreement"])
    version = table.schema.get_field_index("schema_version")
    pq.write_table(table.set_column(version, "schema_version", pa.array([0], pa.int32())), file)
    ledger.write_row(tmp_path, synthetic("search-0001", agreement=0.75))
    frame = ledger.load(tmp_path)
    assert pd.isna(frame.agreement[0])
    assert (frame.score[0], frame.agreement[1]) == (0.5, 0.75)
    newer = pa.array([SCHEMA_VERSION + 1], pa.int32())
    pq.write_table(table.set_column(version, "schema_version", newer), file)
    with pytest.raises(UserError, match=f"rows of schema {SCHEMA_VERSION + 1}"):
        ledger.load(tmp_path)
