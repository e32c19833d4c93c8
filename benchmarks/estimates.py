"""Whether the time that a sweep says is left is right: five small sweeps, each estimate beside what it took."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measure import Figures, arguments
from degan_search.search.planning.cost_model import CostModel, bounds
from degan_search.search.run.jobs import Kind
from degan_search.search.run.options import Options
from degan_search.search.space.schema import Space
from degan_search.search.sweep import sweep
from degan_search.settings.resolve import merge

TRIAL = {
    "proxy": "glyphs/[K-Z]",
    "count": 1000,
    "teacher": {"dataset": "glyphs/[A-J]", "count": 1000, "network": "lenet", "width": 6},
    "teacher.fit": {"steps": 60, "steps_per_epoch": 30},
    "student": {"network": "lenet", "width": 6},
    "gan": {"width": 8, "batch_size": 32, "batch_of": "used", "steps": 60},
    "distill": {"steps": 100, "steps_per_epoch": 25, "score_images": 256, "pool": 512},
    "distill_images": {"steps": 100, "steps_per_epoch": 25, "batch_size": 32, "batch_of": "used"},
    "probe": {"at": [20, 40], "steps": 20, "batch_size": 32},
    "bank": {"proxy_images": 100, "generators": [[0, 0]], "generated_images": 100, "steps": 20},
}
WEIGHTS = {"gan.lambda_e": {"range": [0, 5]}, "gan.lambda_d": {"range": [0, 5]}}
ASHA = {"reduction_factor": 3}
SPACES: dict[str, dict[str, Any]] = {
    "alike": {"parameters": WEIGHTS, "search": {"trials": 16}, "asha": None},
    "stopped_early": {"parameters": WEIGHTS, "search": {"trials": 24}, "asha": ASHA},
    "two_methods": {
        "cells": {"method": ["proxy", "degan"]},
        "when": [{"if": {"method": "degan"}, "parameters": WEIGHTS}],
        "search": {"trials": 12},
        "asha": ASHA,
        "finals": {"seeds": [1, 2]},
    },
    "finals": {"parameters": WEIGHTS, "search": {"trials": 8}, "asha": ASHA, "finals": {"seeds": [1, 2, 3, 4, 5, 6]}},
    "lengths": {"parameters": {**WEIGHTS, "gan.width": [4, 8, 12]}, "search": {"trials": 16}, "asha": None},
}
"""What a sweep has that makes its time hard to tell; none: trials that are alike."""


@dataclass(frozen=True)
class Moment:
    """What was said at a moment."""

    now: float
    ended: float
    """Share of the trials that had ended, final runs included."""
    left: float
    """Seconds to the sweep's end, final runs included."""
    least: float
    most: float


def watched(space: Space, storage: Path, name: str) -> tuple[list[Moment], float]:
    """Run a sweep; return what it said of the time left while trials ran, and when the last one ended."""
    said: list[Moment] = []
    ends: list[float] = []
    plain = CostModel.text

    def text(self: CostModel, waiting: Sequence[Kind], now: float) -> str:
        if self.running or waiting:
            left = self.left(waiting, now) + self.left_after()
            ended = self.ended.total()
            ended_share = ended / (ended + len(self.running) + len(waiting) + len(self.after))
            said.append(Moment(now, ended_share, left, *bounds(self, left, len(waiting), now)))
        else:
            ends.append(now)
        return plain(self, waiting, now)

    CostModel.text = text  # type: ignore[method-assign]
    try:
        sweep(space, Options(storage, name), Console(file=io.StringIO()))
    finally:
        CostModel.text = plain  # type: ignore[method-assign]
    return said, ends[-1]


def compare(name: str, said: Sequence[Moment], end: float, figures: Figures) -> None:
    """Add what a sweep said when it began, after a quarter of its time, and of its trials, and from a quarter on."""
    begun = said[0].now
    quarter = next(moment for moment in said if moment.now >= begun + (end - begun) / 4)
    figures.add(f"{name}_seconds", end - begun)
    trials = next(moment for moment in said if moment.ended >= 1 / 4)
    for when, moment in (("first", said[0]), ("quarter", quarter), ("quarter_of_trials", trials)):
        taken = end - moment.now
        figures.add(f"{name}_{when}_ratio", moment.left / taken)
        figures.add(f"{name}_{when}_least", moment.least / taken)
        figures.add(f"{name}_{when}_most", moment.most / taken)
    later = [moment for moment in said if moment.now >= quarter.now]
    figures.add(f"{name}_inside", sum(m.least <= end - m.now <= m.most for m in later) / len(later))


def space_of(changes: Mapping[str, Any], longer: int = 1) -> Space:
    """Return a space of small trials with these parts; but for the teacher, `longer` times as many steps."""
    trial = merge({}, TRIAL)
    for stage in ("gan", "distill", "distill_images", "probe", "bank"):
        trial[stage]["steps"] *= longer
    trial["probe"]["at"] = [step * longer for step in trial["probe"]["at"]]
    parts = {"cells": {"method": ["degan"]}, "finals": None, **changes}
    return Space.model_validate({"trial": trial, **parts})


def main() -> None:
    """Measure and print; a ratio is of seconds said to be left to seconds that it then took."""
    parser = arguments(__doc__, repetitions=1)
    parser.add_argument("--longer", type=int, default=1, help="times as many steps of every training but the teacher's")
    options = parser.parse_args()
    figures, begun = Figures(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.repetitions):
            for name, changes in SPACES.items():
                said, end = watched(space_of(changes, options.longer), Path(folder), f"{name}-{number}")
                compare(name if options.repetitions == 1 else f"{name}_{number + 1}", said, end, figures)
    figures.add("seconds", time.monotonic() - begun)
    figures.save(options.json)


if __name__ == "__main__":
    main()
