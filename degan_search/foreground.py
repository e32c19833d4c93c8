"""One trial here and now, without Ray: prepared, run, and its files saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from degan_search import pipeline, runtime
from degan_search import teacher as teachers
from degan_search.atomic import write_bytes
from degan_search.config import TrialConfig
from degan_search.errors import UserError
from degan_search.fit import DivergedError
from degan_search.methods import normalised
from degan_search.trial.trial import run as run_trial

CACHE = "cache"
"""Folder in the storage for teachers and banks, which its runs share."""


def run(
    config: TrialConfig,
    out: Path,
    storage: Path = Path("runs"),
    data_dir: Path | None = None,
    threads: int = 1,
    show: Callable[[str, int, int | None], None] | None = None,
) -> dict[str, float | None]:
    """Run a trial, save its student, generator, sample grid, configuration and result, and return its measures.

    A measure that does not apply is None.

    Raises:
        UserError: a wrong configuration, data that do not fit, a folder that is taken, or a trial that diverged.
    """
    config = normalised(config)
    pipeline.check(config)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is already there; choose another --out, or move it away")
    runtime.set_up_torch(threads)
    device = runtime.choose_device()
    tell = show or (lambda stage, step, of: None)
    proxy = pipeline.load_proxy(config, data_dir)
    pipeline.check_size(config, proxy)
    true = teachers.true_images(config.teacher, data_dir)
    teacher = teachers.obtain(
        config.teacher, true, storage / CACHE, lambda progress: tell("teacher", progress.step, progress.of), device
    )
    pipeline.check_inputs(config, proxy, true, teacher)
    tell("comparison images", 0, None)
    inputs = pipeline.prepare(config, proxy, true, teacher, storage / CACHE, device)
    try:
        outcome = run_trial(config, inputs, lambda event: tell(event.stage, event.step, event.of), device)
    except DivergedError as error:
        raise UserError(f"the trial failed: {error}") from None
    pipeline.save(outcome, out)
    metrics = {name: value if math.isfinite(value) else None for name, value in outcome.metrics.items()}
    about = {"config": config.model_dump(mode="json"), "metrics": metrics, "about": runtime.provenance()}
    write_bytes(out / "result.json", json.dumps(about, indent=1).encode())
    return metrics
