"""Connecting to a running Ray cluster: is there one, does it accept this process, can each machine run trials."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from degan_search.search.workers import ray_patches
from degan_search.system.errors import IncompleteError, UserError

KNOCK_SECONDS, ASK_SECONDS = 5.0, 20.0
"""To wait for a connection, and for an answer; `ray.init` would wait for minutes and explain little."""
GONE_SECONDS = 30.0
"""Without an answer from the head until a sweep gives up; a head that is started again knows nothing of it."""
NODE_SECONDS = 120.0
"""For a machine's first answer: until then it has fetched this project and started a Python process."""
TOKEN = "set RAY_AUTH_MODE=token and copy its token file to ~/.ray/auth_token here, or name it by RAY_AUTH_TOKEN_PATH"
WORKER = "degan_search.search.workers.worker"
"""The module that each machine must be able to import; by name, so that this module does not import it."""
JOIN = "run `ray start --address={address}` here first, or start the sweep on a machine of the cluster"


def connect(address: str, options: Mapping[str, Any]) -> None:
    """Connect to a running cluster, `host:port` or `auto`; `options` go to `ray.init`.

    Raises:
        UserError: why it does not take us, and what to do.
    """
    if address == "auto":  # as `ray.init`, which sends the token of the home directory to no other address unasked
        ray_patches.use_token_of_home()
    else:
        _knock(address)
    _ask(address)
    if not ray_patches.is_part_of_cluster():
        raise UserError(f"this machine is not part of the Ray cluster at {address!r}: {JOIN.format(address=address)}")
    try:
        ray.init(address=address, runtime_env=_environment(), **options)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise UserError(f"the Ray cluster at {address!r} does not take this process: {_line(error)}") from None


def check_nodes(folder: Path | None) -> None:
    """Refuse a cluster in which a machine cannot run trials, or does not see the folder, if one is given.

    What workers write on a machine that does not see the folder would be lost. Machines without CPUs for Ray, as some
    heads are, get no trials and are not asked.

    Raises:
        UserError: names the machine.
    """
    token = folder and folder.absolute() / f".shared-{secrets.token_hex(4)}"
    if token:
        token.touch()
    try:
        found = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in found}
        asked = {node: _sees.options(scheduling_strategy=_on(node)).remote(token) for node in nodes}
        blind = [host for node, host in nodes.items() if not _answer(host, asked[node])]
    finally:
        if token:
            token.unlink(missing_ok=True)
    if blind:
        machines = ", ".join(dict.fromkeys(blind))
        raise UserError(
            f"{machines} of the cluster cannot see and write {folder and folder.absolute()}: give --storage a folder "
            "that all machines share (NFS), or an object store such as s3://bucket/runs"
        )


@contextlib.contextmanager
def watch_head(hint: str) -> Iterator[None]:
    """End this process, exit code 1, when the cluster's head has been gone for a while, saying so and the hint.

    Ray's own calls would wait without an end that could be caught, and a minute later Ray would end the process with a
    message of its own. The ledger stays valid: its files are whole or not there.
    """
    address, over = ray.get_runtime_context().gcs_address, threading.Event()

    def watch() -> None:
        seen = time.monotonic()
        while not over.wait(KNOCK_SECONDS):
            try:
                _open(address)
                seen = time.monotonic()
            except OSError as error:
                if time.monotonic() - seen > GONE_SECONDS:
                    said = f"the head of the Ray cluster, {address}, is gone ({error.strerror or error})"
                    print(f"error: {said}; when one is up again, {hint}", file=sys.stderr, flush=True)
                    os._exit(IncompleteError.exit_code)

    threading.Thread(target=watch, name="head", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _knock(address: str) -> None:
    """Refuse an address in a wrong form, or at which nothing listens."""
    if address.startswith("ray://"):
        raise UserError(f"--address {address!r}: Ray Client is not served; give host:port of the head's `ray start`")
    try:
        _open(address)
    except ValueError:
        raise UserError(f"--address {address!r} must be host:port of the cluster's head, or auto") from None
    except OSError as error:
        raise UserError(
            f"no Ray cluster at {address!r}: {error.strerror or error}; is the head up (`ray start --head`), and the "
            "port that of its `ray start` line?"
        ) from None


def _open(address: str) -> None:
    """Connect to host:port and disconnect; raises ValueError if it has another form, OSError if nothing answers."""
    parts = urlsplit(f"//{address}")
    if not (parts.hostname and parts.port):
        raise ValueError(address)
    socket.create_connection((parts.hostname, parts.port), KNOCK_SECONDS).close()


def _ask(address: str) -> None:
    """Ask the cluster whether it accepts us: in a process of its own, as Ray prints and may wait for minutes."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=ASK_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"no Ray cluster at {address!r}: what listens there does not answer as a head does") from None
    if asked.returncode == 0:
        return
    if re.search("couldn't find an authentication token|RAY_AUTH_TOKEN_PATH is set but", asked.stderr):
        raise UserError(f"RAY_AUTH_MODE is token, but there is no token for {address!r} here: {TOKEN}")
    if "InvalidAuthToken" in asked.stderr:
        wrong = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        told = "asks for another token than the one here" if wrong else "asks for a token"
        raise UserError(f"the Ray cluster at {address!r} {told}: {TOKEN}")
    last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise UserError(f"no Ray cluster at {address!r}: {last.partition('Error: ')[2] or last}")


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _sees(file: Path | None) -> bool:
    """Run on a machine of the cluster: import what a trial needs, and look for the file."""
    importlib.import_module(WORKER)
    return file is None or (file.exists() and os.access(file.parent, os.W_OK))


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _answer(host: str, asked: ray.ObjectRef) -> bool:
    try:
        return bool(ray.get(asked, timeout=NODE_SECONDS))
    except GetTimeoutError:
        raise UserError(f"{host} of the cluster has not answered for {NODE_SECONDS:g} s: see its logs") from None
    except RayError as error:
        raise UserError(
            f"{host} of the cluster cannot run this project: {_line(error)}; it needs the same Python and libraries as "
            "this machine (`pip install` there, or the same image)"
        ) from None


def _line(error: BaseException) -> str:
    """Return the message of a Ray error in one line; if it came with a remote traceback, the last line of that."""
    text = str(error).strip() or repr(error)
    if isinstance(error, RayTaskError):
        text = text.splitlines()[-1]
    return " ".join(text.split())


def _environment() -> dict[str, Any]:
    """Return what machines of a cluster get from here: this project's package, and credentials for an object store.

    They may have no copy of the package, or another version; torch and the other libraries must be installed there.
    """
    return {
        "py_modules": [str(Path(__file__).parents[2])],
        "env_vars": {name: value for name, value in os.environ.items() if name.startswith("AWS_")},
    }
