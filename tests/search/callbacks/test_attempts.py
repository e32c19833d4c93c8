"""What trials held: alone, beside others in one process, and before this driver."""

from types import SimpleNamespace

import pytest

from degan_search.search.callbacks import attempts
from degan_search.search.callbacks.attempts import Attempt, Attempts, seconds_held
from degan_search.search.run.jobs import new_job
from degan_search.search.run.results import TrialResult
from degan_search.settings.trial import TrialConfig


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock, for tests to set."""
    made = SimpleNamespace(now=100.0, monotonic=lambda: made.now, time=lambda: 0.0)
    monkeypatch.setattr(attempts, "time", made)
    return made


def begun(clock, trial):
    return Attempt(trial, begun=clock.now, counted=clock.now)


def test_trials_in_one_process_share_it(clock):
    made, process, other = Attempts(), object(), object()
    made |= {name: begun(clock, process) for name in "ab"} | {"c": begun(clock, other)}
    clock.now += 10
    assert made.end("a").held == 5
    clock.now += 10
    assert made.end("b").held == 5 + 10
    assert made.end("c").held == 20
    assert made.end("c") is None


@pytest.mark.parametrize(
    ("held", "told", "seconds"),
    [
        (None, {}, 30),  # what a worker did not say is not known
        (7.0, {}, 37),
        (7.0, {"seconds": 500.0, "started": 10.0, "finished": 35.0}, 37),  # earlier attempts of this driver are in it
        (None, {"seconds": 25.0, "started": 10.0, "finished": 36.0}, 30),
        (None, {"seconds": 75.0, "started": 10.0, "finished": 35.0}, 80),  # 50 s before this driver
        (None, {"seconds": 75.0, "started": 10.0, "finished": -900.0}, 75),  # the clock was set back
    ],
)
def test_seconds_of_earlier_attempts_count(clock, held, told, seconds):
    attempt = Attempt(object(), begun=clock.now, counted=clock.now, held=30.0)
    clock.now += 30
    job = new_job("search", 0, "all", TrialConfig()).changed(held=held)
    assert seconds_held(job, TrialResult(id=job.id, gan_steps=0, **told), attempt) == seconds
    assert seconds_held(job, None, None) == (held or 0)
