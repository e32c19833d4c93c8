"""What stands for the accuracy where there are no true data: agreement with the teacher."""

from __future__ import annotations

import pandas as pd

from degan_search.settings import criteria
from degan_search.settings.criteria import Needs

BANK, SEARCHED = "comparison images", "comparison images, search"
"""What finals, and what the search's trials, are measured on."""
NO_TRUE_DATA = "no true data: judged by agreement with the teacher"
NO_ACCURACY = "Agreement is no accuracy: a student may do as the teacher does on these images and fail on true ones."
AXIS = "agreement with the teacher (%)"


def judged_by(objective: str) -> str:
    """Return the criterion that is shown: the objective if it is an agreement, else `balanced_soft_agreement`."""
    criterion = criteria.CRITERIA.get(objective)
    agrees = criterion is not None and criterion.compares and criterion.needs in (Needs.BANK, Needs.HELD_OUT_PROXY)
    return objective if agrees else criteria.DATA_FREE[0]


def without_true_data(frame: pd.DataFrame) -> bool:
    """Return whether there are trials, and none of them has true data."""
    return len(frame) > 0 and bool(frame["config_teacher_dataset"].isna().all())


def heading(objective: str) -> str:
    """Return what figures are judged by, as the beginning of a caption."""
    return f"{NO_TRUE_DATA[0].upper()}{NO_TRUE_DATA[1:]} ({judged_by(objective)})"
