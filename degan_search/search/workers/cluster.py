"""Ray for the length of a sweep: started here, or a cluster that is connected to; and functions run as its tasks."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console

from degan_search.search.run.options import Options
from degan_search.search.workers import ray_patches
from degan_search.search.workers.connect import check_nodes, connect, watch_head
from degan_search.search.workers.slots import slots
from degan_search.search.workers.start import start
from degan_search.system import device
from degan_search.system.errors import IncompleteError, UserError
from degan_search.trial.bank import RunAll

SNAPSHOT_SECONDS = 10**9
"""Between two of Tune's own snapshots, which nothing reads: a run is rebuilt from its ledger."""

NICENESS = 0
"""Added to the command's own niceness in a worker. With Ray's default of 15 a worker gets 4% of a CPU that another
program uses too, and Ray may then take it for lost. `nice degan-search ...` lowers the priority of all workers."""


@contextlib.contextmanager
def ray_cluster(
    options: Options, console: Console, listen: Callable[[], None] = lambda: None, networks: Collection[str] = ()
) -> Iterator[None]:
    """Connect to `--address`, or start Ray here, guarded by its token, and stop it after.

    `listen` is called once Ray has begun: Ray's own handler of SIGTERM aborts the process.
    `networks` are the names of all that trials build: workers get the user's own code of them.

    Raises:
        UserError: Ray cannot be started here, no cluster answers at the address, or it has no room for a trial, or a
            machine of it cannot work.
        IncompleteError: Ray broke.
    """
    if ray.is_initialized():
        raise UserError("this process is connected to Ray already: call `ray.shutdown()` first, as a sweep starts Ray")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(SNAPSHOT_SECONDS))
    os.environ.setdefault("RAY_worker_niceness", str(NICENESS))
    ray_patches.outlive_lost_workers()
    # The recorder prints a failed trial in one line; its traceback is in the run's folder, under ray/.
    ray_patches.print_in_one_line(console)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if options.address:
        connect(options.address, quiet, networks)
    else:
        start(quiet, networks)
    listen()
    try:
        slots(options, ray.cluster_resources())
        console.print(
            f"Ray: {int(ray.cluster_resources().get('CPU', 0))} CPUs, {ray.cluster_resources().get('GPU', 0):g} GPUs",
            highlight=False,
        )
        if options.address:
            check_nodes(None if options.remote else options.folder)
        with watch_head(f"go on with: {options.resume()}"):
            yield
    except RayError as error:
        if isinstance(error, UserError):  # Ray gives an error that our task raised both classes
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        hint = f"go on with: {options.resume()}"
        raise IncompleteError(f"Ray stopped ({lines[-1] if lines else type(error).__name__}); {hint}") from error
    finally:
        ray.shutdown()


def parallel_runner(options: Options) -> RunAll:
    """Return a function that runs a list of tasks as Ray tasks, each with a trial's resources and threads."""
    remote = remote_runner(options)
    return lambda tasks: list(ray.get([remote(task) for task in tasks]))


def remote_runner(options: Options) -> Callable[[Callable[[], Any]], Any]:
    """Return a function that starts a task with a trial's resources and threads, and returns its reference."""

    @ray.remote(num_cpus=options.cpus_per_trial, num_gpus=options.gpus_per_trial)  # type: ignore[untyped-decorator]
    def run(task: Callable[[], Any]) -> Any:
        device.set_up_torch(options.cpus_per_trial)
        return task()

    return lambda task: run.remote(task)
