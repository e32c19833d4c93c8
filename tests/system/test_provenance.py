"""Where a result came from."""

import os

import torch

from degan_search.system import provenance


def test_provenance_names_versions_and_hardware():
    about = provenance.provenance()
    assert torch.__version__.startswith(about["versions"]["torch"])
    assert {"python", "numpy"} < set(about["versions"])
    assert about["host"]
    assert f"{os.cpu_count()} CPUs" in about["hardware"]
