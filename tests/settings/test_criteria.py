"""The table of criteria, and the lists that are taken from it."""

from math import isnan

import pytest
import torch
from torch import nn

from degan_search.ledger.columns import METRICS, SCORE_METRICS, TRIAL_METRICS
from degan_search.networks import batch_statistics
from degan_search.settings.criteria import (
    CHECK,
    CRITERIA,
    DATA_FREE,
    OBJECTIVES,
    TRUE,
    Criterion,
    Needs,
    in_ledger,
    needing,
)
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import UserError
from degan_search.training import measures
from degan_search.trial.bank import Bank


class Fixed(nn.Module):
    """Gives rows of fixed logits in turn, whatever the images."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.given = nn.Parameter(logits), 0

    def forward(self, images):
        rows = self.logits[self.given : self.given + len(images)]
        self.given += len(images)
        return rows


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_a_row_names_a_function_and_an_order(criterion):
    module = batch_statistics if criterion.name == "bn_distance" else measures
    assert callable(getattr(module, criterion.function))
    assert criterion.direction in ("max", "min")
    assert criterion.help
    assert "\n" not in criterion.help


def test_names_and_columns_are_each_there_once():
    assert len({criterion.column for criterion in CRITERIA.values()}) == len(CRITERIA)
    assert sorted(needing(*Needs)) == sorted(CRITERIA)
    assert needing(Needs.TRUE_DATA) == (TRUE,)
    assert needing(Needs.CHECK) == (CHECK,)
    labelled = (Needs.TRUE_DATA, Needs.CHECK)
    assert tuple(name for name, criterion in CRITERIA.items() if criterion.needs not in labelled) == DATA_FREE


def test_each_criterion_is_a_column_with_its_direction():
    for criterion in CRITERIA.values():
        columns = SCORE_METRICS if criterion.after_search else TRIAL_METRICS
        assert columns[criterion.name] == METRICS[criterion.name] == criterion.direction


@pytest.mark.parametrize("name", CRITERIA)
def test_a_search_maximises_what_is_known_of_each_student_alone(name):
    if name in OBJECTIVES:
        assert CRITERIA[name].direction == "max"
        assert trial_config({"objective": name}).objective == name
    else:
        with pytest.raises(UserError, match="objective = "):
            trial_config({"objective": name})


@pytest.mark.parametrize("proxy_images", [0, 3])
def test_the_bank_measures_each_criterion_on_its_own_images(proxy_images):
    """Compared with the function that the table names; the first images are the proxy's."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(8, 4, generator=rng) for _ in range(2))
    images = torch.zeros(8, 1, 32, 32, dtype=torch.uint8)
    found = Bank(images, teacher, proxy_images).compare(Fixed(student)).measures
    assert list(found) == [*(c.name for c in in_ledger(False) if c.needs in (Needs.BANK, Needs.HELD_OUT_PROXY))]
    for name, value in found.items():
        criterion = CRITERIA[name]
        seen = slice(None) if criterion.needs == Needs.BANK else slice(proxy_images)
        if criterion.needs == Needs.HELD_OUT_PROXY and not proxy_images:
            assert isnan(value)
            continue
        logits = (student[seen], teacher[seen]) if criterion.compares else (student[seen],)
        assert value == pytest.approx(getattr(measures, criterion.function)(*logits))
    assert len({round(value, 6) for value in found.values() if not isnan(value)}) > 3


def test_a_criterion_is_one_row(monkeypatch):
    """A new row is measured by the bank without another edit."""
    row = Criterion("sure", "mean_entropy", "min", Needs.BANK, column=99, help="how sure it is", compares=False)
    monkeypatch.setattr("degan_search.settings.criteria._TABLE", (*CRITERIA.values(), row))
    student = torch.tensor([[0.0, 0.0], [50.0, -50.0]])
    bank = Bank(torch.zeros(2, 1, 32, 32, dtype=torch.uint8), student, 0)
    assert bank.compare(Fixed(student)).measures["sure"] == pytest.approx(measures.mean_entropy(student))
