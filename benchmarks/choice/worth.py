"""What a student is worth without data: its accuracy over the teacher's, from agreement, calibrated on the bench.

Each task is left out in turn: a line is fitted on the others, its errors there give an interval, and how often the
left-out truth lies inside is counted. The last line is fitted on all tasks: the constants of `selection.worth`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.choice.criteria import hard
from benchmarks.choice.judge import recorded
from benchmarks.choice.record import WORK
from benchmarks.choice.tasks import TASKS

COVERED = 0.9


def students(names: list[str], work: Path) -> pd.DataFrame:
    """Return task, agreement on held-out images of all sets, and accuracy over the teacher's, of each student."""
    rows = []
    for name in names:
        task = recorded(name, work)
        for place, row in enumerate(task.table.to_dict("records")):
            if row["seed"] == 0:
                worth = row["accuracy"] / row["teacher_accuracy"]
                rows.append((name, hard(task.view(place, None).held_out), worth))
    return pd.DataFrame(rows, columns=["task", "agreement", "worth"])


def fitted(frame: pd.DataFrame) -> tuple[float, float, float]:
    """Return slope and intercept of the line, and the error that 90% of the students do not exceed."""
    slope, intercept = np.polyfit(frame["agreement"], frame["worth"], 1)
    errors = (frame["worth"] - slope * frame["agreement"] - intercept).abs()
    return float(slope), float(intercept), float(errors.quantile(COVERED))


def across_tasks(frame: pd.DataFrame) -> float:
    """Return the error that 90% do not exceed where each task's line is fitted on the others."""
    errors = []
    for _, own in frame.groupby("task", sort=False):
        slope, intercept, _ = fitted(frame.drop(own.index))
        errors.append((own["worth"] - slope * own["agreement"] - intercept).abs())
    return float(pd.concat(errors).quantile(COVERED))


def main() -> None:
    """Print the calibration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="folder that `record` wrote")
    given = parser.parse_args()
    torch.set_num_threads(1)
    frame = students([name for name in TASKS if (given.work / f"{name}.npz").exists()], given.work)
    for task, own in frame.groupby("task", sort=False):
        others = frame.drop(own.index)
        slope, intercept, _ = fitted(others)
        error = across_tasks(others) if others["task"].nunique() > 1 else float("nan")
        misses = own["worth"] - slope * own["agreement"] - intercept
        best = own.iloc[own["agreement"].argmax()]
        print(
            f"{task}: mean error {misses.abs().mean():.3f}, bias {misses.mean():+.3f}, "
            f"within {error:.3f}: {(misses.abs() <= error).mean():.2f} of {len(own)}; the student that agrees most: "
            f"estimated {slope * best['agreement'] + intercept:.3f}, truly {best['worth']:.3f}"
        )
    slope, intercept, _ = fitted(frame)
    print(f"SLOPE {slope:.3f}, INTERCEPT {intercept:.3f}, ERROR {across_tasks(frame):.3f}")


if __name__ == "__main__":
    main()
