"""Choosing a configuration without true data, from the rows of finished search trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from degan_search.ledger.columns import Phase, State, config_of
from degan_search.selection import repeats
from degan_search.settings.criteria import CHECK, CRITERIA, SURE, TRUE
from degan_search.system.errors import UserError, close_matches

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = "cross_soft_agreement"
"""What chooses after a search whose score is not SURE. With few trials it loses less accuracy than what these maximise:
docs/results/2026-11-22-choice-without-data.md."""
LABELLED = {TRUE: "dataset", CHECK: "check"}
"""The criteria that need labelled images, and the teacher's setting that names these."""
PROXY = ("run", "config_task", "config_teacher_dataset", "compared_on", "config_count")
"""Columns whose values are equal among the trials that one is chosen from: run, task, true data, the proxy or proxies
that they are compared on, and how many images of each. In the task `incremental` the true data are the old classes and
the proxy the new ones."""
PER = {"proxy": (), "method": ("config_method",), "cell": ("cell",)}
"""What `--per` takes, and the ledger columns it adds to PROXY: trials that were compared on
different images never compete."""


def best(
    frame: pd.DataFrame, by: str = "score", per: Sequence[str] = (*PROXY, "config_method"), top: int = 1
) -> pd.DataFrame:
    """Return the `top` finished search trials of each group by a criterion, the best first.

    A trial whose generator taught further students has their mean in place of its own value, as `repeats.ordered` says,
    and `seeds` counts them.

    Args:
        frame: from `ledger.load`.
        by: one of CRITERIA, or `score` (what the search maximised); those in LABELLED alone need labelled images.
        per: columns that make the groups; () for one group of all.
        top: trials of each group, 1 or more; fewer where a group has fewer.

    Raises:
        UserError: an unknown criterion or column, `top` below 1, or no finished trial that has the measure.
    """
    known = ("score", *CRITERIA)
    if by not in known:
        raise UserError(f"criterion {by!r} is unknown; {close_matches(by, known)}")
    for column in per:
        if column not in frame:
            raise UserError(f"no column {column!r} to choose within; {close_matches(column, map(str, frame.columns))}")
    _check_top(top)
    done = finished(frame).dropna(subset=by)
    if done.empty:
        if (setting := LABELLED.get(by)) and frame[f"config_teacher_{setting}"].isna().all() and len(frame):
            raise UserError(
                f"{by!r} cannot choose: it needs labelled images in teacher.{setting}, and this run has none; choose "
                f"by {DEFAULT} or score"
            )
        raise UserError(f"no finished search trial has a value of {by!r}: there is nothing to choose from")
    ordered = repeats.ordered(done, frame, by)
    return ordered.groupby(list(per), sort=False, dropna=False).head(top) if per else ordered.head(top)


def grouping(per: str) -> tuple[str, ...]:
    """Return the ledger columns within whose equal values `--per` chooses.

    Raises:
        UserError: `per` is not in PER.
    """
    if per not in PER:
        raise UserError(f"--per {per!r} must be one of {', '.join(PER)}")
    return (*PROXY, *PER[per])


def _check_top(top: int) -> None:
    if top < 1:
        raise UserError(f"top = {top}: 1 or more is needed")


def best_table(frame: pd.DataFrame, by: str, per: str = "method", top: int = 1) -> pd.DataFrame:
    """Return the best configurations with what they were chosen by, those of a group beside each other.

    The columns are run, trial, cell, proxy, lambda_e, lambda_d, `by`, score, with the images of `teacher.check` also
    check_accuracy and n_check, and config, a dict of all settings. Where trials were repeated, `by` is the mean over
    `seeds` students, and `ahead` the chance that the row is truly better than the next of its group
    (`repeats.chance_ahead`), whether or not that is shown.

    Args:
        frame: from `ledger.load`.
        by: as of `best`.
        per: one of PER.
        top: as of `best`.

    Raises:
        UserError: as `best` and `grouping`.
    """
    import pandas as pd

    _check_top(top)
    columns = list(grouping(per))
    rows = best(frame, by, columns, top + 1)
    groups = [_with_chances(group, frame, by).head(top) for _, group in rows.groupby(columns, sort=False, dropna=False)]
    rows = pd.concat(groups)
    names = {"run": "run", "trial_id": "trial", "cell": "cell", "config_proxy": "proxy"}
    names |= {f"config_gan_{name}": name for name in ("lambda_e", "lambda_d")} | {by: by, "score": "score"}
    names |= {"seeds": "seeds", "ahead": "ahead"} if (rows["seeds"] > 1).any() else {}
    names |= {name: name for name in ("check_accuracy", "n_check") if name in rows and rows[name].notna().any()}
    configs = pd.Series([config_of(row).model_dump(mode="json") for _, row in rows.iterrows()], dtype=object)
    return rows[[*names]].rename(columns=names).reset_index(drop=True).assign(config=configs)


def _with_chances(group: pd.DataFrame, frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return a group's trials, the best first, with `ahead`: the chance that each is truly better than the next."""
    rows = [row for _, row in group.iterrows()]
    chances = [repeats.chance_ahead(frame, by, *pair) for pair in itertools.pairwise(rows)]
    return group.assign(ahead=[*chances, math.nan])


def chosen_by(trials: pd.DataFrame, by: str | None = None) -> str:
    """Return the measure that chooses among finished search trials of one objective.

    It is `by` if given; else `score` where the objective is an accuracy, as the user asked for labelled images, or
    SURE, which chooses better than DEFAULT (docs/results/2026-11-28-choosing.md), or where no trial has DEFAULT; else
    DEFAULT.
    """
    done = finished(trials)
    without = done["config_objective"].isin((TRUE, CHECK, SURE)).any() or done[DEFAULT].isna().all()
    return by or ("score" if without else DEFAULT)


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of finished search trials."""
    return frame[(frame["phase"] == Phase.SEARCH) & (frame["state"] == State.COMPLETE)]
