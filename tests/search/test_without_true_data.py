"""A sweep whose teacher has no true data, under a real Ray: from the teacher's file to table, report and products."""

import json
import re

import numpy as np
import pytest
from safetensors.torch import save_file

from degan_search import ledger
from degan_search.networks.table import build_classifier
from degan_search.system import seeds
from tests.cli.calls import call, refused
from tests.search.tiny_sweep import SPACE, sweep_here

SHARED = {key: value for key, value in SPACE["trial"].items() if key not in ("teacher", "probe")}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    with seeds.seeded(0, "teacher"):
        save_file(build_classifier("lenet", 3, 4).state_dict(), folder / "teacher.safetensors")
    (folder / "names.txt").write_text("ant\nbee\ncat\n")
    teacher = {"path": str(folder / "teacher.safetensors"), "network": "lenet", "width": 4}
    teacher |= {"classes": str(folder / "names.txt"), "check": "glyphs/[A-C]"}
    few = {"steps": 20, "batch_size": 16, "batch_of": "used"}
    space = {
        "trial": SHARED | {"teacher": teacher, "count": 60, "distill_images": few},
        "cells": {"proxy": ["photos"], "method": ["proxy", "degan"]},
        "when": [{"if": {"method": "degan"}, "parameters": {"gan.lambda_e": [0, 1]}}],
        "search": {"trials": 2, "sampler": "grid"},
        "finals": {"seeds": [5, 6], "combine": None},
    }
    return sweep_here(folder, space)


def test_it_ends_with_a_table_that_says_what_it_is_judged_by(done):
    assert "teacher lenet, 3 classes, no true data" in done.out
    assert "No true data: judged by agreement with the teacher" in done.out
    assert not re.search(r"\bnan\b|cifar10|\bmissing\b", done.out)


def test_rows_have_agreement_by_class_and_no_accuracy(done):
    frame = ledger.load(done.folder)
    assert len(frame) == 6 and frame[["oracle_accuracy", "test_accuracy"]].isna().all(axis=None)
    assert frame["check_accuracy"].between(0, 1).all()
    for _, row in frame.iterrows():
        known = np.asarray(row["class_agreement"], float)
        assert len(known) == 3 and np.nanmean(known) == pytest.approx(row["balanced_agreement"])


def test_the_run_knows_the_names_of_the_classes(done):
    (names,) = json.loads((done.folder / "run.json").read_text())["class_names"].values()
    assert names == ["ant", "bee", "cat"]
    assert "<td>ant</td>" in (done.folder / "report.html").read_text()


def test_every_command_goes_on_with_it(done, tmp_path):
    run = done.folder
    for command, *options in (
        ("table",),
        ("best",),
        ("evaluate",),
        ("report",),
        ("figures", "--out", tmp_path / "figures"),
        ("finals", "--compare-only"),
        ("generate", "--trial", "best", "--count", "2", "--out", tmp_path / "images"),
        ("export-student", "--trial", "best", "--out", tmp_path / "student.pt2"),
    ):
        result = call(command, run, *options)
        assert result.exit_code == 0, (command, result.output)
        assert not re.search(r"\bnan\b|cifar10", result.output), command
    assert call("relatedness", "--teacher", run, "--proxy", "photos", "--images", "40").exit_code == 0
    refused("regret", run, says=["teacher.dataset"])
    refused("finals", run, "--by", "oracle_accuracy", says=["teacher.dataset"])
