"""Fixtures of networks."""

import pytest
import torch

from degan_search.system.trust import TRUSTED


@pytest.fixture
def seeded():
    """The same random numbers in each test, with torch's generator put back after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def code_is_trusted(monkeypatch):
    """The code of these tests is their own."""
    monkeypatch.setenv(TRUSTED, "1")
