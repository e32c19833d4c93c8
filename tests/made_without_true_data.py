"""A made-up run whose teacher has no true data, for tests of what reads ledgers: no trial measured any of it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any
from unittest import mock

from made_ledger import BEGUN, STEPS, Sweep

NO_TRUE_DATA = {"teacher.dataset": None, "teacher.path": "made.pt", "teacher.network": "lenet"}
CHECKED = {"check_accuracy": 0.65, "teacher_check_accuracy": 0.9, "n_check": 20}


def without_true_data(folder: Path, check: bool = False, **trial: Any) -> Path:
    """Write a small run whose teacher has no true data, two proxies by three methods; `check`: with a few images.

    `trial` has settings of the trials, by names with __ for each dot.
    """
    settings = NO_TRUE_DATA | ({"teacher.check": "digits"} if check else {})
    settings |= {name.replace("__", "."): value for name, value in trial.items()}
    scores = CHECKED if check else {}
    with mock.patch("os.fsync"):
        sweep = Sweep(folder)
        for proxy, worse in (("photos", 0.0), ("noise/uniform", 0.2)):
            for method, value in (("proxy", 0.5), ("dcgan", 0.4), ("degan", 0.6)):
                for phase, seed in (("search", 0), ("final", 1), ("final", 2)):
                    if phase == "search" and method != "degan":
                        continue
                    measured = value - worse + seed / 10
                    sweep.add(
                        proxy,
                        method,
                        measured,
                        settings=settings | {"seed": seed},
                        teacher=None,
                        cross_soft_agreement=measured if phase == "search" else None,
                        scores=scores,
                        phase=phase,
                        chosen_by="cross_soft_agreement" if phase == "final" and method == "degan" else None,
                        cell=f"proxy={proxy} method={method}",
                        balanced_soft_agreement=measured,
                        class_agreement=[measured, None, 1.0],
                        teacher_hash="made",
                        seconds=9.0,
                        gan_steps=0 if method == "proxy" else STEPS,
                        distill_steps=800,
                        started=BEGUN,
                        finished=BEGUN + dt.timedelta(seconds=9),
                    )
    (folder / "run.json").write_text(json.dumps({"made": True, "class_names": {"made": ["ant", "bee", "cat"]}}))
    return folder
