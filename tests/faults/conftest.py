"""A run of somebody else's, for tests that change what it holds."""

import shutil

import pytest
from made_ledger import made_ledger


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("runs") / "made", 12)


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")
