"""The queue of jobs: their order, jobs that come again after a fault, and a disk that takes no rows."""

from optuna.trial import TrialState
from ray.tune.search import Searcher

from degan_search.ledger.columns import Phase
from degan_search.search.run.jobs import new_job
from degan_search.search.run.outbox import Outbox
from degan_search.search.suggest import job_queue
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.settings.trial import TrialConfig
from tests.search.suggest.as_tune import end, result, searcher, suggest


def test_what_waits_is_told_in_order():
    given = searcher(search={"trials": 1})
    first = suggest(given, "a")
    given.on_trial_complete("a", error=True)
    given.retry(first, 99)
    assert given.waiting() == [("search", "proxy=digits"), ("search", "proxy=photos")]
    finals = GivenJobs([new_job(Phase.FINAL, number, "all", TrialConfig()) for number in range(2)])
    suggest(finals, "a")
    assert finals.waiting() == [("final", "all")]


def test_given_jobs_are_handed_out_in_order():
    jobs = [new_job(Phase.FINAL, number, "all", TrialConfig()) for number in range(3)]
    given = GivenJobs(jobs)
    assert [suggest(given, str(n)) for n in range(4)] == [*jobs, None]
    for n in range(3):
        end(given, str(n), result(0.5, "COMPLETE"))
    assert suggest(given, "more") == Searcher.FINISHED
    assert len(jobs) == given.total == 3
    assert [one.id for one in jobs] == ["final-0000", "final-0001", "final-0002"]


def test_a_job_that_a_fault_cut_short_comes_again_after_a_while(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(job_queue.time, "monotonic", lambda: now[0])
    given = searcher(cells={"proxy": ["digits"]}, search={"trials": 1})
    first = suggest(given, "a")
    given.on_trial_complete("a", error=True)
    given.retry(first, 5)
    assert suggest(given, "b") is None
    now[0] += 5
    again = suggest(given, "b")
    assert again == first.changed(attempt=2, faults=1)
    assert suggest(given, "c") is None  # it may come back once more
    end(given, "b", result(0.5, "COMPLETE"))
    assert suggest(given, "c") == Searcher.FINISHED
    assert [trial.state for trial in given.studies["proxy=digits"].get_trials()] == [TrialState.COMPLETE]


def test_nothing_starts_while_the_disk_takes_no_rows():
    outbox, full = Outbox(), [True]

    def write():
        if full:
            raise OSError("No space left on device")

    given = GivenJobs([new_job(Phase.FINAL, 0, "all", TrialConfig())], outbox)
    outbox.put("search-0000", write)
    assert suggest(given, "a") is None
    assert outbox.flush() == ["search-0000: No space left on device"]
    assert outbox.refused_for() > 0
    full.clear()
    assert outbox.flush() == []
    assert outbox.refused_for() == 0
    assert suggest(given, "a").id == "final-0000"
