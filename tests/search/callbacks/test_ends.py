"""The recorder's rows of trials that ended in each way, as Tune's callbacks write them."""

import io
import math
from types import SimpleNamespace

from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import Phase
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import new_job
from degan_search.search.run.results import TrialResult
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.settings.trial import TrialConfig


def ended_trial(number=0, error_file=None, **result):
    work = new_job(Phase.SEARCH, number, "all", TrialConfig())
    last = {
        "score": 0.5,
        "gan_steps": 10,
        "state": "COMPLETE",
        "reports": [{"budget": 10, "score": 0.5, "seconds": 1.0}],
    }
    told = TrialResult(id=work.id, **last | result)
    plain = tune_dicts.to_result([told], [] if told.state else [work.id], 1)
    return SimpleNamespace(config=tune_dicts.to_config([work]), last_result=plain, error_file=error_file)


def recorder(folder, **reasons):
    return Recorder(folder, reasons, GivenJobs([]), Rules(retries=0), 3, "Search", Console(file=io.StringIO()))


def record(made, trial, error=False):
    made.on_trial_start(0, [], trial)
    made.on_trial_result(0, [], trial, trial.last_result)
    (made.on_trial_error if error else made.on_trial_complete)(0, [], trial)


class TestRecorder:
    """Rows as Tune's callbacks write them."""

    def test_each_end(self, tmp_path):
        made = recorder(tmp_path, **{"search-0001": "stopped early: too low"})
        record(made, ended_trial(0))
        record(made, ended_trial(1, state=None))
        (tmp_path / "error.txt").write_text("Failure # 1\nTraceback\n  File x\nValueError: a reason\n\n")
        record(made, ended_trial(2, str(tmp_path / "error.txt")), error=True)
        assert made.outbox.flush() == []
        rows = ledger.load(tmp_path).set_index("trial_id")
        assert list(rows["state"]) == ["COMPLETE", "PRUNED", "FAIL"]
        assert list(rows["reason"].fillna("")) == ["", "stopped early: too low", "ValueError: a reason"]
        assert list(rows["cause"].fillna("")) == ["", "", "worker_lost"]
        assert list(ledger.curves(tmp_path)["score"]) == [0.5] * 3

    def test_a_worker_that_died_without_a_word(self, tmp_path):
        made = recorder(tmp_path)
        trial = ended_trial(0)
        trial.last_result = None
        made.on_trial_error(0, [], trial)
        row = ledger.load(tmp_path).iloc[0]
        assert (row["state"], row["reason"]) == ("FAIL", "the worker died")
        assert math.isnan(row["score"])

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "ledger").write_text("in the way")
        made = recorder(tmp_path)
        record(made, ended_trial(0))
        record(made, ended_trial(1))
        faults = made.outbox.flush()
        assert [fault.partition(":")[0] for fault in faults] == ["search-0000", "search-0001"]
        assert "ledger" in faults[0]
        # Once the disk takes them, every row is written.
        (tmp_path / "ledger").unlink()
        record(made, ended_trial(2))
        assert made.outbox.flush() == []
        assert sorted(ledger.load(tmp_path)["trial_id"]) == ["search-0000", "search-0001", "search-0002"]
