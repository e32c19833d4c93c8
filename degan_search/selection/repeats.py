"""Search trials whose generators taught further students: which these are, and what their measures are over seeds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from degan_search.ledger.columns import METRICS, Phase, State
from degan_search.settings.combine import trial_of

if TYPE_CHECKING:
    import pandas as pd

SHARE = 0.25
"""Of a cell's finished trials, the best by the measure that chooses, whose generators teach further students."""


def number_repeated(finished: int) -> int:
    """Return how many of so many finished trials of a cell are repeated: a quarter, rounded up."""
    return math.ceil(SHARE * finished)


def repeated_trial(row: pd.Series) -> str:
    """Return the search trial whose generator taught the student of a ledger's row of phase `repeat`."""
    return trial_of(str(next(iter(row["config_combine_members"]), "")))


def over_seeds(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return a measure of each finished search trial and of its repeats, one row a student.

    Columns: run, trial_id (the search trial's), cell, and `value`. Students without the measure are left out.

    Args:
        frame: from `ledger.load`.
        by: a measured column.
    """
    import pandas as pd

    done = frame[(frame["state"] == State.COMPLETE) & frame[by].notna()]
    own, again = (done[done["phase"] == phase] for phase in (Phase.SEARCH, Phase.REPEAT))
    names = pd.concat([own["trial_id"], again.apply(repeated_trial, axis="columns") if len(again) else again["cell"]])
    rows = pd.concat([own, again])
    found = pd.DataFrame({"run": rows["run"], "trial_id": names, "cell": rows["cell"], "value": rows[by]})
    searched = set(zip(own["run"], own["trial_id"], strict=True))
    return found[[key in searched for key in zip(found["run"], found["trial_id"], strict=True)]]


def ordered(done: pd.DataFrame, frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return finished search trials, the best first, with the mean over seeds in place of the measure, and `seeds`.

    Trials that were repeated come before those that were not, which were the worse ones when both had one student: a
    lucky one does not win against a mean. Of equal trials the first stays first.

    Args:
        done: the trials, which have the measure.
        frame: the ledger that they and their repeats are of.
        by: the measure.
    """
    import pandas as pd

    rising = METRICS[by] == "min"
    if not (frame["phase"] == Phase.REPEAT).any():
        return done.assign(seeds=1).sort_values(by, ascending=rising, kind="stable")
    values = over_seeds(frame, by).groupby(["run", "trial_id"])["value"].agg(["mean", "size"])
    keys = pd.MultiIndex.from_frame(done[["run", "trial_id"]])
    means, seeds = (values[name].reindex(keys).to_numpy() for name in ("mean", "size"))
    found = done.assign(**{by: means, "seeds": seeds}, repeated=seeds > 1)
    return found.sort_values(["repeated", by], ascending=[False, rising], kind="stable").drop(columns="repeated")


def chance_ahead(frame: pd.DataFrame, by: str, first: pd.Series, second: pd.Series) -> float:
    """Return the probability that a trial's mean over all possible student seeds is better than another's.

    With means m_1 and m_2 of n_1 and n_2 students, and s^2 the variance of a student about its trial's mean, pooled
    over the repeated trials of their cells (nu = sum of (n_i - 1) degrees of freedom), it is the posterior under a flat
    prior of the means and 1/s of s: F_nu((m_1 - m_2) / (s sqrt(1/n_1 + 1/n_2))), with F_nu Student's distribution. As
    the first was picked for its mean, it is too sure: how much, docs/results/2026-11-28-noise.md. NaN: none of the
    cells' trials was repeated.

    Args:
        frame: the ledger that both are of.
        by: a measured column.
        first: a row of `ordered`.
        second: likewise.
    """
    if not (frame["phase"] == Phase.REPEAT).any():
        return math.nan
    from scipy import stats  # half a second, and only a comparison of repeats needs it

    values = over_seeds(frame, by)
    values = values[values["cell"].isin((first["cell"], second["cell"]))]
    groups = values.groupby(["run", "trial_id"])["value"]
    freedom = len(values) - groups.ngroups
    if freedom < 1:
        return math.nan
    spread = math.sqrt(float(((values["value"] - groups.transform("mean")) ** 2).sum()) / freedom)
    gap = (first[by] - second[by]) * (-1 if METRICS[by] == "min" else 1)
    error = spread * math.sqrt(1 / first["seeds"] + 1 / second["seeds"])
    return float(stats.t.cdf(gap / error, freedom)) if error else (math.nan if gap == 0 else float(gap > 0))
