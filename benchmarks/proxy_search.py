"""Searching the proxy against one search on each: what a person who cannot tell proxies apart loses or saves.

Of equal numbers of trials: one sweep whose parameter is the proxy, and a sweep on each proxy. Both choose without true
data, and deliver a student of the four best generators together, over three seeds. The sweeps' own runs are in the work
folder; a call that was cut goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

import degan_search as ds
from benchmarks.choice.tasks import CIFAR10, LETTERS, Task
from degan_search.search.space.subsets import written_out

CANDIDATES: dict[str, tuple[Task, list[str] | dict[str, Any], int]] = {
    "letters": (LETTERS, list(LETTERS.proxies), 6),
    "cifar10": (CIFAR10, {"classes_of": "cifar100/related_90", "superclasses": True, "size": [1, 3], "draws": 5}, 4),
}
"""The candidate proxies of each task, and the trials of a search on one of them."""
FIRST = ((0, 5), (1, 5), (0, 0), (1, 10))
"""Weights (lambda_e, lambda_d) that each search tries first, of a search of proxies one proxy after the other."""
COUNT = 2000
"""Proxy images of each candidate."""


def space(task: Task, proxies: list[str], trials: int, searched: bool) -> dict[str, Any]:
    """Return a space that searches weights on one proxy, or weights and proxy."""
    steps = task.settings["gan"]["steps"]
    judges = [name for name in ("photos", "glyphs", "noise/uniform") if name not in proxies]
    if str(task.settings["teacher"]["dataset"]).startswith("glyphs"):
        judges = [name for name in judges if name != "glyphs"]
    first: list[dict[str, Any]] = [{"gan.lambda_e": e, "gan.lambda_d": d} for e, d in FIRST]
    if searched:
        first = [{"proxy": proxies[place % len(proxies)], **point} for place, point in enumerate(first)]
    return {
        "trial": {
            **task.settings,
            "count": COUNT,
            "objective": "sure_agreement",
            "probe": {"at": [0, steps // 2], "steps": 150},
            "bank": {"generators": [], "judges": judges},
        },
        "cells": {"method": ["degan"], **({} if searched else {"proxy": proxies})},
        "parameters": {
            **({"proxy": proxies} if searched else {}),
            "gan.lambda_e": {"zero_or_log": [0.01, 10]},
            "gan.lambda_d": {"zero_or_log": [0.1, 50]},
        },
        "first": first,
        "search": {"trials": trials},
        "asha": {"reduction_factor": 2},
        "finals": {"seeds": [1, 2, 3], "combine": {"members": 4, "balance": True, "share": 0.25}},
    }


def done(name: str, about: dict[str, Any], given: argparse.Namespace) -> ds.Run:
    """Return a sweep's run, begun or gone on with."""
    if (given.work / name / "run.json").exists():
        return ds.resume(given.work / name, data_dir=given.data_dir)
    return ds.sweep(about, storage=given.work, name=name, data_dir=given.data_dir, max_concurrent=given.concurrent)


def delivered(run: ds.Run, searched: str) -> pd.DataFrame:
    """Return the final runs' mean test accuracy and seconds of all trials, by proxy where each has its own search."""
    trials = run.trials
    finals = trials[trials["phase"] == "final"]
    rows = []
    for proxy, group in trials.groupby("compared_on", sort=False):
        own = finals.loc[finals.index.intersection(group.index)]
        for method, ends in own.groupby("config_method", sort=False):
            rows.append(
                {
                    "searched": searched,
                    "candidates": proxy,
                    "student": "four together" if method == "combined" else "one generator",
                    "chosen": ", ".join(dict.fromkeys(ends["config_proxy"])),
                    "accuracy": 100 * ends["test_accuracy"].mean(),
                    "deviation": 100 * ends["test_accuracy"].std(),
                    "minutes of search": group.loc[group["phase"] == "search", "seconds"].sum() / 60,
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Run the sweeps of a task and print what they deliver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=CANDIDATES)
    parser.add_argument("--work", type=Path, default=Path("runs/proxy_search"))
    parser.add_argument("--data-dir", type=Path, help="folder of the image sets; default: DATA_DIR, or ./data")
    parser.add_argument("--concurrent", type=int, default=1)
    given = parser.parse_args()
    task, candidates, trials = CANDIDATES[given.task]
    proxies = written_out({"proxy": candidates})["proxy"]
    together = done(f"{given.task}_searched", space(task, proxies, trials * len(proxies), True), given)
    each = done(f"{given.task}_each", space(task, proxies, trials, False), given)
    table = pd.concat([delivered(together, "proxy"), delivered(each, "weights")])
    print(table.to_markdown(index=False, floatfmt=".1f"))


if __name__ == "__main__":
    main()
