"""Where a result came from: host, hardware, package versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("degan-search", "torch", "torchvision", "ray", "optuna", "numpy", "pandas", "pyarrow", "pillow")


@cache
def provenance() -> dict[str, str | dict[str, str]]:
    """Return host, hardware, package versions and git commit (empty where there is none)."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return {
        "host": platform.node(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPUs{gpu}",
        "versions": versions,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
