"""Whether a teacher of the user's own has its classes in the order of the true images' labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from degan_search.system.errors import UserError

CHANCE = 1e-6
"""Probability at most with which a teacher that sees nothing in the images is told that its order is another one."""
BELOW = 1e-3
"""Probability at most with which such a teacher is told that it is below chance."""
NAMED = 12  # classes that a message lists


def check_class_order(
    what: str,
    dataset: str,
    predicted: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    classes: tuple[str, ...],
) -> None:
    """Refuse a teacher that is below chance, or would be right at least twice as often with its classes reordered.

    Args:
        what: names the teacher in the message.
        dataset: names the true images.
        predicted: the teacher's class of each held-out image.
        labels: the true ones.
        classes: names, in the order of the labels.

    Raises:
        UserError: gives both accuracies, the order of the set, and what to do.
    """
    # Slow to import, and of no use to workers.
    from scipy.optimize import linear_sum_assignment
    from scipy.special import gammaln
    from scipy.stats import binom

    count, chance = len(labels), 1 / len(classes)
    right = int((predicted == labels).sum())
    pairs = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(pairs, (predicted, labels), 1)
    best = int(pairs[linear_sum_assignment(pairs, maximize=True)].sum())
    # Over all orders, the chance that one gives so many right.
    lucky = gammaln(len(classes) + 1) + binom.logsf(best - 1, count, chance) > np.log(CHANCE)
    enough = best >= 0.5 * count or (right < chance * count and best >= 3 * chance * count)
    reordered = best >= 2 * right and enough and not lucky
    below = binom.cdf(right, count, chance) < BELOW
    if not (reordered or below):
        return
    another = f"; with its classes in another order it would be on {best / count:.1%}" if reordered else ""
    listed = ", ".join(classes[:NAMED]) + (", ..." if len(classes) > NAMED else "")
    raise UserError(
        f"{what} is right on {right / count:.1%} of the held-out images of {dataset!r}, and guessing on {chance:.1%}"
        f"{another}: its classes are likely in another order than the set's ({listed}). Class folders and labels that "
        "are text are sorted as text (1, 10, 2): rename them so that they sort in the teacher's order (01, 02, 10)"
    )
