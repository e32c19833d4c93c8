"""CPUs of its own for each process."""

from __future__ import annotations

import os
import socket

CPU_NAME = "degan-search/cpu"
"""What a process that has a CPU to itself binds a socket to, with the CPU's number."""
_taken: list[socket.socket] = []
"""The sockets of this process's CPUs: it has them as long as it lives."""


def pin(threads: int) -> bool:
    """Keep the calling thread, and those that it starts later, on CPUs that no other process has pinned itself to.

    Returns whether it did; once done, it stays so until the process ends. Where so many CPUs are not free, or the
    system knows no affinity, nothing changes. A CPU is taken by a socket in Linux's abstract namespace: one process
    alone can bind a name, and the kernel frees it however the process ends. Nothing ever connects to it.
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
