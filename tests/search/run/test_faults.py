"""What decides over broken trials, without a cluster: causes, attempts, signals, rows that wait, networks that stay."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from ray.tune.experiment.trial import _TrainingRunMetadata
from rich.console import Console

from degan_search import ledger
from degan_search.ledger import read
from degan_search.ledger.columns import Cause, Phase, State
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.run import faults, jobs, keep, options, tune_dicts
from degan_search.search.run import folder as run_folder
from degan_search.search.run.interrupt import Interruption
from degan_search.search.run.jobs import new_job
from degan_search.search.run.options import Options
from degan_search.search.run.results import TrialResult
from degan_search.search.space import schema
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import IncompleteError, InterruptedRun, UserError
from degan_search.training.loop import DivergedError

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (DivergedError("gan: loss is nan"), Cause.DIVERGED),
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.OUT_OF_MEMORY),
        (MemoryError(), Cause.OUT_OF_MEMORY),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            Cause.OUT_OF_MEMORY,
        ),
        (FULL, Cause.DISK),
        (OSError("cannot write s3://bucket/x: connection refused; tried for 300 s"), Cause.DISK),
        (FileExistsError(errno.EEXIST, "File exists"), Cause.ERROR),
        (PermissionError(errno.EACCES, "Permission denied"), Cause.ERROR),
        (KeyError("x"), Cause.ERROR),
    ],
)
def test_each_error_has_a_cause(error, cause):
    assert faults.cause_of(error) == cause


def test_torch_says_what_is_looked_for_where_the_memory_ends():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert faults.cause_of(error.value) is Cause.OUT_OF_MEMORY


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_is_tried_again_a_few_times_or_not_at_all(cause):
    waits = [faults.wait(cause, count, retries=3) for count in range(1, 6)]
    if cause in faults.RETRIED:
        assert waits == [5, 10, 20, None, None]
        assert faults.wait(cause, 50, retries=100) == faults.LONGEST
    else:
        assert waits == [None] * 5


def test_a_death_has_its_cause():
    assert faults.cause_of_death("ActorDiedError", 5, None) is Cause.WORKER_LOST
    assert faults.cause_of_death("ActorDiedError", 5, 4) is Cause.TIME_LIMIT
    assert (
        faults.cause_of_death("RayActorError: OutOfMemoryError: 2 worker(s) were killed", 5, 9) is Cause.OUT_OF_MEMORY
    )


def tune_trial(number=0, error_file=None, **about):
    one = new_job(Phase.SEARCH, number, "all", TrialConfig()).changed(**about)
    kept = _TrainingRunMetadata()
    return SimpleNamespace(
        config=tune_dicts.to_config([one]), error_file=error_file, run_metadata=kept, evaluated_params={"a": 1}
    )


def tell(made, trial, **result):
    """Tell the recorder a result, as Tune does before it says that a trial is complete."""
    told = TrialResult(id=trial.config["id"], **result)
    made.on_trial_result(0, [], trial, tune_dicts.to_result([told], [] if told.state else [told.id], 1))


def end(made, trial, **result):
    tell(made, trial, **result)
    made.on_trial_complete(0, [], trial)


def recorder(folder, **rules):
    work = GivenJobs([])
    return Recorder(folder, {}, work, Rules(**rules), 9, "Search", Console(file=io.StringIO())), work


GOOD = {"score": 0.5, "budget": 4, "state": "COMPLETE"}


def failed(cause, reason="it broke", **more):
    return {"score": float("nan"), "budget": 5, "state": "FAIL", "cause": cause, "reason": reason, **more}


def test_a_fault_is_tried_again_without_a_row_then_fails_with_its_cause(tmp_path):
    made, work = recorder(tmp_path, retries=2)
    for attempt in (1, 2, 3):
        trial = tune_trial(0, attempt=attempt, faults=attempt - 1)
        made.on_trial_start(0, [], trial)
        end(made, trial, **failed("disk"))
        assert [(one.attempt, one.faults) for _, one in work.back] == [
            (n + 1, n) for n in range(1, min(attempt, 2) + 1)
        ]
        if attempt < 3:
            assert not list(tmp_path.glob("ledger/*"))
    row = ledger.load(tmp_path).iloc[0]
    assert list(row[["trial_id", "attempt", "state", "cause", "reason"]]) == [
        "search-0000",
        3,
        "FAIL",
        "disk",
        "it broke",
    ]
    assert made.patience.faulty == {"search-0000": "it broke"}
    assert jobs.faulty(ledger.load(tmp_path)).to_list() == [True]


def test_divergence_is_no_fault(tmp_path):
    made, work = recorder(tmp_path)
    end(made, tune_trial(0), **failed("diverged"))
    assert not work.back
    assert not made.patience.faulty
    assert jobs.faulty(ledger.load(tmp_path)).to_list() == [False]


def test_a_curve_told_twice_is_kept_once(tmp_path):
    made, _ = recorder(tmp_path)
    points = [{"stage": "gan", "budget": step, "seconds": 1.0, "score": float(step)} for step in (1, 2, 3, 4)]
    for first, count in ((0, 3), (0, 2), (2, 2)):  # the second process begins after the second point
        told = {"reports_from": first, "reports": points[first : first + count]}
        tell(made, tune_trial(0), score=0.5, budget=4, **told)
    end(made, tune_trial(0), **GOOD, reports_from=4)
    assert list(ledger.curves(tmp_path)["budget"]) == [1, 2, 3, 4]


def test_trial_after_trial_that_fails_ends_the_sweep(tmp_path):
    made, _ = recorder(tmp_path, retries=0)
    for number in range(faults.HOPELESS):
        made.look()
        end(made, tune_trial(number), **failed("error"))
    with pytest.raises(IncompleteError, match="8 trials in a row failed, the last with: it broke"):
        made.look()
    end(made, tune_trial(9), **GOOD)
    made.look()


def test_what_tune_keeps_of_ended_trials_is_let_go(tmp_path):
    made, _ = recorder(tmp_path)
    trial = tune_trial(0)
    trial.run_metadata.last_result = {"score": 0.5}
    end(made, trial, **GOOD)
    made.look()
    assert trial.config == {"id": "search-0000"}
    assert trial.run_metadata.last_result == trial.evaluated_params == {}
    assert not made.over


def test_a_disk_that_takes_no_rows_is_waited_for_then_ends_the_sweep(tmp_path, monkeypatch):
    made, work = recorder(tmp_path)
    monkeypatch.setattr(read, "write_bytes", lambda path, data: (_ for _ in ()).throw(FULL))
    end(made, tune_trial(0), **GOOD)
    assert list(work.outbox.unwritten) == ["search-0000"]
    made.look()
    monkeypatch.setattr(faults, "DISK_PATIENCE", -1)
    monkeypatch.setattr(made.patience, "tried", -100.0)
    with pytest.raises(IncompleteError, match=r"the disk takes no rows: search-0000: .*No space left"):
        made.look()


def test_signals_wait_where_they_must_and_do_not_where_they_need_not():
    made = Interruption("say this")
    before = signal.getsignal(signal.SIGTERM)
    with made.handled():
        with pytest.raises(InterruptedRun) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert (stop.value.exit_code, stop.value.hint) == (143, "say this")
        with made.defer():
            os.kill(os.getpid(), signal.SIGINT)
            made_it = True
        assert made_it
        with pytest.raises(InterruptedRun) as stop:
            made.raise_if_caught()
        assert stop.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) == before


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
