"""A sweep that is told to stop: nothing begins, trials write checkpoints, and it ends when none runs or too late."""

import io
import signal

import pytest
from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import Cause
from degan_search.search.callbacks import stop
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.run import faults
from degan_search.search.run.interrupt import Interruption
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.system.errors import InterruptedRun
from tests.search.callbacks.test_retries import GOOD, end, tell, tune_trial

LEFT = "The actor died: Worker exits with an exit code 75."


@pytest.fixture
def sweep(tmp_path):
    """A recorder of a sweep without further attempts, and what workers were asked."""
    asked, work, out = [], GivenJobs([]), io.StringIO()
    rules = Rules(retries=0, interruption=Interruption("go on"), ask_to_end=lambda: asked.append("end"))
    with rules.interruption.defer():
        yield Recorder(tmp_path, {}, work, rules, 9, "Search", Console(file=out)), work, asked, out


def stopped(made):
    made.rules.interruption._handle(signal.SIGTERM, None)
    made.check_sweep()


def test_it_waits_for_the_checkpoints_of_trials_and_writes_no_rows_of_them(sweep, tmp_path):
    made, work, asked, out = sweep
    both = [tune_trial(0), tune_trial(1)]
    for trial in both:
        made.on_trial_start(0, [], trial)
    stopped(made)
    made.check_sweep()
    assert asked == ["end"]
    assert "Stopping, once 2 trials have written a checkpoint; again to stop at once" in out.getvalue()
    assert work.suggest("next") is None  # not FINISHED, and no job
    end(made, both[0], **GOOD)  # it ended by itself
    made.check_sweep()
    made.on_trial_error(0, [], both[1])  # whatever its worker died of
    with pytest.raises(InterruptedRun, match="go on"):
        made.check_sweep()
    assert ledger.load(tmp_path)["trial_id"].to_list() == ["search-0000"]


def test_it_waits_no_longer_than_it_may_and_not_for_a_second_signal(sweep, monkeypatch):
    made, _, _, _ = sweep
    made.on_trial_start(0, [], tune_trial(0))
    stopped(made)
    with pytest.raises(InterruptedRun):
        made.rules.interruption._handle(signal.SIGINT, None)
    monkeypatch.setattr(stop, "STOP_SECONDS", -1.0)
    with pytest.raises(InterruptedRun):
        made.check_sweep()


def test_it_ends_at_once_where_no_trial_runs(sweep):
    with pytest.raises(InterruptedRun):
        stopped(sweep[0])
    assert sweep[2] == []


def test_a_worker_that_left_with_a_checkpoint_is_no_fault(sweep, tmp_path):
    made, work, _, _ = sweep
    (tmp_path / "error.txt").write_text(LEFT)
    trial = tune_trial(0, str(tmp_path / "error.txt"))
    made.on_trial_start(0, [], trial)
    tell(made, trial, score=0.1, gan_steps=2)
    made.on_trial_error(0, [], trial)
    ((_, again),) = work.retries
    assert (again.attempt, again.faults) == (2, 0)
    assert 0 < again.held < 60
    assert not list(tmp_path.glob("ledger/*"))
    # Another exit code is a lost worker, here without further attempts.
    (tmp_path / "error.txt").write_text(LEFT.replace("75", "1"))
    made.on_trial_start(0, [], trial)
    made.on_trial_error(0, [], trial)
    assert ledger.load(tmp_path).loc[0, "cause"] == Cause.WORKER_LOST
    assert not faults.told_to_end("exit code 755")
