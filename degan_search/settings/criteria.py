"""The table of criteria: every measure by which a search can be steered or a configuration chosen.

A criterion is entered here, once: settings, bank, ledger, choice and regret take their lists from this table. Its
function is named, not imported, so that commands that only read settings and results need not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Direction = Literal["max", "min"]
"""Which way is better."""


REFEREE, REFEREE_BEST = "referee_test_accuracy", "referee_best_test_accuracy"
"""Of a final run's student on the test images: after an epoch, and the best of all epochs. No criteria: nothing is
chosen by them."""


class Needs(StrEnum):
    """What a criterion is measured with, beside the student and the teacher."""

    BANK = "bank"
    """The fixed images, proxy and generated ones, on which students of all trials are compared."""
    HELD_OUT_PROXY = "held-out proxy"
    """Proxy images on which no student trains: the bank's."""
    OWN_GENERATOR = "own generator"
    """Fresh images from the trial's generator."""
    OTHER_TRIALS = "other trials"
    """Images from the generators of all other trials, and held-out proxy images."""
    TRUE_DATA = "true data"
    """Held-out true images and their labels."""
    CHECK = "check images"
    """A few labelled images (`teacher.check`)."""


@dataclass(frozen=True)
class Criterion:
    """One measure of a student or its generator."""

    name: str
    """Its ledger column, and its name in settings and options."""
    function: str
    """Name in `training.measures`: takes the student's logits [N, K], and if `compares` the teacher's. `bn_distance`
    alone takes images, by its function in `networks.batch_statistics`."""
    direction: Direction
    needs: Needs
    column: int
    """Position among the criteria's columns in the ledger, so that files of all versions have one order; a new
    criterion takes the next free number."""
    help: str
    compares: bool = True
    """Whether it compares with the teacher's outputs, or for `accuracy` with labels; else it takes the student's."""
    after_search: bool = False
    """Measured after the search, as it needs other trials or must not be seen by a searcher."""


_TABLE = (
    Criterion(
        "balanced_soft_agreement",
        "balanced_soft_agreement",
        "max",
        Needs.BANK,
        column=2,
        help="student's and teacher's probabilities on the bank, each class that the teacher predicts counted once",
    ),
    Criterion(
        "balanced_agreement",
        "balanced_agreement",
        "max",
        Needs.BANK,
        column=1,
        help="share of the bank on which both predict the same class, each of the teacher's classes counted once",
    ),
    Criterion(
        "soft_agreement",
        "soft_agreement",
        "max",
        Needs.BANK,
        column=3,
        help="student's and teacher's probabilities on the bank",
    ),
    Criterion(
        "agreement",
        "agreement",
        "max",
        Needs.BANK,
        column=0,
        help="share of the bank on which both predict the same class",
    ),
    Criterion(
        "holdout_agreement",
        "agreement",
        "max",
        Needs.HELD_OUT_PROXY,
        column=4,
        help="share of held-out proxy images on which both predict the same class",
    ),
    Criterion(
        "sure_agreement",
        "sure_agreement",
        "max",
        Needs.HELD_OUT_PROXY,
        column=14,
        help="as balanced_soft_agreement, on the bank's held-out proxy images of which the teacher is sure",
    ),
    Criterion(
        "cross_soft_agreement",
        "balanced_soft_agreement",
        "max",
        Needs.OTHER_TRIALS,
        column=12,
        help="as balanced_soft_agreement, on images of all other trials' generators and held-out proxy images",
        after_search=True,
    ),
    Criterion(
        "cross_agreement",
        "balanced_agreement",
        "max",
        Needs.OTHER_TRIALS,
        column=11,
        help="as balanced_agreement, on images of all other trials' generators and held-out proxy images",
        after_search=True,
    ),
    Criterion(
        "own_agreement",
        "agreement",
        "max",
        Needs.OWN_GENERATOR,
        column=10,
        help="share of the own generator's images on which both predict the same class (DeGAN's rule, section 5.1)",
        after_search=True,
    ),
    Criterion(
        "infomax",
        "infomax",
        "max",
        Needs.HELD_OUT_PROXY,
        column=5,
        help="mutual information of image and predicted class, in nats (Bridle et al. 1991)",
        compares=False,
    ),
    Criterion(
        "snd",
        "soft_neighbourhood_density",
        "max",
        Needs.HELD_OUT_PROXY,
        column=6,
        help="how densely the student's outputs lie together (SND, Saito et al. 2021)",
        compares=False,
    ),
    Criterion(
        "mcc",
        "class_certainty",
        "max",
        Needs.HELD_OUT_PROXY,
        column=7,
        help="how seldom one class is taken for another (MCC, Jin et al. 2020)",
        compares=False,
    ),
    Criterion(
        "bn_distance",
        "statistics_distance",
        "min",
        Needs.OWN_GENERATOR,
        column=8,
        help="distance of generated images' statistics to those that the teacher's BatchNorm layers keep",
        compares=False,
    ),
    Criterion(
        "oracle_accuracy",
        "accuracy",
        "max",
        Needs.TRUE_DATA,
        column=9,
        help="accuracy on the held-out share of the true training images",
        after_search=True,
    ),
    Criterion(
        "check_accuracy",
        "accuracy",
        "max",
        Needs.CHECK,
        column=13,
        help="accuracy on the few labelled images of teacher.check",
        after_search=True,
    ),
)

CRITERIA: dict[str, Criterion] = {criterion.name: criterion for criterion in _TABLE}
"""By name, in the order in which they are shown."""
TRUE = "oracle_accuracy"
"""The one criterion that needs true data."""
CHECK = "check_accuracy"
"""The one criterion that needs a few labelled images."""
SURE = "sure_agreement"
"""The criterion that compares best where the bank has images of several sets."""
DATA_FREE = tuple(name for name in CRITERIA if name not in (TRUE, CHECK))
"""The criteria that need no true data."""


def needing(*needs: Needs) -> tuple[str, ...]:
    """Return the criteria that need one of these, in the order in which they are shown."""
    return tuple(criterion.name for criterion in _TABLE if criterion.needs in needs)


OBJECTIVES = needing(Needs.BANK, Needs.HELD_OUT_PROXY, Needs.TRUE_DATA, Needs.CHECK)
"""What a search may maximise: measured of any student, as soon as its trial or a probe ends."""


def in_ledger(after_search: bool) -> list[Criterion]:
    """Return the criteria in the order of the ledger's columns: those of trials, or those measured afterwards."""
    ordered = sorted(_TABLE, key=lambda criterion: criterion.column)
    return [criterion for criterion in ordered if criterion.after_search == after_search]
