"""A run's folder: one writer, options and spaces that come back, networks that stay, jobs without rows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from degan_search.ledger.columns import Phase, State
from degan_search.search.run import folder as run_folder
from degan_search.search.run import jobs, keep, options
from degan_search.search.run.jobs import new_job
from degan_search.search.run.options import Options
from degan_search.search.space import schema
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError


def test_a_run_has_one_writer_and_a_dead_one_binds_nobody(tmp_path):
    run = tmp_path / "run"
    hold = (
        "import sys, time; from pathlib import Path; from degan_search.search.run.folder import writer\n"
        "with writer(Path(sys.argv[1])):\n    print('in', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(run)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        with (
            pytest.raises(UserError, match=rf"written by process {other.pid} on \S+ since 20\d\d-"),
            run_folder.writer(run),
        ):
            pass
        other.kill()
    with run_folder.writer(run):
        assert json.loads((run / ".writer.json").read_text())["pid"] == os.getpid()
        with pytest.raises(UserError, match="is being written"), run_folder.writer(run):
            pass
    with run_folder.writer(run):
        pass


def test_options_come_back_from_a_run_and_changes_go_over_them(tmp_path):
    given = Options(storage=tmp_path, name="x", data_dir=tmp_path, time_limit=90, keep=None, remote="s3://k:secret@b/x")
    saved = json.loads(json.dumps(given.saved()))
    assert "secret" not in str(saved)
    back = options.loaded(saved, {"retries": 5})
    assert (back.data_dir, back.time_limit, back.keep, back.retries) == (tmp_path, 90, None, 5)
    # An older version wrote text, and knew other options.
    old = {"storage": "runs", "name": "demo", "data_dir": "None", "cpus_per_trial": "2", "gone": "1"}
    assert options.loaded(old, {}) == Options(Path("runs"), "demo", cpus_per_trial=2)
    with pytest.raises(UserError, match="options: retries"):
        options.loaded({"retries": "many"}, {})


def test_changed_spaces_are_told_setting_by_setting():
    one = schema.Space.model_validate({"parameters": {"gan.lambda_e": [0, 1]}, "description": "a"})
    other = schema.Space.model_validate(
        {"parameters": {"gan.lambda_e": [0, 2]}, "search": {"trials": 9}, "description": "b"}
    )
    assert run_folder.differences(one, one.model_copy(update={"description": "c"})) == []
    assert run_folder.differences(one, other) == [
        "parameters.gan.lambda_e: [0, 1] before, [0, 2] now",
        "search.trials: 16 before, 9 now",
    ]


def test_the_networks_of_the_best_stay(tmp_path):
    rows = []
    for number, (cell, score, across, state, phase) in enumerate(
        [
            ("a", 0.1, 0.9, State.COMPLETE, Phase.SEARCH),
            ("a", 0.9, 0.1, State.COMPLETE, Phase.SEARCH),
            ("a", 0.5, 0.5, State.COMPLETE, Phase.SEARCH),
            ("a", 0.2, None, State.PRUNED, Phase.SEARCH),
            ("b", 0.2, 0.2, State.COMPLETE, Phase.SEARCH),
            ("b", 0.1, 0.1, State.COMPLETE, Phase.FINAL),
        ]
    ):
        name = f"{phase}-{number:04d}"
        rows.append(
            {"trial_id": name, "cell": cell, "score": score, "cross_soft_agreement": across}
            | {"state": state, "phase": phase, "config_objective": "agreement"}
        )
        for file in (*keep.NETWORKS, "samples.png"):
            (tmp_path / "trials" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "trials" / name / file).write_bytes(b"x")
    frame = pd.DataFrame(rows)

    def gone(count):
        return sorted({file.parent.name for file in keep.needless(tmp_path, frame, count, None)})

    assert gone(None) == []
    assert gone(1) == ["search-0002"]
    assert gone(0) == ["search-0000", "search-0001", "search-0002", "search-0004"]
    assert gone(9) == []
    assert {file.name for file in keep.needless(tmp_path, frame, 0, None)} == set(keep.NETWORKS)


def test_jobs_without_rows_are_unfinished_and_names_are_never_given_twice(tmp_path):
    for number in (0, 1, 2, 10000):
        jobs.write(tmp_path, new_job(Phase.SEARCH, number, "all", TrialConfig()))
    (tmp_path / "trials" / "search-10007").mkdir(parents=True)
    known, broken = jobs.read(tmp_path)
    assert not broken
    frame = pd.DataFrame(
        {
            "trial_id": ["search-0001", "search-0002"],
            "attempt": [1, 2],
            "state": ["COMPLETE", "FAIL"],
            "cause": [None, "worker_lost"],
        }
    )
    left = jobs.unfinished(known, frame, Phase.SEARCH)
    assert [(one.id, one.attempt) for one in left] == [("search-0000", 1), ("search-10000", 1)]
    left = jobs.unfinished(known, frame, Phase.SEARCH, failed_too=True)
    assert [(one.id, one.attempt) for one in left] == [
        ("search-0000", 1),
        ("search-0002", 3),
        ("search-10000", 1),
    ]
    assert jobs.unfinished(known, frame, Phase.FINAL) == []
    assert jobs.next_number(tmp_path, known, frame, Phase.SEARCH) == 10008
    assert jobs.next_number(tmp_path, known, frame, Phase.FINAL) == 0
