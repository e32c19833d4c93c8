"""Trials that take turns in one process: who goes with whom, who is stopped, and that the rows are the same."""

import io
import math
from types import SimpleNamespace

import pandas as pd
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import TRIAL_METRICS, config_of
from degan_search.search.remaining import final_jobs
from degan_search.search.run import jobs, tune_dicts
from degan_search.search.run.options import Options
from degan_search.search.run.results import TrialResult
from degan_search.search.space import cell as spaces
from degan_search.search.space import schema
from degan_search.search.suggest.asha import CellAsha, Rungs
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.search.sweep import sweep
from degan_search.search.workers import worker as worker_module
from degan_search.search.workers.slots import trials_per_process
from degan_search.settings.trial import TrialConfig
from degan_search.storage import LocalPlace
from degan_search.system import device
from degan_search.trial.inputs import inputs_key, prepare
from degan_search.trial.outcome import Event
from degan_search.trial.trial import run as run_trial
from tests.search.tiny_sweep import share

WEIGHTS = {"gan.lambda_e": [0, 1, 2, 30], "gan.lambda_d": [0, 5]}
FIRST = [{"gan.lambda_e": weight, "gan.lambda_d": 5} for weight in (0, 1, 2, 30)]
SPACE = {
    "trial": {
        "count": 120,
        "precision": "float32",
        "teacher": {
            "dataset": "glyphs/[A-C]",
            "count": 300,
            "network": "lenet",
            "width": 4,
            "fit": {"steps": 60, "steps_per_epoch": 30, "lr": 0.003},
        },
        "student": {"network": "lenet", "width": 4},
        "gan": {"width": 2, "latent": 8, "steps": 12, "batch_size": 16, "batch_of": "used", "lr": 0.002},
        "distill": {"steps": 12, "steps_per_epoch": 6, "score_images": 32, "pool": 64, "lr": 0.003},
        "distill_images": {"steps": 12, "steps_per_epoch": 6, "batch_size": 16, "batch_of": "used"},
        "probe": {"at": [6, 9], "steps": 6, "batch_size": 16},
        "bank": {"proxy_images": 40, "generators": [[0, 0]], "generated_images": 40},
    },
    "cells": {"proxy": ["digits"], "method": ["proxy", "degan"]},
    "when": [{"if": {"method": "degan"}, "parameters": WEIGHTS}],
    "first": FIRST,
    "search": {"trials": 4},
    "asha": {"reduction_factor": 2},
    "finals": {"seeds": [5, 6], "combine": None},
}


def searcher(per_process=lambda config: 3, **changes):
    return CellSearcher(spaces.cells(schema.Space.model_validate(SPACE | changes)), per_process=per_process)


def names(given):
    return [one.id for one in tune_dicts.from_config(given)]


def test_trials_of_a_cell_go_together_and_the_rest_alone():
    given = searcher()
    first, second = given.suggest("a"), given.suggest("b")
    assert (names(first), names(second)) == (["search-0000", "search-0001", "search-0002"], ["search-0003"])
    assert "pack" not in second
    assert given.suggest("c") is None  # those that run may come back
    given.on_trial_complete("a")
    given.on_trial_complete("b")
    assert given.suggest("c") == Searcher.FINISHED


def test_cells_are_not_mixed():
    proxies = {"proxy": ["digits", "photos"], "method": ["degan"]}
    given = searcher(cells=proxies)
    assert [one.cell for one in tune_dicts.from_config(given.suggest("a"))] == ["proxy=digits method=degan"] * 3
    assert [one.cell for one in tune_dicts.from_config(given.suggest("b"))] == ["proxy=photos method=degan"] * 3
    assert [one.cell for one in tune_dicts.from_config(given.suggest("c"))] == ["proxy=digits method=degan"]


def test_sizes_are_not_mixed_and_what_does_not_fit_comes_next():
    wider = {"gan.width": [2, 4], "gan.lambda_d": {"range": [0, 5]}}
    points = [{"gan.width": width, "gan.lambda_d": 1 + number} for number, width in enumerate((2, 2, 4, 4))]
    when = [{"if": {"method": "degan"}, "parameters": wider}]
    given = searcher(when=when, first=points)
    packs = [names(given.suggest(name)) for name in "ab"]
    assert packs == [["search-0000", "search-0001"], ["search-0002", "search-0003"]]


def test_a_job_that_a_fault_cut_short_runs_alone():
    given = searcher()
    first = given.suggest("a")
    given.on_trial_complete("a")
    for one in tune_dicts.from_config(first):
        given.retry(one, 0)
    assert [names(given.suggest(name)) for name in "bcd"] == [["search-0000"], ["search-0001"], ["search-0002"]]


def test_final_runs_of_a_cell_that_differ_in_the_seed_go_together(tmp_path):
    cells = spaces.cells(schema.Space.model_validate(SPACE))
    row = {"trial_id": "t", "phase": "search", "cell": cells[1].label, "state": "COMPLETE", "score": 0.5}
    config = cells[1].example()
    row |= {"config_json": config.model_dump_json(), "config_objective": config.objective, "cross_soft_agreement": 0.5}
    finals = final_jobs(cells, pd.DataFrame([row]), schema.FinalsConfig(seeds=[5, 6], combine=None), tmp_path)
    given = GivenJobs(finals, per_process=lambda config: 8)
    packs = [tune_dicts.from_config(given.suggest(name)) for name in "ab"]
    assert [[one.cell.split("=")[-1] for one in pack] for pack in packs] == [["proxy", "proxy"], ["degan", "degan"]]
    assert [[one.config.seed for one in pack] for pack in packs] == [[5, 6], [5, 6]]


class Actor:
    """A worker that is told whom to drop."""

    def __init__(self):
        self.dropped = []
        self.drop = SimpleNamespace(remote=self.dropped.extend)


def packed(*numbers):
    made = [jobs.new_job("search", number, "a", TrialConfig()) for number in numbers]
    return SimpleNamespace(config=tune_dicts.to_config(made), temporary_state=SimpleNamespace(ray_actor=Actor()))


def told(running, **scores):
    pack = [TrialResult(id=f"search-000{name[1:]}", score=score, gan_steps=10) for name, score in scores.items()]
    return tune_dicts.to_result(pack, [f"search-000{number}" for number in running], len(running))


def test_a_rung_stops_some_of_a_pack_and_ends_it_with_the_last():
    scheduler, trial = CellAsha(Rungs(2)), packed(0, 1, 2)
    assert scheduler.on_trial_result(None, trial, told((0, 1, 2), m0=0.5, m1=0.1, m2=0.9)) == TrialScheduler.CONTINUE
    assert trial.temporary_state.ray_actor.dropped == ["search-0001"] == list(scheduler.reasons)
    later = packed(3, 4)
    assert scheduler.on_trial_result(None, later, told((3, 4), m3=0.1, m4=0.2)) == TrialScheduler.STOP
    assert later.temporary_state.ray_actor.dropped == []


@pytest.mark.parametrize(
    ("options", "changes", "count"),
    [
        (Options(), {}, 1),
        (Options(fuse=3), {}, 3),
        (Options(gpus_per_trial=1), {"proxy": "cifar100/background_6"}, 8),
        (Options(gpus_per_trial=1), {"proxy": "cifar100/related_90"}, 1),
        (Options(gpus_per_trial=1), {"gan": {"batch_size": 512, "batch_of": "used"}}, 2),
    ],
)
def test_a_gpu_gets_as_many_as_keep_it_busy_and_a_cpu_one(options, changes, count):
    assert trials_per_process(options, TrialConfig.model_validate(changes)) == count


def test_what_a_worker_leaves_of_a_pack_goes_on_alone(tiny, prepare, tmp_path, monkeypatch):
    """A worker that is lost after a rung leaves each trial's checkpoints; from them each ends as if nobody cut it."""
    configs = [tiny({"probe.at": [3, 6], "gan.lr": 1e-3, "seed": seed}) for seed in (1, 2)]
    inputs = prepare(configs[0])
    context = SimpleNamespace(get_accelerator_ids=dict)
    monkeypatch.setattr(worker_module.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(worker_module, "fetch_inputs", lambda reference: inputs)
    made = [jobs.new_job("search", number, "a", config) for number, config in enumerate(configs)]

    def worker(*some):
        one = worker_module.DeganTrainable.__new__(worker_module.DeganTrainable)
        references = {inputs_key(configs[0]): None}
        one.setup(tune_dicts.to_config(some), references, LocalPlace(tmp_path), checkpoint_every=0)
        return one

    lost = worker(*made)
    for _ in range(2):
        told = lost.step()
    assert [result.id for result in tune_dicts.from_result(told)] == ["search-0000", "search-0001"]
    for config, one in zip(configs, made, strict=True):
        again = worker(one)
        result = None
        while result is None or result.state is None:
            (result,) = tune_dicts.from_result(again.step())
        alone = run_trial(config, inputs).metrics
        assert again.trials[one.id].begun < again.begun  # it went on
        measured = {name: value for name, value in alone.items() if not name.endswith("seconds")}
        assert {name: result.metrics[name] for name in measured} == pytest.approx(measured, rel=0, abs=0, nan_ok=True)
        assert [report.budget for report in again.curves[one.id].reports].count(3) == 1


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep whose search trials run three in a process, its final runs of one cell two."""
    storage, out = tmp_path_factory.mktemp("packs"), io.StringIO()
    space = schema.Space.model_validate(SPACE)
    share(SPACE, storage / "cache")
    folder = sweep(
        space, Options(storage=storage, name="packs", fuse=3, max_concurrent=1, keep=None), Console(file=out)
    )
    return folder, ledger.load(folder).set_index("trial_id"), ledger.curves(folder)


def test_each_trial_has_its_row_its_curve_and_its_files(done):
    folder, rows, curves = done
    assert sorted(rows.index) == [f"final-000{n}" for n in range(4)] + [f"search-000{n}" for n in range(4)]
    searched = rows[rows["phase"] == "search"].sort_index()
    assert [*searched["config_gan_lambda_e"]] == [0, 1, 2, 30]
    assert set(searched["state"]) <= {"COMPLETE", "PRUNED"}
    for name, row in rows.iterrows():
        own = curves[curves["trial_id"] == name]
        ended = row["state"] == "COMPLETE"
        assert (own["stage"].iloc[-1] == "done") == ended
        assert own["seconds"].is_monotonic_increasing
        assert (folder / "trials" / str(name) / "student.safetensors").exists() == ended
        if not ended:
            assert row["reason"].startswith("stopped early: score")
            assert row["gan_steps"] == own["budget"].max()
            assert row["gan_steps"] in (6, 9)


def test_rows_are_those_of_the_trials_alone(done):
    folder, rows, curves = done
    early = curves[curves["budget"] <= 3].groupby("trial_id")["g_loss"].apply(tuple)
    assert early.loc[early.index.str.startswith("search")].nunique() == 4  # so that a row of another would show
    device.set_up_torch(1)
    for name in ("search-0000", "search-0001", "search-0002", "search-0003", "final-0003"):
        row = rows.loc[name]
        config = config_of({**row, "trial_id": name})
        inputs = prepare(config, None, folder.parent / "cache")
        events = list[Event]()
        run_trial(config, inputs, events.append)
        measured = [event for event in events if event.metrics]
        own = curves[curves["trial_id"] == name]
        kept = measured[: len(own)]
        assert [*own["budget"]] == [event.gan_steps for event in kept]
        assert [*own["stage"]] == [event.stage for event in kept]
        for column in ("d_loss", "g_loss", "entropy", "score"):
            alone = [event.metrics.get(column, math.nan) for event in kept]
            assert [*own[column].astype(float)] == pytest.approx(alone, rel=0, abs=0, nan_ok=True)
        if row["state"] == "COMPLETE":
            last = {column: row[column] for column in TRIAL_METRICS if column in measured[-1].metrics}
            timed = ("seconds", "gan_seconds", "distill_seconds")
            for column in set(last) - set(timed):
                assert last[column] == pytest.approx(measured[-1].metrics[column], rel=0, abs=0, nan_ok=True), column
