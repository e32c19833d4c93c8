"""Named seed streams, the device, threads, and where a result came from."""

from __future__ import annotations

import ctypes
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
from typing import Any, Literal, TypeVar

import torch

T = TypeVar("T")
Precision = Literal["float32", "tf32", "bf16"]
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""
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
    _keep_memory()
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that was not written, and filling it takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # torch's own default; `arithmetic` asks for it


def _keep_memory() -> None:
    """Let glibc keep freed memory: a step's large tensors are else mapped and cleared anew, a tenth of its time."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(parameter, value)


def settled(made: T) -> T:
    """Return it once the device has computed it, so that other streams may use it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()
    return made


def precision_of(setting: str, device: str) -> Precision:
    """Return what a trial's `precision` means on a device.

    `auto` is bf16 where the hardware multiplies it (AVX512-BF16 or AMX, GPUs from compute capability 8.0), as no
    difference in final accuracy shows (docs/results/2026-11-26-precision-and-pool.md); else float32, on a GPU TF32.
    TF32 is float32 on a CPU.
    """
    cuda = torch.device(device).type == "cuda"
    if setting == "auto":
        native = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else _cpu_multiplies_bf16()
        setting = "bf16" if native else "tf32"
    if setting == "bf16":
        return "bf16"
    return "tf32" if cuda and setting == "tf32" else "float32"


def _cpu_multiplies_bf16() -> bool:
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


@contextmanager
def arithmetic(precision: Precision, device: str) -> Iterator[None]:
    """Compute convolutions and matrix products in this precision inside the block; weights stay float32.

    bf16 is torch's autocast, which keeps no cast weights: an optimiser may change them inside the block.
    """
    if precision == "bf16":
        with torch.autocast(torch.device(device).type, torch.bfloat16, cache_enabled=False):
            yield
        return
    if precision == "float32":
        yield
        return
    parts: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [part.allow_tf32 for part in parts]
    try:
        for part in parts:
            part.allow_tf32 = True
        yield
    finally:
        for part, was in zip(parts, before, strict=True):
            part.allow_tf32 = was


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
