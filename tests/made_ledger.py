"""A made-up run for tests of what reads ledgers: `python tests/made_ledger.py FOLDER [TRIALS]`.

No trial measured any of it: `run.json` says `"made": true`, every row's host is `made`, every reason begins so.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
import yaml

import search_spaces
from analysis.tables.table import table
from degan_search import ledger
from degan_search.ledger.columns import SCORE_METRICS, TRIAL_METRICS, Phase, State, config_columns
from degan_search.settings.goals import OF_STUDENT
from degan_search.settings.resolve import trial_config
from degan_search.trial.outcome import sample_grid

Columns = dict[str, Any]

RELATED = {"glyphs/[K-Z]": 0.9, "digits": 0.6, "photos": 0.35, "noise/uniform": 0.05}
"""Proxies, and how good a student each could give."""
METHODS = ("proxy", "dcgan", "degan")
RUNGS, STEPS, EVERY = (100, 200), 400, 8
FINAL_SEEDS = (1, 2, 3)
FAULTS = ("made: the loss is not finite at GAN step {step}", "made: the worker died")
GENERATED = ("gan_seconds", "bn_distance", "effective_classes", "coverage", "entropy", "diversity", "mean_entropy")
"""Measures of what a generator makes."""
PICTURES = 12
"""Trials with a grid of samples, which here are coloured noise."""
BEGUN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def made_ledger(folder: Path, trials: int = 2000, seed: int = 0) -> Path:
    """Write a made-up run of so many trials into a folder and return it; the same seed writes the same rows.

    A third of a small run, and at most 36 trials, are finals. A few complete trials have a `samples.png`, none
    has weights.
    """
    rng = np.random.default_rng(seed)
    finals = min(trials // 3, len(RELATED) * len(METHODS) * len(FINAL_SEEDS))
    folder.mkdir(parents=True, exist_ok=True)
    space = yaml.safe_load((Path(search_spaces.__file__).parent / "table2_glyphs.yaml").read_text())
    space |= {"description": "A made-up run, for tests."}
    space["trial"]["probe"]["at"] = list(RUNGS)
    space["cells"]["proxy"] = list(RELATED)
    space["search"]["trials"] = math.ceil((trials - finals) / len(RELATED))
    (folder / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    about = {"made": True, "host": "made", "hardware": "made", "versions": {}, "git_commit": None, "options": {}}
    (folder / "run.json").write_text(json.dumps(about, indent=1))
    with mock.patch("os.fsync"):  # nobody needs these rows after a power cut
        rows = [_row(Phase.SEARCH, number, space, rng) for number in range(trials - finals)]
        rows += [_row(Phase.FINAL, number, space, rng) for number in range(finals)]
        for row in rows:
            accuracy = row.pop("accuracy")
            ledger.write_row(folder, row)
            if row["state"] is State.COMPLETE:
                ledger.write_scores(folder, _scores(row, accuracy, rng))
    pictured = [row for row in rows if row["state"] is State.COMPLETE and row["config_method"] != "proxy"]
    for row in pictured[-1 : -PICTURES - 1 : -1]:
        file = folder / "trials" / row["trial_id"] / "samples.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(sample_grid(torch.from_numpy(rng.integers(0, 256, (64, 3, 8, 8), np.uint8))))
    return folder


class Sweep:
    """A run's folder that is filled by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        (folder / "ledger").mkdir(parents=True)

    def add(
        self,
        proxy: str,
        method: str,
        score: float | None = None,
        oracle: float | None = None,
        test: float | None = None,
        state: str = "COMPLETE",
        settings: Columns | None = None,
        teacher: float | None = 0.8,
        cross_soft_agreement: float | None = None,
        scores: Columns | None = None,
        **columns: Any,
    ) -> None:
        phase = columns.pop("phase", "search" if test is None else "final")
        trial_id = f"{phase}-{self.number:04}"
        self.number += 1
        config = trial_config({"proxy": proxy, "method": method}, settings or {})
        about = {"trial_id": trial_id, "attempt": 1, "phase": phase, "state": state, "host": "synthetic"}
        ledger.write_row(self.folder, about | {"score": score} | columns | config_columns(config))
        accuracies = {"oracle_accuracy": oracle, "test_accuracy": test, "cross_soft_agreement": cross_soft_agreement}
        teachers = {"teacher_oracle_accuracy": teacher, "teacher_test_accuracy": test and (teacher or 0) + 0.01}
        ledger.write_scores(self.folder, {"trial_id": trial_id} | accuracies | teachers | (scores or {}))

    def tidy(self, **options: Any) -> pd.DataFrame:
        return table(ledger.load(self.folder), **options)

    def cell(self, proxy: str, method: str, **options: Any) -> dict[Hashable, Any]:
        tidy = self.tidy(**options)
        (cell,) = tidy[(tidy.proxy == proxy) & (tidy.method == method)].to_dict("records")
        return cell


def class_orders(folder: Path) -> Path:
    """Write a small run of the task `incremental`: two class orders, a search and finals, and what they reported."""
    with mock.patch("os.fsync"):
        sweep = Sweep(folder)
        for order in (1993, 1994):
            for method in ("finetuning", "fixed_representation", "lwf_mc", "proxy", "dcgan", "degan"):
                for weight in (0, 1, 2) if method == "degan" else ():
                    _learned(sweep, order, method, 0.3 + 0.1 * weight, 0, {"gan.lambda_e": weight})
                for seed in (1, 2):
                    _learned(sweep, order, method, 0.4, seed, {"gan.lambda_e": 2})
    return folder


def _learned(sweep: Sweep, order: int, method: str, accuracy: float, seed: int, weights: Columns) -> None:
    name = f"cifar100/order_{order}_%s_20"
    settings = {"task": "incremental", "teacher.dataset": name % "first", "teacher.network": "resnet32", "seed": seed}
    steps = STEPS if method in ("dcgan", "degan") else 0
    scores = {f"oracle_half_{half}": accuracy for half in (1, 2)}
    sweep.add(
        name % "next",
        method,
        accuracy,
        accuracy,
        accuracy + seed / 100 if seed else None,
        settings=settings | (weights if method == "degan" else {}),
        cell=f"teacher.dataset={name % 'first'} method={method}",
        reports=[{"budget": steps, "score": accuracy, "seconds": 9.0, "stage": "done"}],
        scores=scores | {"old_accuracy": accuracy + 0.1, "new_accuracy": accuracy - 0.1},
        seconds=9.0,
        started=BEGUN,
        finished=BEGUN + dt.timedelta(seconds=9),
        gan_steps=steps,
    )


def _row(phase: Phase, number: int, space: Columns, rng: np.random.Generator) -> Columns:
    proxies, final = list(RELATED), phase is Phase.FINAL
    if final:
        cell, seed = number % (len(METHODS) * len(proxies)), FINAL_SEEDS[number // (len(METHODS) * len(proxies))]
        proxy, method = proxies[cell // len(METHODS)], METHODS[cell % len(METHODS)]
        weights = (1.0, 10.0)
    else:
        proxy, method, seed = proxies[number % len(proxies)], "degan", 0
        weights = _weights(number // len(proxies), space["first"], rng)
    weights = weights if method == "degan" else (0.0, 0.0)
    config = trial_config(
        space["trial"],
        {"method": method, "proxy": proxy, "seed": seed, "gan.lambda_e": weights[0], "gan.lambda_d": weights[1]},
        {"probe.at": []} if final else {},
    )
    accuracy = float(np.clip(_accuracy(proxy, method, weights) + rng.normal(0, 0.025), 0.05, 0.87))
    score = float(np.clip(0.35 + 0.45 * accuracy + rng.normal(0, 0.03), 0, 1))
    state, reason, steps = State.COMPLETE, None, 0 if method == "proxy" else STEPS
    if not final and rng.random() < 0.03:
        state, steps = State.FAIL, int(rng.choice((0, 96, 160)))
        reason = FAULTS[steps == 0].format(step=steps)
    elif not final and number >= 4 * len(proxies) and rng.random() < 0.95 - accuracy:
        state, steps = State.PRUNED, int(rng.choice(RUNGS))
        score *= 0.8
        reason = f"made: stopped early: score {score:.4f} at GAN step {steps} is below the rung's {score + 0.05:.4f}"
    seconds = 7 + 0.06 * steps * (1 + rng.random() / 5)
    reports = [] if not steps else _curve(steps, score, seconds, weights, () if final else RUNGS, rng)
    if state is State.COMPLETE:
        reports.append({"budget": steps, "score": score, "seconds": seconds, "stage": "done"})
    done, gan = state is State.COMPLETE, state is State.COMPLETE and method != "proxy"
    measured = {name: _near(score, rng) for name in TRIAL_METRICS if name not in OF_STUDENT}
    measured |= {name: 1000.0 * (1 + int(1000 * score) % 7) for name in OF_STUDENT}
    measured["balanced_soft_agreement"] = score
    classes = 10 * _near(accuracy, rng)
    return {
        "accuracy": accuracy,
        "trial_id": f"{phase}-{number:04d}",
        "attempt": 1,
        "phase": phase,
        "cell": f"proxy={proxy} method={method}",
        "state": state,
        "reason": reason,
        "number": number,
        "teacher_hash": "made",
        **config_columns(config),
        **(measured | {"distill_seconds": 7.0, "distill_steps": 800} if done else {}),
        **dict.fromkeys(GENERATED, None),
        **({"gan_seconds": seconds - 7, "bn_distance": 3 - 2 * _near(accuracy, rng)} if gan else {}),
        **({"effective_classes": max(1.0, classes), "coverage": round(classes) / 10} if gan else {}),
        **({"entropy": 0.5, "diversity": 2.2, "mean_entropy": 2 * (1 - accuracy)} if gan else {}),
        "score": None if state is State.FAIL else score,
        "seconds": seconds,
        "teacher_holdout_accuracy": 0.8825,
        "gan_steps": steps,
        "threads": 1,
        "device": "cpu",
        "precision": "float32",
        "started": BEGUN + dt.timedelta(seconds=20 * number),
        "finished": BEGUN + dt.timedelta(seconds=20 * number + seconds),
        "host": "made",
        "versions": "{}",
        "hardware": "made",
        "reports": reports,
    }


def _weights(index: int, first: list[Columns], rng: np.random.Generator) -> tuple[float, float]:
    if index < len(first):
        return first[index]["gan.lambda_e"], first[index]["gan.lambda_d"]
    lambda_e, lambda_d = (float(np.exp(rng.uniform(*np.log(bounds)))) for bounds in ((0.01, 10), (0.1, 50)))
    return lambda_e * bool(rng.random() < 0.5), lambda_d * bool(rng.random() < 0.7)


def _accuracy(proxy: str, method: str, weights: tuple[float, float]) -> float:
    """Like the paper's: the less related the proxy, the more the weights bring, and the more lambda_e matters."""
    related = RELATED[proxy]
    if method == "proxy":
        return 0.1 + 0.6 * related
    diversity = math.exp(-((math.log10(weights[1] + 0.05) - 0.9) ** 2))
    entropy = math.exp(-((math.log10(weights[0] + 0.05) - 0.3 + related) ** 2))
    brought = 0.35 * (1 - related) * min(1, 0.3 + 3 * related)
    return 0.1 + 0.35 * related + (0.1 + 0.6 * brought) * diversity + 0.4 * brought * entropy


def _curve(
    steps: int,
    score: float,
    seconds: float,
    weights: tuple[float, float],
    rungs: tuple[int, ...],
    rng: np.random.Generator,
) -> list[Columns]:
    points = []
    for step in sorted({*range(EVERY, steps + 1, EVERY), *(rung for rung in rungs if rung <= steps)}):
        entropy, diversity = 2 * math.exp(-step / STEPS), 2.2 * (1 - math.exp(-step / 50))
        share = 1 if step == steps else 0.6 + 0.3 * step / STEPS
        points.append(
            {
                "budget": step,
                "score": score * share if step in rungs else math.nan,
                "seconds": seconds * step / STEPS,
                "d_loss": 1 + rng.normal(0, 0.2),
                "g_loss": 2 + weights[0] * entropy - weights[1] * diversity + rng.normal(0, 0.5),
                "adversarial": 2 + rng.normal(0, 0.5),
                "entropy": entropy,
                "diversity": diversity,
                "effective_classes": math.exp(diversity) if step in (*rungs, STEPS) else None,
                "stage": "gan",
            }
        )
    return points


def _scores(row: Columns, accuracy: float, rng: np.random.Generator) -> Columns:
    scores = {name: _near(row["score"], rng) for name in SCORE_METRICS if "accuracy" not in name}
    halves = {"oracle_half_1": _near(accuracy, rng), "oracle_half_2": _near(accuracy, rng)}
    scores |= halves | {"oracle_accuracy": sum(halves.values()) / 2, "teacher_oracle_accuracy": 0.8825}
    scores |= {"trial_id": row["trial_id"], "n_oracle": 2000}
    if row["phase"] is Phase.FINAL:
        scores |= {"test_accuracy": _near(accuracy, rng), "teacher_test_accuracy": 0.882, "n_test": 2000}
    return scores


def _near(value: float, rng: np.random.Generator) -> float:
    return float(np.clip(value + rng.normal(0, 0.015), 0, 1))


if __name__ == "__main__":
    print(made_ledger(Path(sys.argv[1]), *map(int, sys.argv[2:3])))
