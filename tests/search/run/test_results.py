"""Jobs and results between the worker and the driver: as Tune passes them on, as files, and with unknown names."""

import json
import math
from types import SimpleNamespace

import pytest

from degan_search.ledger.columns import Cause, Phase, Report, State
from degan_search.search.run import jobs, results, tune_dicts
from degan_search.search.run.results import Curve, End, TrialResult, Worker
from degan_search.search.workers import worker as worker_module
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig
from degan_search.storage import LocalPlace
from degan_search.system.errors import UserError
from degan_search.trial.bank import Bank, Compared
from degan_search.trial.outcome import Event


def made_jobs(count):
    config = TrialConfig(seed=7, proxy="digits")
    made = [jobs.new_job(Phase.FINAL, number, "a cell", config, "infomax") for number in range(3, 3 + count)]
    return [made[0].changed(attempt=2, faults=1), *made[1:]]


@pytest.mark.parametrize("count", [1, 3])
def test_jobs_come_back_from_tunes_dictionaries(count):
    given = made_jobs(count)
    plain = tune_dicts.to_config(given)
    assert json.loads(json.dumps(plain)) == plain
    assert list(tune_dicts.from_config(plain)) == given
    assert plain["id"] == "final-0003"


def test_job_files_keep_their_format(tmp_path):
    (one,) = made_jobs(1)
    found = json.loads(jobs.write(tmp_path, one).read_bytes())
    assert list(found) == ["job", "hash"]
    assert list(found["job"]) == [
        "id",
        "phase",
        "number",
        "cell",
        "chosen_by",
        "attempt",
        "faults",
        "referee",
        "held",
        "config",
    ]
    assert found["job"]["config"] == TrialConfig(seed=7, proxy="digits").model_dump(mode="json")
    assert found["hash"] == stable_hash(found["job"])
    assert jobs.read(tmp_path) == ({"final-0003": one}, [])


def test_only_a_final_run_has_a_referee(tmp_path):
    (one,) = made_jobs(1)
    asked = jobs.new_job(Phase.FINAL, 3, "a", one.config, referee=True)
    assert tune_dicts.from_config(tune_dicts.to_config([asked])) == (asked,)
    with pytest.raises(ValueError, match="only final runs see test images, and search-0003 is of phase search"):
        jobs.new_job(Phase.SEARCH, 3, "a", one.config, referee=True)


def test_a_job_of_another_version_is_told_of_and_passed_over(tmp_path):
    (one,) = made_jobs(1)
    file = jobs.write(tmp_path, one)
    other = json.loads(file.read_bytes())["job"]
    other["config"]["nosuch"] = 1
    file.write_text(json.dumps({"job": other, "hash": stable_hash(other)}))
    assert jobs.read(tmp_path) == ({}, [file])


def told(**changes):
    event = Event("gan", 3, 9, 2.5, 41, {"score": 0.25, "d_loss": 0.75, "agreement": 0.5})
    curve = Curve()
    curve.add(Event("gan", 1, 9, 1.5, 40, {"d_loss": 1.25, "coverage": 0.1}))
    curve.take_unsent()
    curve.add(Event("gan", 2, 9, 2.0, 40))  # measured nothing
    curve.add(event)
    teacher = SimpleNamespace(hash="abc", holdout_accuracy=0.875)
    end = End(State.FAIL, "a reason", Cause.DISK)
    one = results.result(made_jobs(1)[0], event, curve, Worker("cpu", 5, 100.5), teacher, "bfloat16", end)
    return one.model_copy(update=changes)


def test_a_result_says_what_the_event_measured_and_who_measured_it():
    one = told()
    expected = {
        "id": "final-0003",
        "score": 0.25,
        "gan_steps": 41,
        "state": "FAIL",
        "reason": "a reason",
        "cause": "disk",
    }
    expected |= {"reports_from": 1, "seconds": 2.5, "teacher_hash": "abc", "teacher_holdout_accuracy": 0.875}
    expected |= {"device": "cpu", "precision": "bfloat16", "threads": 5, "started": 100.5}
    expected |= {"metrics": {"score": 0.25, "d_loss": 0.75, "agreement": 0.5}}
    assert {name: getattr(one, name) for name in expected} == expected
    assert one.reports == (Report(budget=41, score=0.25, seconds=2.5, d_loss=0.75, stage="gan"),)
    assert one.provenance["versions"]
    assert one.finished > one.started


def test_results_come_back_from_tunes_dictionaries():
    given = [told(), told(id="other", score=math.nan, state=None, cause=None)]
    plain = tune_dicts.to_result(given, ["other"], 2)
    json.dumps(plain)
    assert plain["done"] is False
    assert (tune_dicts.running(plain), tune_dicts.runs_one_trial(plain)) == ({"other"}, False)
    back = tune_dicts.from_result(plain | {"training_iteration": 1, "config": {}})
    assert back[0] == given[0]
    assert math.isnan(back[1].score)
    assert back[1].model_copy(update={"score": 0.0}) == given[1].model_copy(update={"score": 0.0})
    ended = tune_dicts.to_result(given[:1], [], 1)
    assert (ended["done"], ended["score"], tune_dicts.runs_one_trial(ended)) == (True, 0.25, True)


def test_a_curve_goes_on_from_its_checkpoint():
    curve = Curve()
    for step, score in ((1, math.nan), (2, 0.5)):
        curve.add(Event("gan", step, 9, float(step), step, {"score": score, "g_loss": 0.1}))
    curve.take_unsent()
    again = Curve.of(curve.saved())
    assert repr(again.reports) == repr(curve.reports)
    assert again.at_rungs(["score", "multiply_adds"], {"multiply_adds": 7.0}) == {2: [0.5, 7.0]}
    assert (len(again.take_unsent()[1]), len(curve.take_unsent()[1])) == (2, 0)
    with pytest.raises(UserError, match="another version"):
        Curve.of([{"budget": 1, "score": 0.5, "seconds": 1.0, "nosuch": 2.0}])


class TestUnknownMetrics:
    """They are an error, wherever they come from."""

    def test_in_a_curve(self):
        with pytest.raises(UserError, match="unknown metric 'agrement'; did you mean agreement"):
            Curve().add(Event("gan", 1, 9, 1.0, 1, {"agrement": 0.5}))

    def test_in_a_result(self):
        with pytest.raises(ValueError, match="unknown metric 'agrement'"):
            TrialResult(id="a", gan_steps=1, metrics={"agrement": 0.5})

    def test_in_what_tune_passes_on(self):
        plain = tune_dicts.to_result([told()], [], 1)
        plain["results"][0]["metrics"]["agrement"] = 0.5
        with pytest.raises(UserError, match=r"a worker's result: metrics .*unknown metric 'agrement'"):
            tune_dicts.from_result(plain)

    def test_of_a_trial_it_fails_and_says_so(self, tiny, prepare, tmp_path, monkeypatch):
        config = tiny({"probe.at": []})
        inputs = prepare(config)
        spoilt = Compared({"novelty": 1.0, "balanced_soft_agreement": 0.5}, ())
        monkeypatch.setattr(Bank, "compare", lambda *given: spoilt)
        monkeypatch.setattr(worker_module.ray, "get_runtime_context", lambda: SimpleNamespace(get_accelerator_ids=dict))
        monkeypatch.setattr(worker_module, "fetch_inputs", lambda reference: inputs)
        worker = worker_module.DeganTrainable.__new__(worker_module.DeganTrainable)
        job = jobs.new_job(Phase.SEARCH, 0, "a", config)
        worker.setup(tune_dicts.to_config([job]), {worker_module.inputs_key(config): None}, LocalPlace(tmp_path))
        (last,) = tune_dicts.from_result(worker.step())
        assert (last.state, last.cause) == (State.FAIL, Cause.ERROR)
        assert last.reason.startswith("UserError: unknown metric 'novelty'")
