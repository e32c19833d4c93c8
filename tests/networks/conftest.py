"""Fixtures of networks."""

import pytest
import torch


@pytest.fixture
def seeded():
    """The same random numbers in each test, with torch's generator put back after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
