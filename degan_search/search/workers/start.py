"""Starting Ray on this machine, and what to do where it cannot be."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from degan_search.search.workers import ray_patches
from degan_search.search.workers.environment import environment
from degan_search.system import cpus
from degan_search.system.errors import UserError

LONGEST_SOCKET = "ray/session_2026-01-01_12-00-00_000000_4194304/sockets/plasma_store"
SOCKET_BYTES = 107 if sys.platform == "linux" else 103
"""That the operating system allows for the path of a socket."""
TRIES = 3
"""Starts of Ray on a busy machine: each gives up after 30 s, which Ray 2.60 has as a number in its code."""
TOO_SLOW = "timed out during startup"


def start(options: Mapping[str, Any], networks: Collection[str] = ()) -> None:
    """Start Ray with as many CPUs as this process may use; `options` go to `ray.init`.

    Its workers get the user's own code of these networks.

    Raises:
        UserError: why it does not start, and what to do.
    """
    _check_sockets()
    count = min(ray_patches.cpus_of_machine(), cpus.usable())
    try:
        with environment(networks, cluster=False) as made:
            given = {"runtime_env": made, **options} if made else options
            # "local": on machines of a cluster RAY_ADDRESS is set and would be followed.
            _init(address="local", num_cpus=count, include_dashboard=False, configure_logging=True, **given)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, RayError) as error:
        ray.shutdown()
        raise UserError(f"Ray cannot be started here: {_reason(error)}") from error


def _init(**options: Any) -> None:
    """Start Ray, again where it was too slow, which is an error of no class of its own."""
    for left in reversed(range(TRIES)):
        try:
            ray.init(**options)
            return
        except Exception as error:
            if TOO_SLOW not in str(error):
                raise
            ray.shutdown()
            if not left:
                raise UserError(
                    f"Ray cannot be started here: in {TRIES} tries its processes were not ready within 30 s, as on a "
                    "machine that is busy with other programs; try again when it has time"
                ) from error


def _check_sockets() -> None:
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name)  # as Ray chooses; else it takes /tmp
    length = len(os.fsencode(f"{folder}/{LONGEST_SOCKET}"))
    if folder and length > SOCKET_BYTES:
        raise UserError(
            f"Ray cannot be started here: it makes sockets in {folder}, whose path is {length - SOCKET_BYTES} bytes "
            f"too long for that: set {name} to a shorter one, as in {name}=/tmp"
        )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or repr(error)
    if "RAY_AUTH_TOKEN_PATH" in text:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH")
        return (
            f"RAY_AUTH_TOKEN_PATH={path} holds no token that can be read: name a file with one, or unset it, and Ray "
            "makes one in ~/.ray/auth_token"
        )
    home = Path.home()
    if isinstance(error, OSError) and error.filename and Path(error.filename).is_relative_to(home):
        return (
            f"it keeps its token in {home / '.ray'}, and {error.filename} cannot be written "
            f"({error.strerror}): set HOME to a folder that can, or RAY_AUTH_TOKEN to a long random word"
        )
    return text
