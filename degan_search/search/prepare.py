"""What trials share, made before the first starts: teachers, proxies, and the images to compare on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from rich.console import Console
from rich.markup import escape

from degan_search import pipeline, runtime
from degan_search import teacher as teachers
from degan_search.config import TeacherConfig, TrialConfig
from degan_search.fit import Progress
from degan_search.foreground import CACHE
from degan_search.search.cluster import remote_runner, side_by_side
from degan_search.search.options import Options
from degan_search.search.trainable import inputs_key


def prepare(configs: list[TrialConfig], options: Options, console: Console) -> dict[str, pipeline.Inputs]:
    """Make the teacher and what trials share, for every proxy of these configurations, before any worker starts.

    Raises:
        UserError: data that are not there or do not fit.
    """
    loaded: dict[str, pipeline.Proxy] = {}
    with console.status("Loading images ..."):
        for config in configs:
            name = proxy_key(config)
            if name not in loaded:
                loaded[name] = pipeline.load_proxy(config, options.data_dir)
            pipeline.check_size(config, loaded[name])
    cache, device = options.storage / CACHE, runtime.choose_device(options.gpus_per_trial)
    known = _teachers([config.teacher for config in configs], cache, device, options, console)
    made: dict[str, pipeline.Inputs] = {}
    for config in configs:
        pipeline.check_inputs(config, loaded[proxy_key(config)], *known[config.teacher])
    for config in configs:
        key = inputs_key(config)
        if key in made:
            continue
        true, teacher = known[config.teacher]
        proxy = loaded[proxy_key(config)]
        with console.status(escape(f"Making the comparison images of {config.proxy} ...")):
            made[key] = pipeline.prepare(config, proxy, true, teacher, cache, device, side_by_side(options))
        console.print(
            f"{config.proxy}: {len(proxy.images):,} images, {len(made[key].bank):,} to compare on; teacher "
            f"{config.teacher.network} on {config.teacher.dataset}, held-out accuracy "
            f"{teacher.held_out_accuracy:.1%}",
            highlight=False,
            soft_wrap=True,
        )
    return made


def _teachers(
    configs: list[TeacherConfig], cache: Path, device: str, options: Options, console: Console
) -> dict[TeacherConfig, tuple[teachers.TrueImages, teachers.Teacher]]:
    """Return each teacher with its true images; where there are several, they are trained side by side."""
    wanted = list(dict.fromkeys(configs))
    names = ", ".join(dict.fromkeys(config.dataset for config in wanted))
    with console.status(escape(f"Loading {names} ...")) as status:
        true = {config: teachers.true_images(config, options.data_dir) for config in wanted}

        def show(progress: Progress) -> None:
            status.update(f"Training the teacher: step {progress.step}, held-out accuracy {progress.score:.3f}")

        if len(wanted) == 1:
            return {wanted[0]: (true[wanted[0]], teachers.obtain(wanted[0], true[wanted[0]], cache, show, device))}
        status.update(f"Training {len(wanted)} teachers ...")
        remote = remote_runner(options)

        def obtain(config: TeacherConfig) -> teachers.Teacher:
            return teachers.obtain(config, true[config], cache, None, device, lambda task: ray.get(remote(task)))

        pool = ThreadPoolExecutor(len(wanted))
        try:
            made = list(pool.map(obtain, wanted))
        finally:  # an interruption does not wait for teachers
            pool.shutdown(wait=False, cancel_futures=True)
        return {config: (true[config], teacher) for config, teacher in zip(wanted, made, strict=True)}


def proxy_key(config: TrialConfig) -> str:
    """Return what decides a trial's `Proxy`: name, count, the teacher's channels, and the share held out."""
    return f"{config.proxy} {config.count} {teachers.channels(config.teacher)} {config.teacher.holdout}"
