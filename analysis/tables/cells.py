"""A cell of a table: which configuration it shows, what was measured on it, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

from analysis.agreement import BANK, SEARCHED, judged_by
from analysis.statistics import interval, wilson
from degan_search.ledger import cost
from degan_search.ledger.columns import Phase, State
from degan_search.selection.choose import best, chosen_by
from degan_search.settings import criteria
from degan_search.settings.methods import METHODS, TUNED
from degan_search.system.errors import UserError

TEST = "test"
HELD_OUT = "held-out 20%"
NO_TEST = "held-out 20%, no test images"
MISSING, STOPPED = "missing", "stopped early"
ACCURACY = {TEST: "test_accuracy", HELD_OUT: "oracle_accuracy", NO_TEST: "oracle_accuracy"}
WITHOUT_TRUE_DATA = {TEST: BANK, HELD_OUT: SEARCHED}
CHECK = ["check", "check_low", "check_high", "n_check", "teacher_check"]
"""Columns of a table: accuracy in percent on the n labelled images of `teacher.check`, its interval, the teacher's."""
REFEREED = ["best_on_test", "gap"]
"""Columns of a table: accuracy in percent of each run's best epoch by the test images, and how far ours is below it."""
WEIGHTS = ("lambda_e", "lambda_d")
ORDER = ("teacher", "kimura", *METHODS)
"""The order of a table's rows: what only the paper has, then every method; other names follow."""
LABELS = {"extended": "best of our extensions"}
"""Methods that a table shows by another name."""
OFF = {
    "lambda_s": ("config_gan_lambda_s", 0.0),
    "lambda_bn": ("config_gan_lambda_bn", 0.0),
    "mix_proxy": ("config_distill_mix_proxy", 0.0),
    "joint": ("config_incremental_joint", False),
}
"""The extensions that are not the paper's: their ledger columns, and the values that turn them off."""
HELD = ["core_hours", "gpu_hours", "money", "currency"]
"""Columns of a table: what trials held, from `cost.held`; money is null where the run was given no price."""
PER_SEED = ("config_seed", "config_hash", "config_json")
"""Columns in which the seeds of one configuration differ."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The trials of a cell's configuration, one a seed."""

    runs: pd.DataFrame
    measured_on: str
    """TEST for finals, HELD_OUT for the search's trial."""
    chosen_by: str | None
    """The criterion that chose it, and whether that needs true data; None where there was no choice."""


def choose(trials: pd.DataFrame, objective: str) -> Chosen:
    """Return the configuration with the best mean score of the finished finals, else the search's best trial.

    The search's best trial is chosen by `choose.chosen_by`. A seed that two runs repeat counts once.

    Args:
        trials: of one cell, from `ledger.load`.
        objective: what its search maximised.
    """
    complete = trials[trials["state"] == State.COMPLETE]
    finals = complete[complete["phase"] == Phase.FINAL]
    measure = chosen_by(complete)
    runs = _best_configuration(finals) if len(finals) else _best_trial(complete, measure)
    return Chosen(runs, TEST if len(finals) else HELD_OUT, _chosen_by(runs, measure, objective))


def accuracy(rates: pd.Series[Any], measured_on: str) -> dict[str, Any]:
    """Return mean, sample standard deviation, number and bootstrap interval of rates, in percent."""
    percent = 100 * rates.dropna()
    mean = interval(percent)
    return {
        "ours": mean.mean,
        "std": percent.std(),
        "n": mean.n,
        "low": mean.low,
        "high": mean.high,
        "measured_on": measured_on if mean.n else MISSING,
    }


def measured_where(runs: pd.DataFrame, measured_on: str) -> str:
    """Return where the accuracies of a cell's runs are: NO_TEST for finals whose true data have no test images."""
    tested = runs["test_accuracy"].notna().any() or runs["oracle_accuracy"].isna().all()
    return measured_on if measured_on != TEST or tested else NO_TEST


def measured(runs: pd.DataFrame, measured_on: str) -> dict[str, Any]:
    """Return `accuracy` of a cell's runs, and their teachers' mean on the same images."""
    measured_on = measured_where(runs, measured_on)
    column = ACCURACY[measured_on]
    return accuracy(runs[column], measured_on) | {"teacher": 100 * runs[f"teacher_{column}"].mean()}


def agreed(runs: pd.DataFrame, measured_on: str, objective: str) -> dict[str, Any]:
    """Return what `measured` does, of the agreement with the teacher in percent; the teacher has none."""
    return accuracy(runs[judged_by(objective)], WITHOUT_TRUE_DATA[measured_on]) | {"teacher": nan}


def checked(runs: pd.DataFrame) -> dict[str, float]:
    """Return the CHECK columns of a cell's runs: the mean accuracy, with the Wilson interval of as many images."""
    known = runs.dropna(subset=["check_accuracy", "n_check"])
    if known.empty:
        return dict.fromkeys(CHECK, nan)
    share = wilson(float(known["check_accuracy"].mean()), int(known["n_check"].iloc[0]))
    teacher = 100 * known["teacher_check_accuracy"].mean()
    return dict(zip(CHECK, (100 * share.mean, 100 * share.low, 100 * share.high, share.n, teacher), strict=True))


def refereed(runs: pd.DataFrame) -> dict[str, float]:
    """Return the REFEREED columns of a cell's runs, means over those that had a referee; NaN where none had."""
    known = runs.dropna(subset=[criteria.REFEREE_BEST, "test_accuracy"])
    best, ours = (100 * known[name].mean() for name in (criteria.REFEREE_BEST, "test_accuracy"))
    return dict(zip(REFEREED, (best, best - ours), strict=True))


def spent(trials: pd.DataFrame) -> dict[str, Any]:
    """Return the hours that all of a cell's trials took, what they held, and how many there were, pruned or failed."""
    return {
        "hours": cost.seconds(trials).sum() / 3600,
        **cost.held(trials),
        "trials": len(trials),
        "pruned": int((trials["state"] == State.PRUNED).sum()),
        "failed": int((trials["state"] == State.FAIL).sum()),
    }


def extensions(runs: pd.DataFrame, profile: str) -> str | None:
    """Return which extensions of the paper are on, such as `lambda_s 0.5, profile sgd_augmented`; None for nothing.

    `profile` is the ledger column of the training profile, whose value "paper" is the paper's own.
    """
    parts = []
    for name, (column, off) in (OFF | {"profile": (profile, "paper")}).items():
        values = runs[column]
        if (values != off).any():
            parts.append(f"{name} {spread(values)}")
    return ", ".join(parts) or None


def spread(values: pd.Series[Any]) -> str:
    """Return the different values as text: one as it is, several numbers as `0.1 to 2`, several names as `a or b`."""
    kinds = sorted(values.dropna().unique())
    shown = [format(value, ".3g") if isinstance(value, float | int) else str(value) for value in kinds]
    if all(isinstance(value, float | int) for value in kinds):
        return " to ".join(dict.fromkeys((shown[0], shown[-1]))) if shown else ""
    return " or ".join(shown)


def one_setting(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse trials that differ in one of these columns.

    Raises:
        UserError: names the column and its values.
    """
    for column in columns:
        values = frame[column].drop_duplicates()
        if len(values) > 1:
            shown = ", ".join("none" if pd.isna(value) else str(value) for value in values)
            raise UserError(f"a table compares one setting, but {column} is {shown}: keep the trials of one")


def ordered(names: set[str], first: Iterable[str]) -> list[str]:
    """Return names in the order of `first`, then the others by the alphabet."""
    known = [name for name in dict.fromkeys(first) if name in names]
    return known + sorted(names.difference(known))


def grouped(tidy: pd.DataFrame, column: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each value of a table's column with the names of its rows in brackets, or "" where it is the only value.

    `names` has a row's name for each row of the table.
    """
    named = tidy.assign(row_name=names).dropna(subset=column)
    groups = list(named.groupby(column, sort=False))
    for value, rows in groups:
        yield str(value), f" ({', '.join(rows['row_name'])})" if len(groups) > 1 else ""


def _best_trial(complete: pd.DataFrame, measure: str) -> pd.DataFrame:
    if complete[measure].isna().all():
        return complete.head(0)
    return best(complete, measure, per=())


def _best_configuration(finals: pd.DataFrame) -> pd.DataFrame:
    """Return the trials, one a seed, of the configuration with the best mean score."""
    settings = [str(name) for name in finals if str(name).startswith("config_") and name not in PER_SEED]
    # As text, since configurations hold lists, which cannot be grouped.
    same = pd.Series(list(map(repr, finals[settings].to_numpy(dtype=object).tolist())), index=finals.index, dtype=str)
    means = finals["score"].groupby(same).mean()
    best = means.fillna(float("-inf")).idxmax()
    # A trial that two runs repeat gave the same result and counts once.
    return finals[same == best].drop_duplicates("config_seed")


def _chosen_by(chosen: pd.DataFrame, measure: str, objective: str) -> str | None:
    if chosen.empty or not (chosen["config_method"].isin(TUNED).all() or chosen["chosen_by"].notna().any()):
        return None
    finals = chosen["phase"].iloc[0] == Phase.FINAL
    # Rows of an older version do not say it: they were chosen by score.
    by = (chosen["chosen_by"].dropna().iloc[0] if chosen["chosen_by"].notna().any() else "score") if finals else measure
    return _needs(objective if by == "score" else by)


def _needs(measure: str) -> str:
    if measure == criteria.CHECK:
        return f"a few labelled images: {measure}"
    return f"oracle: {measure}" if measure == criteria.TRUE else f"data-free: {measure}"
