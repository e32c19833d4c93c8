"""Runs whose rows are made up, as if somebody had searched."""

from degan_search import ledger
from degan_search.ledger.columns import config_columns


def write(folder, trial_id, config, score, accuracy=0.5):
    """Write the row and scores of a trial that nobody ran."""
    phase, number = trial_id.split("-")
    about = {"trial_id": trial_id, "attempt": 1, "phase": phase, "number": int(number), "cell": "digits"}
    state = "COMPLETE" if score is not None else "FAIL"
    ledger.write_row(folder, about | {"state": state, "score": score} | config_columns(config))
    if score is not None:
        scores = {"oracle_half_1": accuracy, "oracle_half_2": accuracy, "oracle_accuracy": accuracy}
        scores |= {"cross_agreement": 0.5} if phase == "search" else {"test_accuracy": accuracy}
        ledger.write_scores(folder, {"trial_id": trial_id} | scores)


def searched(folder, tiny):
    """Fill a folder with three searched configurations, a failed one, and a final with seed 1."""
    for number, (weights, score) in enumerate([((0, 5), 0.6), ((1, 5), 0.7), ((1, 10), 0.5), ((2, 2), None)]):
        write(folder, f"search-{number:04d}", tiny({"gan.lambda_e": weights[0], "gan.lambda_d": weights[1]}), score)
    write(folder, "final-0003", tiny({"seed": 1}), 0.65)
    return folder
