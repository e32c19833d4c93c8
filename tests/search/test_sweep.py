"""Sweeps under a real Ray on this machine: what is left in the run's folder, however trials end."""

import io
import json
import math
import os
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import TRIAL_METRICS, Phase, config_of
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.remaining import final_jobs
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import new_job
from degan_search.search.run.options import Options
from degan_search.search.run.results import TrialResult
from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.search.workers.slots import fill, slots
from degan_search.settings.trial import TrialConfig
from degan_search.system import device, weights_file
from degan_search.system.errors import UserError
from degan_search.trial.inputs import prepare
from degan_search.trial.trial import run as run_trial

GOOD = {"gan.lr": 0.002, "probe.lr": 0.003, "distill.lr": 0.003}
UNTRAINED, DIVERGES = 1e-9, 10
SPACE = {
    "trial": {
        "count": 200,
        "teacher": {
            "dataset": "glyphs/[A-C]",
            "count": 300,
            "network": "lenet",
            "width": 4,
            "fit": {"steps": 100, "steps_per_epoch": 25, "lr": 0.003},
        },
        "student": {"network": "lenet", "width": 4},
        "gan": {"width": 2, "latent": 8, "steps": 61, "batch_size": 16, "batch_of": "used"},
        "distill": {"steps": 60, "steps_per_epoch": 30, "score_images": 64, "pool": 128, "lr": 0.003},
        "probe": {"at": [60], "steps": 200, "batch_size": 32},
        "bank": {"proxy_images": 40, "generators": [[0, 0]], "generated_images": 40},
    },
    "cells": {"proxy": ["glyphs/[K-Z]"], "method": ["degan"]},
    "parameters": {"gan.lr": [0.002, DIVERGES], "probe.lr": [0.003, UNTRAINED], "distill.lr": [0.003, 0.002]},
    # In one slot and in this order: a trial that ends, one whose probe is far worse, one that diverges, and
    # one as good as the first, whose files cannot be saved.
    "first": [GOOD, {**GOOD, "probe.lr": UNTRAINED}, {**GOOD, "gan.lr": DIVERGES}, {**GOOD, "distill.lr": 0.002}],
    "search": {"trials": 4},
    "asha": {"reduction_factor": 2},
    "finals": {"seeds": [5]},
}
# The command, whose workers say after each step in which process they are and what it may use. They take CPUs under a
# name that no other sweep on this machine uses: whether a worker finds one free shall not depend on those.
MAIN = """
import json, os
from degan_search.cli.main import main
from degan_search.search import phase
from degan_search.search.workers import worker
from degan_search.system import cpus

class Telling(phase.DeganTrainable):
    def setup(self, *given, **named):
        cpus.CPU_NAME = os.environ["CPU_NAME"]
        super().setup(*given, **named)

    def step(self):
        result = super().step()
        about = {"trial": self.job.id, "process": os.getpid(), "inputs": id(self.inputs), "niceness": os.nice(0)}
        about |= {"cpus": sorted(os.sched_getaffinity(0)), "whole": worker.all_cpus_are_rays()}
        with open(os.environ["TOLD"], "a") as file:
            file.write(json.dumps(about) + "\\n")
        return result

phase.DeganTrainable = Telling
main()
"""


def run_sweep(folder, space, spoil=None, options=("--max-concurrent", "1")):
    """Run the command; `spoil` is called with the run's folder at the first line, before any trial starts."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(space, sort_keys=False))
    command = [sys.executable, "-c", MAIN, "sweep", str(file), "--storage", str(folder / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "TOLD": str(folder / "told")}
    environment["CPU_NAME"] = f"degan-search/test/{os.getpid()}"
    with (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        )
        assert process.stdout
        lines = [process.stdout.readline()]
        if spoil and lines[0]:
            spoil(folder / "runs" / "tiny")
        lines += process.stdout.readlines()
        code = process.wait(60)
        stderr.seek(0)
        return SimpleNamespace(
            code=code,
            out="".join(lines),
            err=stderr.read(),
            told=pd.read_json(folder / "told", lines=True),
            folder=folder / "runs" / "tiny",
            cache=folder / "runs/cache",
        )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    def spoil(folder):
        (folder / "trials").mkdir()
        (folder / "trials" / "search-0003").write_text("in the way")

    return run_sweep(tmp_path_factory.mktemp("sweep"), SPACE, spoil)


@pytest.fixture(scope="module")
def frame(done):
    assert done.code == 1, done.err + done.out
    return ledger.load(done.folder).set_index("trial_id")


def test_it_ends_well_and_says_where_and_how_to_go_on(done):
    assert done.code == 1, done.err  # as a trial's result is missing
    assert "1 trials failed by a fault, such as search-0003 (FileExistsError" in done.err
    assert f"`degan-search resume {done.folder} --retry-failed`" in done.err
    assert "Traceback" not in done.out + done.err
    results, last = done.out.strip().splitlines()[-2:]
    assert results.startswith(f"Results: {done.folder} ")
    assert results.endswith(f"Table again: degan-search table {done.folder}")
    assert last == f"Everything to look at: {done.folder / 'report.html'}"
    assert "search-0000" in (done.folder / "report.html").read_text()


def test_it_shows_how_it_stands(done):
    assert "held-out accuracy" in done.out
    assert "Search: 4 done, 0 running, 1 stopped early, 2 failed, best score" in done.out
    assert "Final: 1 done" in done.out


def test_one_row_a_trial_with_state_and_reason(frame):
    ends = [("search-0000", "COMPLETE"), ("search-0001", "PRUNED"), ("search-0002", "FAIL"), ("search-0003", "FAIL")]
    assert dict(frame["state"]) == dict([*ends, ("final-0000", "COMPLETE")])
    assert frame.loc[["search-0000", "final-0000"], "reason"].isna().all()
    assert frame.loc["search-0001", "reason"].startswith("stopped early: score 0.")
    assert "GAN step 60" in frame.loc["search-0001", "reason"]
    assert frame.loc["search-0002", "reason"].startswith("gan: ")
    assert "FileExistsError" in frame.loc["search-0003", "reason"]
    assert "search-0003" in frame.loc["search-0003", "reason"]


def test_rows_are_filled(frame):
    # A failed trial has no score.
    always = ["phase", "cell", "number", "config_hash", "config_json", "started", "finished", "seconds", "threads"]
    always += ["device", "precision", "teacher_hash", "teacher_holdout_accuracy", "gan_steps", "schema_version"]
    assert frame[always].notna().all(axis=None), frame[always].isna().sum()
    assert (frame["finished"] >= frame["started"]).all()
    assert list(frame.sort_index()["number"]) == [0, 0, 1, 2, 3]
    assert frame["score"].isna().to_dict() == {name: name in ("search-0002", "search-0003") for name in frame.index}
    complete = frame[frame["state"] == "COMPLETE"]
    measured = [*TRIAL_METRICS, "distill_steps", "host", "versions", "hardware", "oracle_accuracy"]
    measured.remove("bn_distance")  # a LeNet has no BatchNorm
    assert complete[measured].notna().all(axis=None), complete[measured].isna().sum()
    assert complete["bn_distance"].isna().all()
    searched = complete[complete["phase"] == "search"]
    assert searched[["cross_agreement", "cross_soft_agreement", "own_agreement"]].notna().all(axis=None)
    assert complete["oracle_accuracy"].to_numpy() == pytest.approx(
        complete[["oracle_half_1", "oracle_half_2"]].mean(axis=1).to_numpy(), abs=0.02
    )
    assert frame["chosen_by"].dropna().to_dict() == {"final-0000": "cross_soft_agreement"}
    assert (complete["score"] == complete["balanced_soft_agreement"]).all()
    assert (complete["gan_steps"] == 61).all()
    assert (complete["distill_steps"] == 60).all()
    assert complete["score"].between(0, 1).all()
    assert json.loads(complete["versions"].iloc[0])["torch"] == version("torch")


def test_columns_hold_the_configuration_that_ran(frame):
    for name, row in frame.iterrows():
        config = config_of({**row, "trial_id": name})
        assert row["config_gan_lr"] == config.gan.lr == (DIVERGES if name == "search-0002" else 0.002)
        assert row["config_probe_lr"] == (UNTRAINED if name == "search-0001" else 0.003)
        assert row["config_seed"] == (5 if row["phase"] == "final" else 0)
        assert row["cell"] == "proxy=glyphs/[K-Z] method=degan"


def test_the_final_is_the_searchs_best_with_another_seed(frame):
    best, final = (config_of({**frame.loc[name], "trial_id": name}) for name in ("search-0000", "final-0000"))
    probe = best.probe.model_copy(update={"at": ()})
    assert final == best.model_copy(update={"seed": 5, "probe": probe})


def test_curves(done):
    curves = ledger.curves(done.folder)
    counts = curves.groupby("trial_id").size()
    assert counts["search-0000"] > 50
    whole = curves[curves["trial_id"] == "search-0000"]
    assert whole["budget"].is_monotonic_increasing
    assert whole["seconds"].is_monotonic_increasing
    assert whole.loc[whole["budget"] == 60, "score"].notna().any()
    assert whole["stage"].iloc[-1] == "done"
    assert whole["d_loss"].notna().sum() > 50
    # Stopped at its rung, so that is the last it says.
    assert curves.loc[curves["trial_id"] == "search-0001", "budget"].max() == 60


def test_oracle_accuracy_for_all_that_ended_test_accuracy_for_finals_alone(frame):
    ended = frame["state"] == "COMPLETE"
    assert list(frame["oracle_accuracy"].notna()) == list(ended)
    assert list(frame["test_accuracy"].notna()) == list(frame["phase"] == "final")
    assert (frame.loc[ended, "n_oracle"] == 60).all()
    assert frame.loc[ended, "teacher_oracle_accuracy"].to_list() == pytest.approx(
        frame.loc[ended, "teacher_holdout_accuracy"].to_list()
    )


def test_the_folder_is_whole(done):
    assert space_file.load(str(done.folder / "space.yaml")) == schema.Space.model_validate(SPACE)
    about = json.loads((done.folder / "run.json").read_text())
    assert about["versions"]["optuna"]
    assert about["options"]["max_concurrent"] == 1
    for trial in ("search-0000", "final-0000"):
        names = {file.name for file in (done.folder / "trials" / trial).iterdir()}
        assert names == {"student.safetensors", "generator.safetensors", "samples.png"}
    tidy = pd.read_csv(done.folder / "table.csv")
    assert tidy[["proxy", "method", "n", "trials", "pruned", "failed"]].to_numpy().tolist() == [
        ["glyphs/[K-Z]", "degan", 1, 5, 1, 2]
    ]
    assert "degan" in (done.folder / "table.md").read_text()


def test_the_same_trial_without_ray_gives_the_same_bits(done, frame):
    config = config_of({**frame.loc["search-0000"], "trial_id": "search-0000"})
    device.set_up_torch(1)
    inputs = prepare(config, None, done.cache)
    assert inputs.teacher.hash == frame.loc["search-0000", "teacher_hash"]
    outcome = run_trial(config, inputs)
    assert outcome.metrics["score"] == frame.loc["search-0000", "score"]
    for name, model in (("student", outcome.student), ("generator", outcome.generator)):
        file = done.folder / "trials" / "search-0000" / f"{name}.safetensors"
        saved = weights_file.read_tensors(file.read_bytes(), name)
        made = model.state_dict()
        assert saved.keys() == made.keys()
        assert all(torch.equal(saved[key], made[key]) for key in saved)


def test_a_slot_is_one_process_with_one_copy_of_the_inputs_no_nicer_than_the_command(done):
    search = done.told[done.told["trial"].str.startswith("search")]
    assert search["trial"].nunique() == 4
    assert search["process"].nunique() == search["inputs"].nunique() == 1
    assert set(done.told["niceness"]) == {os.nice(0)}


def test_when_every_trial_fails_the_sweep_still_ends_well(tmp_path):
    trial = {**SPACE["trial"], "bank": {"proxy_images": 40}}
    space = {**SPACE, "trial": trial, "parameters": {"gan.lr": [DIVERGES]}, "first": [], "search": {"trials": 1}}
    ended = run_sweep(tmp_path, space, options=())
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert "1 trials, of which 0 pruned and 1 failed" in ended.out
    assert list(ledger.load(ended.folder)["state"]) == ["FAIL"]
    # Nothing but --max-concurrent leaves CPUs idle, so that the trial keeps to one, where Ray gives them all out.
    (told,) = ended.told.to_dict("records")
    assert len(told["cpus"]) == (1 if told["whole"] else len(os.sched_getaffinity(0)))


def ended_trial(number=0, error_file=None, **result):
    work = new_job(Phase.SEARCH, number, "all", TrialConfig())
    last = {"score": 0.5, "budget": 10, "state": "COMPLETE", "reports": [{"budget": 10, "score": 0.5, "seconds": 1.0}]}
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


@pytest.mark.parametrize(
    ("by", "column", "written"),
    [
        (None, "cross_soft_agreement", "cross_soft_agreement"),
        (None, "score", "score"),  # no trial has an agreement across trials
        ("score", "score", "score"),
        ("infomax", "infomax", "infomax"),
    ],
)
def test_finals_are_each_cells_choice(by, column, written):
    settings = {"cells": {"proxy": ["digits", "photos"]}, "parameters": {"gan.lambda_d": [1, 2]}}
    cells = spaces.cells(schema.Space.model_validate(settings))
    nothing = dict.fromkeys(("score", "cross_soft_agreement", "infomax"), math.nan)
    rows = []
    for cell, weight, score, state in [
        (0, 1.0, 0.4, "COMPLETE"),
        (0, 2.0, 0.6, "COMPLETE"),
        (0, 1.0, 0.9, "PRUNED"),
        (0, 1.0, math.nan, "COMPLETE"),
        (1, 1.0, 0.9, "FAIL"),
    ]:
        config = cells[cell].example()
        config = config.model_copy(update={"gan": config.gan.model_copy(update={"lambda_d": weight})})
        known = nothing | {"trial_id": "t", "config_json": config.model_dump_json(), "config_objective": "agreement"}
        rows.append(known | {"phase": "search", "cell": cells[cell].label, column: score, "state": state})
    jobs = final_jobs(cells, pd.DataFrame(rows), schema.FinalsConfig(seeds=[7, 8], by=by))
    assert {one.chosen_by for one in jobs} == {written}
    assert [(one.cell, one.config.seed, one.config.gan.lambda_d) for one in jobs] == [
        ("proxy=digits", 7, 2.0),
        ("proxy=digits", 8, 2.0),
    ]


@pytest.mark.parametrize(
    ("options", "resources", "fit"),
    [
        ({}, {"CPU": 2}, 2),
        ({"cpus_per_trial": 2}, {"CPU": 5.0}, 2),
        ({"gpus_per_trial": 0.25}, {"CPU": 8, "GPU": 1}, 4),
        ({"gpus_per_trial": 0.25}, {"CPU": 3, "GPU": 1}, 3),
        ({"max_concurrent": 1}, {"CPU": 8}, 1),
        ({"cpus_per_trial": 3}, {"CPU": 2}, None),
        ({"gpus_per_trial": 1}, {"CPU": 2}, None),
        ({"gpus_per_trial": 0.5, "max_concurrent": 1}, {"CPU": 2, "GPU": 0}, None),
    ],
)
def test_slots(options, resources, fit):
    if fit is not None:
        assert slots(Options(**options), resources) == fit
    else:
        with pytest.raises(UserError, match="a trial needs"):
            slots(Options(**options), resources)


@pytest.mark.parametrize(
    ("options", "resources", "full"),
    [
        ({}, {"CPU": 2}, True),
        ({"max_concurrent": 2}, {"CPU": 2}, True),
        ({"max_concurrent": 1}, {"CPU": 2}, False),
        ({"cpus_per_trial": 2, "max_concurrent": 1}, {"CPU": 3}, True),
        ({"gpus_per_trial": 0.5, "max_concurrent": 2}, {"CPU": 8, "GPU": 1}, True),
    ],
)
def test_whether_trials_take_everything(options, resources, full):
    assert fill(Options(**options), resources) == full
