"""Ray: connected to or started here, and how many trials it takes at a time."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console

from degan_search import bank as banks
from degan_search import degan, runtime
from degan_search.config import TrialConfig
from degan_search.data import proxies
from degan_search.errors import IncompleteError, UserError
from degan_search.search.connect import check_nodes, connect, watched
from degan_search.search.options import Options
from degan_search.search.workers import ray_patches
from degan_search.turns import side_by_side_on_gpu

SNAPSHOT_SECONDS = 10**9
"""Between two of Tune's own snapshots, which nobody reads: the ledger is what a run is rebuilt from."""

NICENESS = 0
"""What a worker adds to the command's own. By Ray's 15 it gets 4% of a CPU on which another program runs, and then Ray
may take it for lost; `nice degan-search sweep ...` leaves others the machine, and the trials their equal shares."""


@contextlib.contextmanager
def ray_cluster(options: Options, console: Console, listen: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Connect to `--address`, or start Ray here, guarded by its token, and stop it after.

    `listen` is called once Ray has begun: Ray's own handler of SIGTERM aborts the process.

    Raises:
        UserError: no cluster answers at the address, or it has no room for a trial, or a machine of it cannot work.
        IncompleteError: Ray broke.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(SNAPSHOT_SECONDS))
    os.environ.setdefault("RAY_worker_niceness", str(NICENESS))
    ray_patches.outlive_lost_workers()
    # A failed trial is told of in one line; its traceback lies in the run's folder, under ray/.
    ray_patches.print_in_one_line(console)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if options.address:
        connect(options.address, quiet)
    else:
        # "local": whatever RAY_ADDRESS says, as it does on machines of a cluster.
        ray.init(address="local", include_dashboard=False, configure_logging=True, **quiet)
    listen()
    try:
        slots(options, ray.cluster_resources())
        console.print(
            f"Ray: {int(ray.cluster_resources().get('CPU', 0))} CPUs, {ray.cluster_resources().get('GPU', 0):g} GPUs",
            highlight=False,
        )
        if options.address:
            check_nodes(None if options.remote else options.folder)
        with watched(f"go on with: degan-search resume {options.where()}"):
            yield
    except RayError as error:
        if isinstance(error, UserError):  # raised by a task of ours: Ray's error is of both classes
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        hint = f"go on with: degan-search resume {options.where()}"
        raise IncompleteError(f"Ray stopped ({lines[-1] if lines else type(error).__name__}); {hint}") from error
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


def together(options: Options, config: TrialConfig) -> int:
    """Return how many trials like this one run in one process: one on a CPU, where turns gain nothing."""
    if options.fuse:
        return options.fuse
    if not options.gpus_per_trial:
        return 1
    share = 1.0 if config.count else proxies.share(config.proxy)
    batch = degan.scaled_batch(config.gan.batch_size, config.gan.batch_of, round(share * 50_000), 50_000)
    return side_by_side_on_gpu(batch)


def fill(options: Options, resources: Mapping[str, float]) -> bool:
    """Return whether trials take all these resources: `--max-concurrent` leaves none of them idle."""
    return slots(options, resources) >= slots(replace(options, max_concurrent=None), resources)


def side_by_side(options: Options) -> banks.RunAll:
    """Return a runner of tasks as Ray tasks, each with a trial's resources and threads."""
    remote = remote_runner(options)
    return lambda tasks: list(ray.get([remote(task) for task in tasks]))


def remote_runner(options: Options) -> Callable[[Callable[[], Any]], Any]:
    """Return a function that starts a task with a trial's resources and threads, and returns its reference."""

    @ray.remote(num_cpus=options.cpus_per_trial, num_gpus=options.gpus_per_trial)  # type: ignore[untyped-decorator]
    def run(task: Callable[[], Any]) -> Any:
        runtime.set_up_torch(options.cpus_per_trial)
        return task()

    return lambda task: run.remote(task)
