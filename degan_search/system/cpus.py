"""The CPUs that a process may use, and binding it to some that no other process uses."""

from __future__ import annotations

import os
import socket

CPU_NAME = "degan-search/cpu"
"""Prefix of the socket's name that reserves a CPU; the CPU's number follows."""
_taken: list[socket.socket] = []
"""The sockets that reserve this process's CPUs; they stay open for as long as it lives."""


def usable() -> int:
    """Return how many CPUs this process may use: under `taskset`, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pin(threads: int) -> bool:
    """Bind the calling thread, and threads that it starts later, to CPUs that no other process has reserved.

    Returns whether it is bound; this lasts until the process ends. Nothing changes where fewer than `threads` CPUs are
    free, or where the system has no CPU affinity. A CPU is reserved by binding a socket in Linux's abstract namespace:
    only one process can bind a name, and the kernel frees it however the process ends. Nothing connects to the socket.
    """
    if _taken or not hasattr(os, "sched_setaffinity"):
        return bool(_taken)
    cpus = []
    for cpu in sorted(os.sched_getaffinity(0)):
        flag = socket.socket(socket.AF_UNIX)
        try:
            flag.bind(f"\0{CPU_NAME}/{cpu}")
        except OSError:
            flag.close()
            continue
        cpus.append(cpu)
        _taken.append(flag)
        if len(cpus) == threads:
            os.sched_setaffinity(0, cpus)
            return True
    while _taken:
        _taken.pop().close()
    return False
