"""The device and how it computes: threads, deterministic kernels, precision."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch

T = TypeVar("T")
INDUCTOR = "TORCHINDUCTOR_DETERMINISTIC"
"""Environment variable that torch's compiler reads when it is loaded."""
Precision = Literal["float32", "tf32", "bf16"]
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of `mallopt`, from glibc's malloc.h."""


def choose_device(gpus: float | None = None) -> str:
    """Return "cuda" if there is a GPU and, where the number of GPUs assigned to this process is given, it is not 0."""
    return "cuda" if torch.cuda.is_available() and (gpus is None or gpus > 0) else "cpu"


def set_up_torch(threads: int) -> None:
    """Fix what changes results or speed between processes: threads, denormals, deterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # `use_deterministic_algorithms` would set this too, and load torch's compiler to do so, which takes a second.
    os.environ.setdefault(INDUCTOR, "1")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    _keep_memory()
    torch.set_deterministic_debug_mode("warn")
    # No code here reads uninitialised memory, and filling it takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # `arithmetic` turns it on where a trial asks for it


@contextmanager
def torch_kept() -> Iterator[None]:
    """Afterwards put back what `set_up_torch` changes: a sweep in somebody's own process leaves torch as it was."""
    deterministic = torch.utils.deterministic
    filled, cudnn = deterministic.fill_uninitialized_memory, torch.backends.cudnn  # type: ignore[attr-defined]
    before = torch.get_num_threads(), cudnn.benchmark, cudnn.allow_tf32
    mode, compiled = torch.get_deterministic_debug_mode(), os.environ.get(INDUCTOR)
    flushes = bool(torch.tensor([2e-38]).div(4).eq(0))  # torch does not tell; the quotient is a denormal number
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.benchmark, cudnn.allow_tf32 = before[1:]
        torch.set_deterministic_debug_mode(mode)
        if compiled is None:
            os.environ.pop(INDUCTOR, None)
        deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.set_flush_denormal(flushes)


def _keep_memory() -> None:
    """Let glibc keep freed memory.

    Otherwise a step's large tensors are mapped and cleared again each time, which takes a tenth of its time.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(parameter, value)


def settled(made: T) -> T:
    """Wait until the device has computed `made`, so that other CUDA streams may use it, and return it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()
    return made


def precision_of(setting: str, device: str) -> Precision:
    """Return what a trial's `precision` means on a device.

    `auto` is bf16 where the hardware multiplies it (AVX512-BF16 or AMX; GPUs from compute capability 8.0), as final
    accuracy shows no difference (docs/results/2026-11-26-precision-and-pool.md). Elsewhere it is TF32 on a GPU and
    float32 on a CPU, which also computes `tf32` in float32.
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
