"""The sweep: teacher, inputs, search, oracle accuracy, finals, table."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch
from ray import tune
from ray.tune.search import Searcher
from rich.console import Console

from analysis import choice, report, tables
from degan_search import bank as banks
from degan_search import evaluate, ledger, pipeline, runtime
from degan_search import teacher as teachers
from degan_search.config import TeacherConfig, TrialConfig, trial_config
from degan_search.errors import UserError
from degan_search.fit import Progress
from degan_search.foreground import CACHE
from degan_search.records import Phase, config_of
from degan_search.search import space as spaces
from degan_search.search import study
from degan_search.search.asha import CellAsha, Rungs
from degan_search.search.recorder import Recorder
from degan_search.search.searcher import CellSearcher, GivenJobs, job
from degan_search.search.track import tracking
from degan_search.search.trainable import DeganTrainable, inputs_key


@dataclass(frozen=True)
class Options:
    """Where a sweep runs and where its results go."""

    storage: Path = Path("runs")
    name: str = "sweep"
    data_dir: Path | None = None
    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    address: str | None = None
    track: str | None = None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.storage / self.name


def sweep(space: spaces.Space, options: Options, console: Console) -> Path:
    """Run a sweep to its end and return its folder.

    Raises:
        UserError: anything wrong with the space, the data or the folder, before a trial starts; and at the
            end, rows that could not be written.
    """
    begun = time.monotonic()
    trackers = [tracking(options.track, options.folder, console)] if options.track else []
    check_folder(options)
    runtime.set_up_torch(options.cpus_per_trial)  # as in a trial, so that the teacher is the same
    cells = spaces.cells(space)
    if not options.address:  # on a cluster, `ray_cluster` says what is too little
        slots(options, {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()})
    with ray_cluster(options, console):
        inputs = prepare([config for cell in cells for config in cell.shared()], options, console)
        _start_folder(space, options)
        references = {key: ray.put(value) for key, value in inputs.items()}
        count = sum(cell.trials() for cell in cells)
        if count:
            rungs = Rungs(space.asha.reduction_factor) if space.asha else None
            search = CellSearcher(cells)
            run_phase(Phase.SEARCH, count, options, references, console, CellAsha(rungs), search, trackers=trackers)
            evaluate.evaluate(options.folder, options.data_dir, options.storage / CACHE)
        if space.finals:
            jobs = final_jobs(cells, ledger.load(options.folder), space.finals)
            if jobs:
                plain, given = CellAsha(None), GivenJobs(jobs)
                run_phase(Phase.FINAL, len(jobs), options, references, console, plain, given, trackers=trackers)
            evaluate.evaluate(options.folder, options.data_dir, options.storage / CACHE)
    tidy = tables.table(ledger.load(options.folder))
    console.print(tables.render(tidy, "text"), highlight=False, markup=False, soft_wrap=True)
    tables.save(tidy, options.folder)
    console.print(
        f"\nResults: {options.folder} ({(time.monotonic() - begun) / 60:.1f} min). "
        f"Table again: degan-search table {options.folder}",
        highlight=False,
        soft_wrap=True,
    )
    page = report.write(options.folder, importances=study.importances(options.folder))
    console.print(f"Everything to look at: {page}", highlight=False, soft_wrap=True)
    return options.folder


def check_folder(options: Options) -> None:
    """Refuse a folder that another run owns, or a place that cannot be written.

    Raises:
        UserError: says which, and what to do.
    """
    folder = options.folder
    if Path(options.name).name != options.name or options.name in ("", ".", "..", CACHE):
        raise UserError(f"--name {options.name!r} must be a plain folder name other than {CACHE!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is already there; choose another --name, or move it away")
    check_writable(folder, f"--storage {str(options.storage)!r}")


def check_writable(folder: Path, what: str) -> None:
    """Make the folder where it is not there, and write a file in it; `what` names it in the message.

    Raises:
        UserError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{what} cannot be written: {error.strerror or error}") from None


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
        with console.status(f"Making the comparison images of {config.proxy} ..."):
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
    with console.status(f"Loading {', '.join(dict.fromkeys(config.dataset for config in wanted))} ...") as status:
        true = {config: teachers.true_images(config, options.data_dir) for config in wanted}

        def show(progress: Progress) -> None:
            status.update(f"Training the teacher: step {progress.step}, held-out accuracy {progress.score:.3f}")

        if len(wanted) == 1:
            return {wanted[0]: (true[wanted[0]], teachers.obtain(wanted[0], true[wanted[0]], cache, show, device))}
        status.update(f"Training {len(wanted)} teachers ...")
        remote = _remote(options)

        def obtain(config: TeacherConfig) -> teachers.Teacher:
            return teachers.obtain(config, true[config], cache, None, device, lambda task: ray.get(remote(task)))

        with ThreadPoolExecutor(len(wanted)) as pool:
            return {
                config: (true[config], teacher)
                for config, teacher in zip(wanted, pool.map(obtain, wanted), strict=True)
            }


def proxy_key(config: TrialConfig) -> str:
    """Return what decides a trial's `Proxy`: name, count, the teacher's channels, and the share held out."""
    return f"{config.proxy} {config.count} {teachers.channels(config.teacher)} {config.teacher.holdout}"


def side_by_side(options: Options) -> banks.RunAll:
    """Return a runner of tasks as Ray tasks, each with a trial's resources and threads."""
    remote = _remote(options)
    return lambda tasks: list(ray.get([remote(task) for task in tasks]))


def _remote(options: Options) -> Callable[[Callable[[], Any]], Any]:
    @ray.remote(num_cpus=options.cpus_per_trial, num_gpus=options.gpus_per_trial)  # type: ignore[untyped-decorator]
    def run(task: Callable[[], Any]) -> Any:
        runtime.set_up_torch(options.cpus_per_trial)
        return task()

    return lambda task: run.remote(task)


@contextlib.contextmanager
def ray_cluster(options: Options, console: Console) -> Iterator[None]:
    """Connect to `--address`, or start Ray here, bound to this machine alone, and stop it after.

    Raises:
        UserError: no cluster answers at the address, or it has no room for a trial.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # A failed trial is told of in one line; its traceback lies in the run's folder, under ray/.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address:
        try:
            ray.init(address=options.address, **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise UserError(
                f"no Ray cluster at {options.address!r}: {str(error).splitlines()[0]} (where the cluster asks for a "
                "token, set RAY_AUTH_MODE=token and copy its token file to this machine)"
            ) from None
    else:
        ray.init(include_dashboard=False, configure_logging=True, **quiet)
    try:
        slots(options, ray.cluster_resources())
        console.print(
            f"Ray: {int(ray.cluster_resources().get('CPU', 0))} CPUs, {ray.cluster_resources().get('GPU', 0):g} GPUs",
            highlight=False,
        )
        yield
    finally:
        ray.shutdown()


def slots(options: Options, resources: Mapping[str, float]) -> int:
    """Return how many trials run at a time on these resources, such as `{"CPU": 2.0, "GPU": 0.0}`.

    Raises:
        UserError: not even one fits.
    """
    needs = {"CPU": options.cpus_per_trial, "GPU": options.gpus_per_trial}
    fits = [int(resources.get(kind, 0) / need) for kind, need in needs.items() if need]
    if min(fits) < 1:
        raise UserError(
            f"a trial needs {needs['CPU']} CPUs and {needs['GPU']:g} GPUs, but there are "
            f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs; "
            "lower --cpus-per-trial or --gpus-per-trial"
        )
    return options.max_concurrent or min(fits)


def final_jobs(cells: list[spaces.Cell], frame: pd.DataFrame, finals: spaces.FinalsConfig) -> list[dict[str, Any]]:
    """Return the final runs: each cell's chosen configuration with each seed.

    A cell whose trials all failed has none.
    """
    picked = [(cell, found) for cell in cells if (found := chosen(cell, frame, finals.by))]
    jobs: list[dict[str, Any]] = []
    for seed, (cell, (config, by)) in itertools.product(finals.seeds, picked):
        final = trial_config(config.model_dump(mode="json"), {"seed": seed, "probe.at": []})
        jobs.append(job(Phase.FINAL, len(jobs), cell.label, final.model_dump(mode="json"), by))
    return jobs


def chosen(cell: spaces.Cell, frame: pd.DataFrame, by: str | None) -> tuple[TrialConfig, str | None] | None:
    """Return a cell's chosen configuration and the measure that chose; the only one, and None, if nothing varies."""
    if not cell.varies():
        return cell.example(), None
    trials = frame[frame["cell"] == cell.label]
    measure = choice.chosen_by(trials, by)
    try:
        best = choice.best(trials, measure, per=())
    except UserError:  # none finished
        return None
    return config_of(best.iloc[0]), measure


def _start_folder(space: spaces.Space, options: Options) -> None:
    (options.folder / ledger.LEDGER).mkdir()
    (options.folder / "space.yaml").write_text(spaces.dump(space))
    about = runtime.provenance() | {"options": {name: str(value) for name, value in vars(options).items()}}
    (options.folder / "run.json").write_text(json.dumps(about, indent=1))


def run_phase(
    phase: Phase,
    count: int,
    options: Options,
    references: dict[str, Any],
    console: Console,
    scheduler: CellAsha,
    searcher: Searcher,
    name: str | None = None,
    trackers: Sequence[tune.Callback] = (),
) -> None:
    """Run one phase under Ray Tune, writing each trial's row as it ends; `name`: of its folder under `ray/`.

    Raises:
        UserError: rows that could not be written.
    """
    recorder = Recorder(options.folder, scheduler.reasons, count, str(phase).capitalize(), console)
    resources = {"cpu": options.cpus_per_trial, "gpu": options.gpus_per_trial}
    trainable = tune.with_resources(
        tune.with_parameters(
            DeganTrainable,
            inputs=references,
            folder=str((options.folder / "trials").absolute()),
            threads=options.cpus_per_trial,
        ),
        resources,
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=count,
            max_concurrent_trials=slots(options, ray.cluster_resources()),
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=name or str(phase),
            storage_path=str((options.folder / "ray").absolute()),
            callbacks=[recorder, *trackers],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    with recorder.bar:
        tuner.fit()
    faults = recorder.flush()
    missing = count - sum(recorder.ended.values())
    if faults or missing:
        raise UserError("; ".join([*faults, *([f"{missing} trials left no row"] if missing else [])]))


def _trial_name(trial: Any) -> str:
    return str(trial.trial_id)
