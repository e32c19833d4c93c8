"""A worker that is told to end writes checkpoints after the step that it is in, from which its trials go on."""

import os
import random
import signal
from types import SimpleNamespace

import pytest

from degan_search.search.run import faults, jobs, tune_dicts
from degan_search.search.workers import told
from degan_search.search.workers import worker as worker_module
from degan_search.storage import LocalPlace
from degan_search.training.turns import Turns
from degan_search.trial.inputs import inputs_key
from degan_search.trial.trial import run as run_trial


@pytest.fixture
def made(tiny, prepare, tmp_path, monkeypatch):
    """Two jobs, a worker for them, the steps that its trials have done, and what to do during a step."""
    configs = [tiny({"seed": seed, "gan.steps": 40}) for seed in (1, 2)]
    inputs, steps, during = prepare(configs[0]), [], {}
    context = SimpleNamespace(get_accelerator_ids=dict)
    monkeypatch.setattr(worker_module.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(worker_module, "fetch_inputs", lambda reference: inputs)
    step = Turns._step

    def counted(turns, number):
        during.pop(len(steps), lambda: None)()
        steps.append(number)
        return step(turns, number)

    monkeypatch.setattr(Turns, "_step", counted)
    some = [jobs.new_job("search", number, "a", config) for number, config in enumerate(configs)]

    def worker():
        one = worker_module.DeganTrainable.__new__(worker_module.DeganTrainable)
        one.setup(tune_dicts.to_config(some), {inputs_key(configs[0]): None}, LocalPlace(tmp_path))
        return one

    alone = [run_trial(config, inputs).metrics for config in configs]
    return SimpleNamespace(worker=worker, steps=steps, during=during, alone=alone, jobs=some)


def to_the_end(worker):
    last = {}
    while len(last) < 2:
        last |= {result.id: result for result in tune_dicts.from_result(worker.step()) if result.ended}
    return last


def same(made, last):
    for job, alone in zip(made.jobs, made.alone, strict=True):
        measured = {name: value for name, value in alone.items() if not name.endswith("seconds")}
        told_of = {name: last[job.id].metrics[name] for name in measured}
        assert told_of == pytest.approx(measured, rel=0, abs=0, nan_ok=True)


def leaves(worker):
    with pytest.raises(SystemExit) as caught:
        to_the_end(worker)
    assert caught.value.code == faults.LEFT


def test_sigterm_and_the_drivers_wish_cost_no_step(made, monkeypatch):
    last = to_the_end(made.worker())
    same(made, last)
    whole = len(made.steps)
    made.steps.clear()

    before = signal.getsignal(signal.SIGTERM)
    made.during[5] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    leaves(made.worker())
    assert len(made.steps) == 6  # of both trials the third
    assert signal.getsignal(signal.SIGTERM) is before

    monkeypatch.setattr(told, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(told.ray_patches, "driver_stops", lambda: len(made.steps) >= 11)
    leaves(made.worker())
    assert len(made.steps) == 12

    monkeypatch.setattr(told.ray_patches, "driver_stops", lambda: False)
    same(made, to_the_end(made.worker()))
    assert len(made.steps) == whole


def test_twenty_random_preemptions_cost_no_step(made):
    same(made, to_the_end(made.worker()))
    whole = len(made.steps)
    made.steps.clear()
    moments = sorted(random.Random(0).sample(range(0, whole - 4, 2), 20))  # after a turn of both a worker is gone
    for moment in moments:
        made.during[moment] = lambda: os.kill(os.getpid(), signal.SIGTERM)
        leaves(made.worker())
        assert len(made.steps) == moment + 2
    same(made, to_the_end(made.worker()))
    assert len(made.steps) == whole


def test_what_a_worker_was_told_while_it_ended_one_job_holds_for_the_next(made):
    worker = made.worker()
    to_the_end(worker)
    worker.told.by_signal = True
    again = tune_dicts.to_config([made.jobs[0].changed(id="search-0007")])
    worker.setup = lambda config: type(worker).setup(worker, config, worker.references, worker.folders)
    worker.reset_config(again)
    leaves(worker)
