"""What the benchmarks share: timing cases alternately, figures printed as `name: value` or JSON, and options."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from degan_search.system import provenance


def interleaved(
    cases: Mapping[str, Callable[[], object]], repetitions: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of each repetition by case, run as A B C A B C so that a busy machine slows all of them.

    Args:
        cases: what to time. On a GPU the clock waits until its work is done.
        repetitions: rounds that are timed.
        warm_up: rounds before them that are not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(warm_up + repetitions):
        for name, case in cases.items():
            _wait()
            begun = time.perf_counter()
            case()
            _wait()
            if round_ >= warm_up:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


class Apart:
    """A case in a process of its own with torch's default settings, which `device.set_up_torch` would change.

    `make(*given)` is called there once; each call runs what `make` returned.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *given: Any, threads: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, make, given, threads), daemon=True)
        self.process.start()
        self.pipe.recv()

    def __call__(self) -> None:
        """Run the case once and wait for its end."""
        self.pipe.send(None)
        self.pipe.recv()


def _serve(pipe: Any, make: Callable[..., Callable[[], object]], given: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    case = make(*given)
    with contextlib.suppress(EOFError):  # until the other side ends
        while True:
            pipe.send(None)
            pipe.recv()
            case()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Figures:
    """Figures by name, each printed as soon as it is added."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add(self, name: str, value: float) -> None:
        """Keep a figure and print its line."""
        self.values[name] = float(value)
        print(f"{name}: {value:.6g}", flush=True)

    def times(self, name: str, slow: Sequence[float], fast: Sequence[float]) -> None:
        """Add the ratio of the medians, and as `NAME_least` and `NAME_most` the least and most of a round."""
        ratios = [slower / faster for slower, faster in zip(slow, fast, strict=True)]
        self.add(name, median(slow) / median(fast))
        self.add(f"{name}_least", min(ratios))
        self.add(f"{name}_most", max(ratios))

    def save(self, path: Path | None) -> None:
        """Write the figures as JSON (null for NaN), with date, machine and threads; nothing without a path."""
        if path is None:
            return
        about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": torch.get_num_threads()} | provenance.provenance()
        figures = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        path.write_text(json.dumps({"figures": figures, "about": about}, indent=1) + "\n")


def arguments(description: str | None, repetitions: int = 5, **options: int | float | str) -> argparse.ArgumentParser:
    """Return a parser with `--repetitions`, `--json` and an option for each default given (`gan_steps=100`)."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in {"repetitions": repetitions, **options}.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default, help=f"default {default}")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    return parser
