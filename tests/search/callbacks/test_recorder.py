"""The recorder's row: each value that a job and a worker tell of lands in its own column."""

import io
import json
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from degan_search.ledger import columns
from degan_search.ledger.columns import (
    REFEREE_METRICS,
    REPORT_COLUMNS,
    SCHEMA_VERSION,
    TRIAL_METRICS,
    Phase,
    trial_schema,
)
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import new_job
from degan_search.search.run.results import TrialResult
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.settings.resolve import flatten, merge, parse, stable_hash
from degan_search.settings.trial import TrialConfig

CHOICES = {
    "distillation": "incremental",
    "auto": "tf32",
    "graphs": "none",
    "paper": "sgd_augmented",
    "adam": "sgd",
    "sgd": "adam",
    "used": "set",
    "set": "used",
    "cross_entropy": "binary_cross_entropy",
    "norms": "aligned",
    "balanced_soft_agreement": "snd",
}
"""Another choice for each setting that has few."""
GIVEN = {
    "proxy_fit": "stretch",
    "teacher.input.size": [101, 102],
    "teacher.input.channels": 1,
    "teacher.input.order": "bgr",
    "teacher.input.normalise": None,
    "teacher.input.range": [-7.5, 8.5],
    "teacher.input.mean": [0.111],
    "teacher.input.std": [0.222],
    "teacher.classes": "one\ntwo",
    "teacher.check": "a few",
    "student.input.size": [103, 104],
    "student.input.channels": 3,
    "student.input.order": "rgb",
    "student.input.normalise": "imagenet",
    "student.input.range": None,
    "student.input.mean": None,
    "student.input.std": None,
    "gan.size": 256,
    "gan.instance_noise": 0.777,
    "count_is": "most",
    "bank.proxies": ["a proxy", "another proxy"],
    "bank.judges": ["a judge"],
    "zskd.profile": "released",
    "combine.members": ["search-0001@0123456789abcdef"],
    "combine.early": ["search-0002@0123456789abcdef"],
}
"""Values of settings that cannot have any, and of some that exclude each other."""
HELD, CPUS, GPUS = 5000.0, 3, 0.25
"""Seconds of earlier attempts, and what a process holds."""
STARTED, FINISHED = 1_700_000_000.0, 1_700_000_123.0


def another(name, value, number):
    """Return a value that a setting may have, is not its default, and is no other setting's where it can be."""
    if name in GIVEN:
        return GIVEN[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        pair = [number, number + 0.5] if name != "probe.at" else [number, number + 1]
        return {"bank.generators": [pair], "probe.at": pair}.get(name, [one / 1000 for one in pair])
    if isinstance(value, float):
        return number / 1000
    if isinstance(value, int) or (value is None and name != "teacher.path"):
        return number
    return CHOICES.get(value, f"name {number}")


@pytest.fixture(scope="module")
def told():
    """What a job and its worker tell, all of it different, and the row that it makes."""
    numbers = count(301)  # none is a default
    config = {
        name: another(name, value, next(numbers)) for name, value in flatten(TrialConfig().model_dump(mode="json"))
    }
    measured = {name: next(numbers) / 1000 for name in (*TRIAL_METRICS, *REFEREE_METRICS)}
    points = [{name: float(next(numbers)) for name in REPORT_COLUMNS} for _ in range(2)]
    points = [
        {**point, "budget": int(point["budget"]), "stage": f"stage {place}"} for place, point in enumerate(points)
    ]
    about = {"host": "a host", "git_commit": "a commit", "hardware": "hardware", "versions": {"a": "1", "b": "2"}}
    settings = parse(TrialConfig, merge({}, config))
    given = new_job(Phase.FINAL, next(numbers), "a cell", settings, "infomax").changed(attempt=next(numbers), held=HELD)
    result = {
        "id": given.id,
        "state": "FAIL",
        "reason": "a reason",
        "cause": "diverged",
        "score": measured["score"],
        "seconds": measured["seconds"],
        "gan_steps": 0,  # the steps that the trial itself counted say more
        "metrics": {
            **measured,
            "score": -1.0,  # of the last measure alone
            "seconds": -2.0,
            "gan_steps": next(numbers),
            "distill_steps": next(numbers),
        },
        "teacher_hash": "a teacher",
        "teacher_holdout_accuracy": measured["teacher_holdout_accuracy"],
        "device": "a device",
        "precision": "a precision",
        "threads": next(numbers),
        "started": STARTED,
        "finished": FINISHED,
        "provenance": about,
        "class_agreement": [next(numbers) / 1000, None],
        "reports": points,
        "reports_from": 0,
    }
    del result["metrics"]["teacher_holdout_accuracy"]
    row = {
        "trial_id": f"final-{given.number:04d}",
        **{name: getattr(given, name) for name in ("number", "attempt")},
        **{"phase": "final", "cell": "a cell", "chosen_by": "infomax"},
        **{name: result[name] for name in ("state", "reason", "cause", "teacher_hash")},
        **{f"config_{name.replace('.', '_')}": value for name, value in config.items()},
        **measured,
        **{name: result["metrics"][name] for name in ("gan_steps", "distill_steps")},
        **{name: result[name] for name in ("threads", "device", "precision", "class_agreement")},
        "started": datetime.fromtimestamp(STARTED, UTC),
        "finished": datetime.fromtimestamp(FINISHED, UTC),
        **about,
        "versions": '{"a": "1", "b": "2"}',
        "schema_version": SCHEMA_VERSION,
        "reports": points,
    }
    return given, result, row


def written(folder, given, result):
    """Return the row that the recorder writes of a worker that ended so, as it lies on the disk."""
    made = Recorder(folder, {}, GivenJobs([]), Rules(cpus=CPUS, gpus=GPUS), 1, "Search", Console(file=io.StringIO()))
    trial = SimpleNamespace(config=tune_dicts.to_config([given]), error_file=None)
    made.on_trial_start(0, [], trial)
    made.on_trial_result(0, [], trial, tune_dicts.to_result([TrialResult.model_validate(result)], [], 1))
    made.on_trial_complete(0, [], trial)
    assert made.outbox.flush() == []
    (file,) = (folder / "ledger").glob("*.parquet")
    (row,) = pq.read_table(file).to_pylist()
    return row


def test_every_value_is_in_its_own_column(told, tmp_path):
    given, result, expected = told
    found = written(tmp_path, given, result)
    assert found.pop("config_hash") == stable_hash(given.config)
    assert json.loads(found.pop("config_json")) == given.config.model_dump(mode="json")
    assert {*found, "config_hash", "config_json"} == set(trial_schema().names)
    seconds = {name: found.pop(name) for name in columns.HELD}
    assert seconds == pytest.approx({"core_seconds": HELD * CPUS, "gpu_seconds": HELD * GPUS}, rel=0.01)
    assert found == expected


def test_no_two_columns_hold_the_same_where_they_need_not(told):
    _, _, row = told
    few = set(CHOICES.values()) | {True, False, None, SCHEMA_VERSION}
    values = [value for value in row.values() if not isinstance(value, list | bool) and value not in few]
    assert len(values) == len(set(values)) > 100
    defaults = dict(flatten(TrialConfig().model_dump(mode="json")))
    excluded = {name for name, value in GIVEN.items() if value is None}
    assert all(
        row[f"config_{name.replace('.', '_')}"] != value for name, value in defaults.items() if name not in excluded
    )
