"""Sweeps under a real Ray on this machine: what is left in the run's folder, however trials end."""

import json
import os
from importlib.metadata import version

import pandas as pd
import pytest
import torch

from degan_search import ledger
from degan_search.ledger.columns import TRIAL_METRICS, config_of
from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from degan_search.system import device, weights_file
from degan_search.trial.inputs import prepare
from degan_search.trial.trial import run as run_trial
from tests.search.tiny_sweep import DIVERGES, SPACE, UNTRAINED, run_sweep, share


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


def test_the_referee_saw_each_epoch_of_the_final_run_alone(done, frame):
    said = ledger.curves(done.folder).dropna(subset="referee_test_accuracy")
    assert set(said["trial_id"]) == {"final-0000"}
    assert set(said["stage"]) == {"distill"}
    final = frame.loc["final-0000"]
    assert len(said) == 3  # after 30, 40 (the end of the first phase) and 60 steps
    assert final["test_accuracy"] in set(said["referee_test_accuracy"])  # of the epoch that was chosen without data
    assert final["referee_best_test_accuracy"] == said["referee_test_accuracy"].max()
    assert frame["referee_best_test_accuracy"].notna().sum() == 1


def test_the_folder_is_whole(done):
    assert space_file.load(str(done.folder / "space.yaml")) == schema.Space.model_validate(SPACE)
    about = json.loads((done.folder / "run.json").read_text())
    assert about["versions"]["optuna"]
    assert about["options"]["max_concurrent"] == 1
    for trial in ("search-0000", "final-0000"):
        names = {file.name for file in (done.folder / "trials" / trial).iterdir()}
        assert names == {"student.safetensors", "generator.safetensors", "early_generator.safetensors", "samples.png"}
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
    share(space, tmp_path / "runs" / "cache")
    ended = run_sweep(tmp_path, space, options=())
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert "1 trials, of which 0 pruned and 1 failed" in ended.out
    assert list(ledger.load(ended.folder)["state"]) == ["FAIL"]
    # Nothing but --max-concurrent leaves CPUs idle, so that the trial keeps to one, where Ray gives them all out.
    (told,) = ended.told.to_dict("records")
    assert len(told["cpus"]) == (1 if told["whole"] else len(os.sched_getaffinity(0)))
