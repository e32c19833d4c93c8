"""One trial here and now, without Ray: prepared, run, and its files saved."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from degan_search.settings.methods import normalised
from degan_search.settings.trial import TrialConfig
from degan_search.storage.layout import CACHE
from degan_search.system import provenance
from degan_search.system.device import choose_device, set_up_torch
from degan_search.system.errors import UserError
from degan_search.system.whole_files import write_bytes
from degan_search.training.loop import DivergedError
from degan_search.trial import outcome as outcomes
from degan_search.trial.checks import check, check_alone
from degan_search.trial.inputs import Show, prepare
from degan_search.trial.trial import run as run_trial


def run(
    config: TrialConfig,
    out: Path,
    storage: Path = Path("runs"),
    data_dir: Path | None = None,
    threads: int = 1,
    show: Show = lambda stage, step, of: None,
) -> dict[str, float | None]:
    """Run a trial, save its student, generator, sample grid, configuration and result, and return its measures.

    A measure that does not apply is None.

    Raises:
        UserError: a wrong configuration, data that do not fit, a folder that is taken, or a trial that diverged.
    """
    config = normalised(config)
    check(config)  # a wrong configuration is said first
    check_alone(config)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is already there; choose another --out, or move it away")
    set_up_torch(threads)
    device = choose_device()
    inputs = prepare(config, data_dir, storage / CACHE, device, show=show)
    try:
        outcome = run_trial(config, inputs, lambda event: show(event.stage, event.step, event.of), device)
    except DivergedError as error:
        raise UserError(f"the trial failed: {error}") from None
    outcomes.save(outcome, out)
    metrics = {name: value if math.isfinite(value) else None for name, value in outcome.metrics.items()}
    about: dict[str, Any] = {"config": config.model_dump(mode="json"), "metrics": metrics}
    about |= {"class_agreement": outcome.class_agreement, "about": provenance.provenance()}
    write_bytes(out / "result.json", json.dumps(about, indent=1).encode())
    return metrics
