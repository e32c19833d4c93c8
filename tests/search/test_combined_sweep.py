"""A sweep that repeats its best trial and whose finals combine the best generators: rows, files, table, cut trials."""

import hashlib

import pandas as pd
import pytest
import torch

import degan_search as ds
from degan_search import ledger
from degan_search.ledger.columns import config_of
from degan_search.products.images import Order, generate
from degan_search.products.student_file import check, export_student
from degan_search.search.run import jobs
from degan_search.search.run.results import Curve
from degan_search.search.workers import checkpoints
from degan_search.storage import LocalPlace
from degan_search.system import device
from degan_search.trial.inputs import prepare
from degan_search.trial.members import read_members
from degan_search.trial.trial import Trial
from tests.search.tiny_sweep import SPACE, resume, sweep_here

COMBINED = {
    **SPACE,
    "trial": {**SPACE["trial"], "probe": {"at": []}},
    "parameters": {"gan.lambda_e": [0, 1, 2]},
    "first": [],
    "search": {"sampler": "grid", "repeats": 2},
    "asha": None,
    "finals": {"seeds": [5], "combine": {"members": 2, "balance": True, "share": 0.25}},
}
NAME = "final-0001"
REPEATS = ["repeat-0000", "repeat-0001"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return sweep_here(tmp_path_factory.mktemp("sweep"), COMBINED, options=("--max-concurrent", "1", "--keep", "1"))


@pytest.fixture(scope="module")
def rows(done):
    return ledger.load(done.folder).set_index("trial_id", drop=False)


def file_of(folder, trial_id, network="generator"):
    return folder / "trials" / trial_id / f"{network}.safetensors"


def test_the_best_trial_is_repeated_from_its_own_generator(done, rows):
    assert list(rows.index[rows["phase"] == "repeat"]) == REPEATS
    search, repeats = rows[rows["phase"] == "search"], rows.loc[REPEATS]
    best = search["cross_soft_agreement"].idxmax()
    own = hashlib.sha256(file_of(done.folder, best).read_bytes()).hexdigest()[:16]
    assert [list(names) for names in repeats["config_combine_members"]] == 2 * [[f"{best}@{own}"]]
    for column in ("cell", "config_method", "config_gan_lambda_e", "compared_on"):
        assert set(repeats[column]) == {rows.loc[best, column]}
    assert repeats["config_seed"].nunique() == 2 and set(repeats["chosen_by"]) == {"cross_soft_agreement"}
    assert (repeats["distill_steps"] == 60).all() and (repeats["gan_steps"] == 0).all()
    assert repeats[["score", "oracle_accuracy", "cross_soft_agreement"]].notna().all(axis=None)
    assert repeats["test_accuracy"].isna().all()
    assert not any(
        file_of(done.folder, name, network).is_file() for name in REPEATS for network in ("student", "generator")
    )
    (chosen,) = ds.open_run(done.folder).best().to_dict("records")
    values = [rows.loc[name, "cross_soft_agreement"] for name in (best, *REPEATS)]
    assert (chosen["trial"], chosen["seeds"]) == (best, 3)
    assert chosen["cross_soft_agreement"] == pytest.approx(sum(values) / 3)
    assert 0 < chosen["ahead"] < 1
    assert "Repeat: 2 done" in done.out


def test_its_row_names_the_best_generators_and_their_hashes(done, rows):
    assert list(rows.index[rows["phase"] == "final"]) == ["final-0000", NAME]
    search = rows[rows["phase"] == "search"].sort_values("cross_soft_agreement", ascending=False)
    best, row = list(search.index[:2]), rows.loc[NAME]
    hashes = [hashlib.sha256(file_of(done.folder, name).read_bytes()).hexdigest()[:16] for name in best]
    assert list(row["config_combine_members"]) == [f"{name}@{own}" for name, own in zip(best, hashes, strict=True)]
    about = (row["state"], row["config_method"], row["cell"], row["chosen_by"])
    assert about == ("COMPLETE", "combined", "proxy=glyphs/[K-Z] method=combined", "cross_soft_agreement")
    config, first = config_of(row), config_of(rows.loc[best[0]])
    assert (config.combine.balance, config.distill.mix_proxy, config.seed) == (True, 0.25, 5)
    same = {"proxy", "count", "teacher", "student", "bank", "objective"}
    assert config.model_dump(include=same) == first.model_dump(include=same)
    assert row["distill_steps"] == rows.loc["final-0000", "distill_steps"] == 60
    assert row["gan_steps"] == 0
    assert row[["score", "oracle_accuracy", "test_accuracy"]].notna().all()
    assert (
        rows.loc["final-0000", "config_combine_members"] is None
        or len(rows.loc["final-0000", "config_combine_members"]) == 0
    )


def test_what_was_combined_is_kept_whatever_keep_says(done, rows):
    kept = {name for name in rows.index if file_of(done.folder, name).is_file()}
    assert {name.partition("@")[0] for name in rows.loc[NAME, "config_combine_members"]} <= kept
    assert len(kept) < len(rows)


def test_it_is_a_row_of_the_table_and_of_the_plan(done, rows):
    tidy = pd.read_csv(done.folder / "table.csv").set_index("method")
    assert tidy.loc["combined", ["n", "trials", "measured_on"]].tolist() == [1, 1, "test"]
    assert tidy.loc["combined", "ours"] == pytest.approx(100 * rows.loc[NAME, "test_accuracy"])
    assert tidy.loc["combined", "chosen_by"] == "data-free: cross_soft_agreement"
    assert "combined" in (done.folder / "report.html").read_text()
    assert "Final: 2 done" in done.out


def test_its_student_is_exported_and_its_mixture_draws(done, tmp_path):
    export_student(done.folder, NAME, tmp_path / "student.pt2")
    assert check(tmp_path / "student.pt2").passes
    made = generate(done.folder, NAME, Order(6, "npz"), tmp_path / "made.npz", done.cache.parent)
    assert sum(made.counts.values()) == 6
    run = ds.open_run(done.folder)
    assert run.student(NAME)(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    assert len(run.generator(NAME).members) == 4
    assert run.generator(NAME)(torch.randn(3, 8)).shape == (3, 1, 32, 32)


def test_cut_short_it_goes_on_from_its_checkpoint_with_the_same_bits(done, rows):
    """The row is taken away, and a checkpoint put there as if the sweep had been killed."""
    student = file_of(done.folder, NAME, "student")
    before, score = student.read_bytes(), rows.loc[NAME, "score"]
    place, config = LocalPlace(done.folder / "trials"), config_of(rows.loc[NAME])
    device.set_up_torch(1)
    trial = Trial(config, prepare(config, None, done.cache), "cpu", read_members(place, config.combine))
    for _ in range(25):
        trial.step()
    long = {"trial": trial.state_dict() | {"seconds": 5000.0}, "reports": Curve().saved()}
    repeated = rows.loc[REPEATS[1], ["score", "config_hash"]].tolist()
    (done.folder / "ledger" / f"{REPEATS[1]}-1.parquet").unlink()
    for file in (done.folder / "ledger" / f"{NAME}-1.parquet", done.folder / "scores" / f"{NAME}.parquet", student):
        file.unlink()
    checkpoints.save(place.at(NAME), long)
    assert jobs.read(done.folder)[0][NAME].config == config
    resume(done.folder)
    after = ledger.load(done.folder).set_index("trial_id")
    assert set(after.index) == set(rows.index)
    assert after.loc[REPEATS[1], ["score", "config_hash"]].tolist() == repeated
    row = after.loc[NAME]
    assert row["seconds"] > 5000  # it was the checkpoint that went on
    assert student.read_bytes() == before
    assert row["score"] == score
