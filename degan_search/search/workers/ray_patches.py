"""All uses of Ray's private parts; `tests/search/workers/test_ray_patches.py` says which of them a new Ray breaks.

Each function says why it is needed and which public behaviour it stands in for. No other file may import a private
module of Ray's or read a private attribute of its objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.services import find_node_ids
from ray._private.utils import get_num_cpus
from ray.actor import ActorHandle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.experimental import internal_kv
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from rich.console import Console

from degan_search.search.run.faults import told_to_end

STOP = b"stop"
CHECKED = "2.60"
"""The minor version of Ray that all of this was checked with."""


class PatientManager(RayActorManager):  # type: ignore[misc]
    """Treats every error that Ray reports of a worker as the loss of that worker.

    Ray 2.60's own manager raises a RuntimeError on an OutOfMemoryError of a worker, which ends the whole experiment.
    Stands in for: Tune calls `Callback.on_trial_error` for it, as it does for any other lost worker.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            first = (str(exception) or "no message").splitlines()[0]
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {first}")
        super()._actor_task_failed(tracked_actor_task, exception)


def outlive_lost_workers() -> None:
    """Let Tune use `PatientManager`, which it takes by no argument."""
    tune_controller.RayActorManager = PatientManager


def print_in_one_line(console: Console) -> None:
    """Print each of Ray's messages about the cluster in one plain line.

    Ray prints several lines with addresses and hints for its developers, once for each worker of a lost machine.
    Stands in for: a logger or a callback for messages of the cluster; `log_to_driver=False` does not silence them.
    """
    ray_worker.print_to_stdstream = partial(_print, console)


def _print(console: Console, message: Mapping[str, Any], **options: Any) -> None:
    text = " ".join(" ".join(message["lines"]).split())
    if "Raylet is terminated" in text or told_to_end(text):  # each worker of a lost machine, or of a sweep that stops
        return
    if lost := re.search(r"and address: (\S+) .*has been marked dead", text):
        text = f"{lost[1]} of the cluster is lost; its trials are tried again"
    else:
        text = f"Ray: {text.partition('. ')[0]}"
    console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def use_token_of_home() -> None:
    """Send the token in the home directory to the cluster that is connected to next, as `ray.init("auto")` does.

    Stands in for: `ray health-check --address auto`, which does not read that token while `ray.init("auto")` does.
    """
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def is_part_of_cluster() -> bool:
    """Return whether this machine runs a node of a Ray cluster.

    Where it does not, `ray.init(address=...)` waits for minutes and then speaks of a lost raylet. Stands in for: an
    answer of `ray status` that tells the nodes of this machine.
    """
    return bool(find_node_ids())


def cpus_of_machine() -> int:
    """Return how many CPUs `ray.init` would take: those of the machine, or what a container's quota allows.

    Ray does not ask which CPUs the process may use (`taskset`). Stands in for: an option of `ray.init` for that.
    """
    return int(get_num_cpus())


def ask_workers_to_end() -> None:
    """Let `driver_stops` be true in all workers of this driver.

    A call of a Trainable waits until its step is over, which may take minutes. Stands in for: a word to all actors of a
    job that each can look up, without a process of its own that holds it.
    """
    internal_kv._internal_kv_put(STOP, b"1", namespace=_job())


def driver_stops() -> bool:
    """Return whether the driver of this worker has called `ask_workers_to_end`."""
    if not internal_kv._internal_kv_initialized():  # without Ray
        return False
    with suppress(RayError):  # a head that does not answer says nothing
        return bool(internal_kv._internal_kv_exists(STOP, namespace=_job()))
    return False


def _job() -> bytes:
    return f"degan-search-{ray.get_runtime_context().get_job_id()}".encode()


def worker_of(trial: Trial) -> ActorHandle | None:
    """Return the actor that runs one of Tune's trials, None while there is none.

    Stands in for: a way to call a method of a running Trainable, and to end one that hangs.
    """
    actor: ActorHandle | None = trial.temporary_state.ray_actor
    return actor


def kill_worker(trial: Trial) -> bool:
    """Kill the process that runs one of Tune's trials; returns whether there was one."""
    worker = worker_of(trial)
    if worker is None:
        return False
    ray.kill(worker)
    return True


def forget(trial: Trial) -> None:
    """Free what Tune keeps of a trial that ended; in a long sweep it would fill the driver's memory.

    Stands in for: an option to keep no results of ended trials; the ledger has them.
    """
    kept = trial.run_metadata
    kept.last_result, kept.metric_analysis, kept.metric_n_steps = {}, {}, {}
    trial.evaluated_params = {}
    trial.config = {"id": trial.config["id"]}
    # Tune keeps a second copy of the configuration under a private name.
    vars(trial).update({name: {} for name in vars(trial) if name.endswith("unresolved_config")})
