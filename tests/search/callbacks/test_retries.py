"""What the recorder decides over broken trials: further attempts, rows that wait, the end of a sweep."""

import errno
import io
from types import SimpleNamespace

import pytest
from ray.tune.experiment.trial import _TrainingRunMetadata
from rich.console import Console

from degan_search import ledger
from degan_search.ledger import write
from degan_search.ledger.columns import Phase
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.run import faults, jobs, tune_dicts
from degan_search.search.run.jobs import new_job
from degan_search.search.run.results import TrialResult
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import IncompleteError

FULL = OSError(errno.ENOSPC, "No space left on device")


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


GOOD = {"score": 0.5, "gan_steps": 4, "state": "COMPLETE"}


def failed(cause, reason="it broke", **more):
    return {"score": float("nan"), "gan_steps": 5, "state": "FAIL", "cause": cause, "reason": reason, **more}


def test_a_fault_is_tried_again_without_a_row_then_fails_with_its_cause(tmp_path):
    made, work = recorder(tmp_path, retries=2)
    for attempt in (1, 2, 3):
        trial = tune_trial(0, attempt=attempt, faults=attempt - 1)
        made.on_trial_start(0, [], trial)
        end(made, trial, **failed("disk"))
        assert [(one.attempt, one.faults) for _, one in work.retries] == [
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
    assert not work.retries
    assert not made.patience.faulty
    assert jobs.faulty(ledger.load(tmp_path)).to_list() == [False]


def test_a_curve_told_twice_is_kept_once(tmp_path):
    made, _ = recorder(tmp_path)
    points = [{"stage": "gan", "budget": step, "seconds": 1.0, "score": float(step)} for step in (1, 2, 3, 4)]
    for first, count in ((0, 3), (0, 2), (2, 2)):  # the second process begins after the second point
        told = {"reports_from": first, "reports": points[first : first + count]}
        tell(made, tune_trial(0), score=0.5, gan_steps=4, **told)
    end(made, tune_trial(0), **GOOD, reports_from=4)
    assert list(ledger.curves(tmp_path)["budget"]) == [1, 2, 3, 4]


def test_trial_after_trial_that_fails_ends_the_sweep(tmp_path):
    made, _ = recorder(tmp_path, retries=0)
    for number in range(faults.HOPELESS):
        made.check_sweep()
        end(made, tune_trial(number), **failed("error"))
    with pytest.raises(IncompleteError, match="8 trials in a row failed, the last with: it broke"):
        made.check_sweep()
    end(made, tune_trial(9), **GOOD)
    made.check_sweep()


def test_what_tune_keeps_of_ended_trials_is_let_go(tmp_path):
    made, _ = recorder(tmp_path)
    trial = tune_trial(0)
    trial.run_metadata.last_result = {"score": 0.5}
    end(made, trial, **GOOD)
    made.check_sweep()
    assert trial.config == {"id": "search-0000"}
    assert trial.run_metadata.last_result == trial.evaluated_params == {}
    assert not made.ended


def test_a_disk_that_takes_no_rows_is_waited_for_then_ends_the_sweep(tmp_path, monkeypatch):
    made, work = recorder(tmp_path)
    monkeypatch.setattr(write, "write_bytes", lambda path, data: (_ for _ in ()).throw(FULL))
    end(made, tune_trial(0), **GOOD)
    assert list(work.outbox.unwritten) == ["search-0000"]
    made.check_sweep()
    monkeypatch.setattr(faults, "DISK_PATIENCE", -1)
    monkeypatch.setattr(made.patience, "tried", -100.0)
    with pytest.raises(IncompleteError, match=r"the disk takes no rows: search-0000: .*No space left"):
        made.check_sweep()
