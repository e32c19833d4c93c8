"""What a student is worth where no true image can say it: its accuracy over the teacher's, from their agreement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from degan_search.ledger.columns import config_of
from degan_search.settings.trial import TrialConfig

SLOPE, INTERCEPT, ERROR = 1.640, -0.043, 0.104
"""Of the line from `balanced_agreement` to accuracy over the teacher's, and the error that nine of ten students of a
task that the line was not fitted on do not exceed: docs/results/2026-11-28-choosing.md, "What a student is worth"."""
FEWEST_SETS = 3
"""Sets in a bank like those of the calibration, which had four to six."""


@dataclass(frozen=True)
class Worth:
    """An accuracy over the teacher's, in [0, 1], and bounds that held it for nine of ten students."""

    estimate: float
    low: float
    high: float


def worth(row: Mapping[str, Any] | pd.Series[Any]) -> Worth | None:
    """Return what a finished trial's student is worth; None where its bank is unlike those of the calibration.

    Those hold held-out images of several sets, not all of them related to the teacher's classes, and no generated ones.
    """
    config: TrialConfig = config_of(row)
    sets = {*config.bank.compared_on(config.proxy), *config.bank.judges}
    agreement = row["balanced_agreement"]
    if config.task != "distillation" or config.bank.generators or len(sets) < FEWEST_SETS or pd.isna(agreement):
        return None
    estimate = SLOPE * float(agreement) + INTERCEPT
    low, middle, high = (min(1.0, max(0.0, value)) for value in (estimate - ERROR, estimate, estimate + ERROR))
    return Worth(middle, low, high)
