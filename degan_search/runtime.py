"""Named seed streams, the device, threads, and where a result came from."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

CPU_NAME = "degan-search/cpu"
"""What a process that has a CPU to itself binds a socket to, with the CPU's number."""
_taken: list[socket.socket] = []
"""The sockets of this process's CPUs: it has them as long as it lives."""
PACKAGES = ("degan-search", "torch", "torchvision", "ray", "optuna", "numpy", "pandas", "pyarrow", "pillow")


def stream_seed(seed: int, *names: str | int) -> int:
    """Return the seed (63 bits) of the stream with these names; other names give independent streams."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: str = "cpu") -> torch.Generator:
    """Return torch's random generator of the named stream on a device."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *names))


@contextmanager
def seeded(seed: int, *names: str | int, device: str = "cpu") -> Iterator[torch.Generator]:
    """Make torch's global generators (initial weights, dropout) follow the named stream, and restore them after.

    The block is given the device's global generator.
    """
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, *names))
        own = torch.device(device)
        if own.type == "cuda":
            yield torch.cuda.default_generators[torch.cuda.current_device() if own.index is None else own.index]
        else:
            yield torch.default_generator


def choose_device(gpus: float | None = None) -> str:
    """Return "cuda" where a GPU is present and, if the number assigned is given, some of it is ours."""
    return "cuda" if torch.cuda.is_available() and (gpus is None or gpus > 0) else "cpu"


def set_up_torch(threads: int) -> None:
    """Fix what changes results or speed between processes: threads, denormals, deterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def pin(threads: int) -> bool:
    """Keep the calling thread, and those that it starts later, on CPUs that no other process has pinned itself to.

    Returns whether it did; once done, it stays so until the process ends. Where so many CPUs are not free, or the
    system knows no affinity, nothing changes. A CPU is taken by a socket in Linux's abstract namespace: one process
    alone can bind a name, and the kernel frees it however the process ends. Nothing ever connects to it.
    """
    if _taken or not hasattr(os, "sched_setaffinity"):
        return bool(_taken)
    cpus = []
    for cpu in sorted(os.sched_getaffinity(0)):
        flag = socket.socket(socket.AF_UNIX)
        try:
            flag.bind(f"\0{CPU_NAME}/{cpu}")
        except OSError:
            flag.close()
            continue
        cpus.append(cpu)
        _taken.append(flag)
        if len(cpus) == threads:
            os.sched_setaffinity(0, cpus)
            return True
    while _taken:
        _taken.pop().close()
    return False


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
