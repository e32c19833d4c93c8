"""A sweep that searches the proxy: one bank for all trials, choices across proxies, and going on after a cut."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import degan_search as ds
from degan_search import ledger
from degan_search.evaluation.across_trials import Competitor, agreements
from degan_search.evaluation.networks import load_generator, load_student
from degan_search.ledger.columns import config_of
from degan_search.search.suggest.asha import Rungs
from degan_search.settings.combine import trial_of
from degan_search.training.measures import predict
from degan_search.trial.bank import Bank
from degan_search.trial.inputs import prepare
from tests.search.tiny_sweep import SPACE, resume, sweep_here

NAMES = ["glyphs/[K-Z]", "photos", "noise/uniform"]
SEARCHED = {
    "trial": {
        **SPACE["trial"],
        "count": 60,
        "gan": {**SPACE["trial"]["gan"], "steps": 12},
        "probe": {"at": [0], "steps": 30, "batch_size": 16},
        "bank": {"proxy_images": 10, "generators": [[0, 0]], "generated_images": 10, "steps": 4},
    },
    "cells": {"method": ["degan"]},
    "parameters": {"proxy": NAMES, "gan.lambda_d": [0, 5]},
    "search": {"sampler": "grid"},
    "asha": {"reduction_factor": 2},
    "finals": {"seeds": [5], "combine": {"members": 2}},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return sweep_here(tmp_path_factory.mktemp("sweep"), SEARCHED, options=("--max-concurrent", "1", "--keep", "all"))


def rows_of(done):
    return ledger.load(done.folder).set_index("trial_id", drop=False)


def finished(done):
    frame = rows_of(done)
    return frame[(frame["phase"] == "search") & (frame["state"] == "COMPLETE")]


def test_every_score_is_on_the_same_images(done):
    rows, banks = finished(done), []
    assert rows["config_proxy"].nunique() > 1
    assert set(rows_of(done)["compared_on"]) == {", ".join(NAMES)}
    for name, row in rows.iterrows():
        config = config_of(row)
        inputs = prepare(config, None, done.cache)
        banks.append(inputs.bank.tobytes())
        assert (len(inputs.bank), inputs.bank_proxy_images) == (3 * (10 + 10), 3 * 10)
        images = torch.from_numpy(inputs.bank)
        bank = Bank(images, predict(inputs.teacher.model(), images), inputs.bank_proxy_images)
        measures = bank.compare(load_student(done.folder, name, config, 3)).measures
        assert measures["sure_agreement"] == pytest.approx(row["score"], abs=1e-6)
        assert measures["balanced_soft_agreement"] == pytest.approx(row["balanced_soft_agreement"], abs=1e-6)
    assert len(set(banks)) == 1


def test_agreement_across_trials_runs_over_all_proxies(done):
    rows = finished(done)
    inputs = prepare(config_of(rows.iloc[0]), None, done.cache)
    competitors = [
        Competitor(
            name,
            load_student(done.folder, name, config_of(row), 3),
            load_generator(done.folder, name, config_of(row)),
            8,
            0,
        )
        for name, row in rows.iterrows()
    ]
    held_out = torch.from_numpy(inputs.bank[: inputs.bank_proxy_images])
    for name, scores in agreements(competitors, held_out, inputs.teacher.model()).items():
        for measure in ("cross_soft_agreement", "own_agreement"):
            assert rows.loc[name, measure] == pytest.approx(scores[measure], abs=1e-6)


def test_a_proxy_may_fall_before_its_gan_begins(done):
    """The rung before the first step: equal for trials on one proxy, and what stops a trial is that alone."""
    curves, rows = ledger.curves(done.folder), rows_of(done)
    first = curves[(curves["budget"] == 0) & (curves["stage"] == "gan")].set_index("trial_id")["score"]
    search = rows[rows["phase"] == "search"]
    assert list(first.index) == list(search.index) and first.notna().all()
    assert (first.groupby(search["config_proxy"]).nunique() == 1).all()
    rungs = Rungs(2)
    stopped = [name for name, score in first.items() if rungs.record("all", 0, score)]
    assert stopped == list(search.index[search["state"] == "PRUNED"])
    assert (search.loc[stopped, "gan_steps"] == 0).all()


def test_the_best_is_chosen_across_proxies(done):
    rows, frame = finished(done), rows_of(done)
    best = rows.sort_values("score", ascending=False, kind="stable")
    (found,) = ds.open_run(done.folder).best(per="proxy").to_dict("records")
    assert (found["trial"], found["proxy"]) == (best.index[0], best["config_proxy"].iloc[0])
    alone, together = (config_of(row) for _, row in frame[frame["phase"] == "final"].iterrows())
    assert (alone.proxy, alone.gan.lambda_d) == (found["proxy"], best["config_gan_lambda_d"].iloc[0])
    assert [trial_of(name) for name in together.combine.members] == list(best.index[:2])
    assert (together.proxy, together.method) == (found["proxy"], "combined")
    assert alone.bank == together.bank == config_of(best.iloc[0]).bank


def test_the_table_tells_proxies_apart_and_says_which_was_chosen(done):
    tidy = pd.read_csv(done.folder / "table.csv")
    degan = tidy[tidy["method"] == "degan"].set_index("proxy")
    chosen = config_of(rows_of(done).loc["final-0000"]).proxy
    assert set(degan.index) == set(NAMES)
    assert set(degan["chosen_proxy"]) == {chosen}
    assert degan.loc[chosen, "measured_on"] == "test"
    assert (done.folder / "table.md").read_text().count("degan (chosen)") == 1
    assert (done.folder / "report.html").read_text().count("the chosen proxy") == 1


def test_cut_short_it_goes_on_to_the_same_choice(done):
    before = rows_of(done)
    bits = {file.parent.name: file.read_bytes() for file in done.folder.glob("trials/*/student.safetensors")}
    gone = [name for name in before.index if name.startswith("final") or name > "search-0002"]
    for name in gone:
        (done.folder / "ledger" / f"{name}-1.parquet").unlink()
        (done.folder / "jobs" / f"{name}.json").unlink()
        shutil.rmtree(done.folder / "trials" / name, ignore_errors=True)
    for file in done.folder.glob("scores/*.parquet"):
        file.unlink()
    resume(done.folder)
    after = rows_of(done)
    same = ["config_hash", "state", "score", "cross_soft_agreement", "test_accuracy"]
    pd.testing.assert_frame_equal(after[same], before.loc[after.index, same])
    assert len(after) == len(before)
    made = {file.parent.name: file.read_bytes() for file in done.folder.glob("trials/*/student.safetensors")}
    assert made == bits and np.isin(["final-0000", "final-0001"], list(made)).all()
