"""Configurations as rows hold them."""

import pytest

from degan_search.settings.methods import normalised


@pytest.fixture(scope="session")
def tiny(tiny):
    """As rows hold configurations: what a method does not use is at one value."""
    return lambda *changes: normalised(tiny(*changes))
