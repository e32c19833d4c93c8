"""Made-up search trials whose best choice is known."""

import pandas as pd

from degan_search.settings import criteria

WEIGHTS = [(0.0, 0.0), (0.0, 5.0), (1.0, 5.0)]


def trials(accuracies, agreements, proxy="photos", method="degan", phase="search", state="COMPLETE", dataset="digits"):
    """Synthetic trials: the same agreements for every criterion, but the reverse for plain agreement."""
    frame = pd.DataFrame(
        {
            "phase": phase,
            "state": state,
            "config_task": None,  # as in rows of an older version
            "config_method": method,
            "config_teacher_dataset": dataset,
            "config_proxy": proxy,
            "compared_on": proxy,
            "config_gan_lambda_e": [weight for weight, _ in WEIGHTS],
            "config_gan_lambda_d": [weight for _, weight in WEIGHTS],
            "oracle_accuracy": accuracies,
            "oracle_half_1": accuracies,
            "oracle_half_2": accuracies,
            "run": "first",
            "config_count": 100,
        }
    )
    for criterion in criteria.DATA_FREE:
        frame[criterion] = agreements
    frame["agreement"] = agreements[::-1]
    return frame
