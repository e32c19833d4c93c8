"""Prepares what trials share before the first starts: teachers, proxies, and the images to compare on."""

from __future__ import annotations

import ray
from rich.console import Console
from rich.markup import escape

from degan_search.search.run.options import Options
from degan_search.search.workers.cluster import parallel_runner, remote_runner
from degan_search.settings.trial import TrialConfig
from degan_search.storage.layout import CACHE
from degan_search.system.device import choose_device
from degan_search.training.loop import Progress
from degan_search.trial.inputs import Inputs, Loaded, gather, inputs_key, load


def prepare(configs: list[TrialConfig], options: Options, console: Console) -> dict[str, Inputs]:
    """Return the inputs of the trials with these configurations, by `inputs_key`.

    Several teachers, and the bank's generators, are trained as Ray tasks.

    Raises:
        UserError: data are missing or do not fit.
    """
    cache, device = options.storage / CACHE, choose_device(options.gpus_per_trial)
    remote = remote_runner(options)
    with console.status("Loading images ...") as status:

        def show(text: str) -> None:
            status.update(escape(f"{text} ..."))

        def report(progress: Progress) -> None:
            scored = f", held-out accuracy {progress.score:.3f}" if progress.score <= 1 else ""  # none are held out
            status.update(f"Training the teacher: step {progress.step}{scored}")

        loaded = load(configs, options.data_dir, cache, device, show, report, lambda task: ray.get(remote(task)))
    made: dict[str, Inputs] = {}
    for found in loaded:
        config, key = found.config, inputs_key(found.config)
        if key in made:
            continue
        with console.status(escape(f"Making the comparison images of {config.proxy} ...")):
            made[key] = gather(found, cache, device, parallel_runner(options))
        console.print(
            f"{config.proxy}: {len(found.proxy.images):,} images, {len(made[key].bank):,} to compare on; "
            f"{_described(found)}",
            highlight=False,
            soft_wrap=True,
        )
    return made


def _described(loaded: Loaded) -> str:
    """Return a teacher in words."""
    teacher, height, width = loaded.teacher, *loaded.teacher.takes.size
    named = f"teacher {loaded.config.teacher.network}, {teacher.classes} classes"
    if height != 32 or width != 32:
        named += f", {height}x{width} pixels"
    if teacher.holdout_accuracy is None:
        return f"{named}, no true data" if loaded.true is None else f"{named}, no images held out"
    return f"{named} on {loaded.config.teacher.dataset}, held-out accuracy {teacher.holdout_accuracy:.1%}"
