"""A finished run's trials as a small table, for `benchmarks.search` to replay: `python -m benchmarks.record RUN`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from degan_search import ledger
from degan_search.ledger.columns import Phase, State
from degan_search.system.errors import UserError

FOLDER = Path(__file__).parent / "recorded"
SMALL: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,
}
"""Options of Parquet under which a table of a few dozen rows takes a few kilobytes."""
COLUMNS = {
    "config_gan_lambda_e": "lambda_e",
    "config_gan_lambda_d": "lambda_d",
    **{
        name: name
        for name in (
            *("state", "score", "oracle_accuracy", "oracle_half_1", "oracle_half_2", "cross_soft_agreement"),
            *("gan_steps", "seconds", "device", "hardware", "git_commit"),
        )
    },
}
"""Columns of the ledger, and their names in the table."""


def table(run: Path) -> pd.DataFrame:
    """Return one row a search trial: `COLUMNS` and `rungs`, a list of step, score, seconds and probe_seconds.

    `gan_steps` are those of a whole trial, seconds count from the trial's start, and `probe_seconds` is what the probe
    itself took.

    Raises:
        UserError: no run, a trial that early stopping or a fault cut short, no accuracies, or two trials with the same
            weights.
    """
    frame, curves = ledger.load(run), ledger.curves(run)
    rows = frame[frame["phase"] == Phase.SEARCH].sort_values("number")
    if (rows["state"] == State.PRUNED).any():
        raise UserError(
            f"{run} stopped trials early: what they would have reached is unknown; run it with `asha: null`"
        )
    if rows.loc[rows["state"] == State.COMPLETE, "oracle_half_1"].isna().any() or rows.empty:
        raise UserError(f"{run} has trials without an accuracy: `degan-search evaluate {run}` fills them in")
    found = rows[list(COLUMNS)].rename(columns=COLUMNS).reset_index(drop=True)
    if found.duplicated(["lambda_e", "lambda_d"]).any():
        raise UserError(f"{run} has two trials with the same lambda_e and lambda_d; a grid of one cell is needed")
    found["gan_steps"] = found["gan_steps"].max()  # a trial that diverged has fewer
    by_trial = dict(list(curves[curves["stage"] != "done"].groupby("trial_id")))
    found["rungs"] = pd.Series([rungs(by_trial.get(name, curves.iloc[:0])) for name in rows["trial_id"]])
    return found


def rungs(curve: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a trial's rungs.

    A probe's time is that since the report before it, less as many GAN steps as lie between, each taken as the median
    of the steps between other reports.
    """
    points = curve.sort_values("budget")
    scored = points["score"].notna()
    steps, seconds = points["budget"].diff(), points["seconds"].diff()
    step = (seconds / steps)[~scored].median()
    probes = (seconds - step * steps).clip(lower=0)
    columns: Sequence[pd.Series[Any]] = (points["budget"], points["score"], points["seconds"], probes)
    names = ("step", "score", "seconds", "probe_seconds")
    return [
        dict(zip(names, map(float, values), strict=True)) for values in zip(*(c[scored] for c in columns), strict=True)
    ]


def read(path: Path) -> pd.DataFrame:
    """Return a recorded table.

    Raises:
        UserError: there is none.
    """
    if not path.is_file():
        raise UserError(f"no recorded table at {path}: `python -m benchmarks.record RUN` makes it from a run of a grid")
    return pd.read_parquet(path)


def main() -> None:
    """Record a run, under its folder's name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, help="default benchmarks/recorded/RUN.parquet")
    given = parser.parse_args()
    out = given.out or FOLDER / f"{given.run.resolve().name}.parquet"
    out.parent.mkdir(exist_ok=True)
    found = table(given.run)
    found.to_parquet(out, index=False, **SMALL)
    print(f"{len(found)} trials in {out}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
