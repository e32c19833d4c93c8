"""A grid run side by side without Ray: its table is what `benchmarks.search` replays, and halving halves."""

import json

import pandas as pd
import pytest
import yaml

from benchmarks import grid, record, replay
from degan_search.system import device

SPACE = {
    "trial": {
        "count": 100,
        "teacher": {"dataset": "glyphs/[A-C]", "count": 200, "network": "lenet", "width": 4, "fit": {"steps": 40}},
        "student": {"network": "lenet", "width": 4},
        "gan": {"width": 2, "latent": 8, "steps": 8, "batch_size": 16, "batch_of": "used", "lr": 0.002},
        "distill": {"steps": 8, "steps_per_epoch": 4, "score_images": 32, "pool": 64, "lr": 0.003},
        "probe": {"at": [2, 4], "steps": 4, "batch_size": 16},
        "bank": {"proxy_images": 20, "generators": [[0, 0]], "generated_images": 20},
    },
    "cells": {"proxy": ["glyphs/[K-Z]"], "method": ["degan"]},
    "parameters": {"gan.lambda_e": [0, 1], "gan.lambda_d": [0, 5]},
    "finals": {"seeds": [1, 2]},
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command on the space; returns its figures and what it printed."""
    space = tmp_path / "small.yaml"
    space.write_text(yaml.safe_dump(SPACE))

    def command(*options):
        known = ["--cache", str(tmp_path / "cache"), "--json", str(tmp_path / "figures.json")]
        monkeypatch.setattr("sys.argv", ["grid", str(space), *known, *options])
        monkeypatch.setattr(grid, "set_up_torch", lambda threads: device.set_up_torch(1))  # others test beside it
        grid.main()
        return json.loads((tmp_path / "figures.json").read_text())["figures"], capsys.readouterr().out

    return command


def test_a_grid_is_recorded_as_a_sweeps_is(run, tmp_path):
    out = tmp_path / "table.parquet"
    figures, _ = run("--together", "3", "--out", str(out))
    frame = pd.read_parquet(out)
    assert set(frame) == {*record.COLUMNS.values(), "rungs"}
    assert sorted(zip(frame["lambda_e"], frame["lambda_d"], strict=True)) == [(0, 0), (0, 5), (1, 0), (1, 5)]
    assert (frame["state"] == "COMPLETE").all()
    assert [[rung["step"] for rung in rungs] for rungs in frame["rungs"]] == [[2, 4]] * 4
    told = replay.timelines(frame, None)
    assert all(told[point][-1][0] > 0 for point in told)
    best = frame.loc[frame["score"].idxmax()]
    assert figures["grid_chosen_lambda_e"] == best["lambda_e"]
    assert figures["grid_chosen_accuracy"] == pytest.approx(100 * best["oracle_accuracy"])
    halves = (frame["oracle_half_1"] + frame["oracle_half_2"]) / 2
    assert halves.to_list() == pytest.approx(frame["oracle_accuracy"].to_list(), abs=0.02)


def test_halving_drops_the_worse_half_at_each_rung(run):
    figures, out = run("--together", "4", "--halving")
    lines = [line for line in out.splitlines() if "score" in line]
    assert sorted(line.split(": ")[1].split(",")[0] for line in lines) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    counts = {line.split(": ")[0]: line.split("rungs ")[1].count(",") + 1 for line in lines}
    assert sorted(counts.values()) == [1, 1, 2, 2]
    assert {f"grid_finals_{name}_accuracy" for name in ("degan", "dcgan")} <= set(figures)
