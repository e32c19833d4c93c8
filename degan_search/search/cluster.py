"""Ray: connected to or started here, and how many trials it takes at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

import analysis
import degan_search
from degan_search import bank as banks
from degan_search import runtime
from degan_search.errors import UserError
from degan_search.search.options import Options

SNAPSHOT_SECONDS = 10**9
"""Between two of Tune's own snapshots, which nobody reads: the ledger is what a run is rebuilt from."""


class PatientManager(RayActorManager):  # type: ignore[misc]
    """Takes whatever Ray says of a lost worker as that: Ray 2.60's ends the whole experiment on an OutOfMemoryError."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            first = (str(exception) or "no message").splitlines()[0]
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {first}")
        super()._actor_task_failed(tracked_actor_task, exception)


@contextlib.contextmanager
def ray_cluster(options: Options, console: Console) -> Iterator[None]:
    """Connect to `--address`, or start Ray here, bound to this machine alone, and stop it after.

    Raises:
        UserError: no cluster answers at the address, or it has no room for a trial.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(SNAPSHOT_SECONDS))
    tune_controller.RayActorManager = PatientManager
    # A failed trial is told of in one line; its traceback lies in the run's folder, under ray/.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address:
        try:
            ray.init(address=options.address, runtime_env=_environment(), **quiet)
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
        if options.address and not options.remote:
            check_shared(options.folder)
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


def check_shared(folder: Path) -> None:
    """Refuse a folder that some machine of the cluster does not see: what its workers wrote would be lost.

    Raises:
        UserError: names the machine.
    """
    token = folder.absolute() / f".shared-{secrets.token_hex(4)}"
    token.touch()
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        seen = [_exists.options(scheduling_strategy=_on(node)).remote(str(token)) for node in nodes]
        blind = [node["NodeManagerHostname"] for node, sees in zip(nodes, ray.get(seen), strict=True) if not sees]
    finally:
        token.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"{', '.join(dict.fromkeys(blind))} of the cluster cannot see {folder.absolute()}: give --storage a folder "
            "that all machines share (NFS), or an object store such as s3://bucket/runs"
        )


def _on(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _exists(path: str) -> bool:
    return Path(path).exists()


def _environment() -> dict[str, Any]:
    """Return what machines of a cluster get from here: this project's packages, and who we are to an object store.

    Theirs may be none, or another version; torch and the other libraries must be there.
    """
    packages = [str(Path(str(package.__file__)).parent) for package in (degan_search, analysis)]
    return {
        "py_modules": packages,
        "env_vars": {name: value for name, value in os.environ.items() if name.startswith("AWS_")},
    }
