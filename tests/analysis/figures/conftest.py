"""What the figures' tests share: made-up runs, read once."""

import pytest
from made_ledger import class_orders, made_ledger

from degan_search import ledger


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("runs") / "made", 120)


@pytest.fixture(scope="session")
def trials(run):
    return ledger.load(run)


@pytest.fixture(scope="session")
def curves(run):
    return ledger.curves(run)


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    return class_orders(tmp_path_factory.mktemp("runs") / "learned")
