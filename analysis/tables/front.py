"""The Pareto front of a search with several goals, as text below the table of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from degan_search.selection.pareto import front_table, goals_of
from degan_search.system.errors import UserError

STYLES = {"text": "simple", "markdown": "github"}
"""The styles in which it is shown, and what tabulate calls them."""


def render_front(frame: pd.DataFrame, runs: Sequence[Path], style: str = "text") -> str:
    """Return the front of runs' search trials as text; "" for one goal, no finished trial, or another style.

    Args:
        frame: from `ledger.load`.
        runs: the folders it was read from; of runs whose searches had different goals there is no front.
        style: one of STYLES.
    """
    try:
        goals = goals_of(*runs)
        if style not in STYLES or len(goals) == 1:
            return ""
        shown = front_table(frame, goals).drop(columns="config")
    except UserError:
        return ""
    rows = tabulate(shown.to_dict("list"), headers="keys", tablefmt=STYLES[style], floatfmt=".4g")
    return f"\nPareto front of {', '.join(goals)}, of each method on each proxy:\n\n{rows}\n"
