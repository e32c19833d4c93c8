"""Machines of a Ray cluster, each a `ray start` of its own."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import command, descendants


class Node:
    """`ray start` in the foreground, with files, ports and processes of its own."""

    def __init__(self, *arguments, python=sys.executable, first=(), environment=None):
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # Ray's sockets need a short name
        self.log = self.folder / "log"
        start = (python, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats")
        ports = ("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=200000000")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*first, *start, *ports, f"--temp-dir={self.folder}", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, "RAY_debug_dump_period_milliseconds": "1000", **(environment or {})},
                start_new_session=True,
            )

    def up(self):
        """Wait until it runs."""
        for _ in range(1200):
            if "Ray runtime started" in self.log.read_text():
                return self
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def workers(self):
        """Return the process ids of its trial workers."""
        return [pid for pid in descendants(self.process.pid) if re.match(r"ray::\w*Trainable", command(pid))]

    def kill(self):
        """Kill the raylet, its workers and all else of it, with SIGKILL."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def fetched(self):
        """Return how many objects, of 5 MB at most, this machine has fetched from others, as its raylet tells."""
        (state,) = self.folder.glob("session_2*/logs/debug_state.txt")
        now = time.time()
        while state.stat().st_mtime < now + 1:  # written once a second, see Cluster
            time.sleep(0.1)
        return int(re.search(r"num chunks received total: (\d+)", state.read_text())[1])

    def shipped(self):
        """Return the names of the files that Ray has brought."""
        packages = self.folder.glob("session_2*/runtime_resources/py_modules_files/*/")
        return {file.relative_to(top).as_posix() for top in packages for file in top.rglob("*") if file.is_file()}


class Cluster:
    """A head that runs no trials, and workers with one CPU each, as `ray start` on so many machines; with a token."""

    def __init__(self, folder):
        token = folder / "token"
        token.write_text("the-token-of-the-tests-0123456789")
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        port, client = free_ports(2)
        head = ("--head", f"--port={port}", f"--ray-client-server-port={client}", "--include-dashboard=false")
        self.address = f"127.0.0.1:{port}"
        self.nodes = [Node(*head, "--num-cpus=0", environment=self.environment).up()]

    def add(self, environment=None, **options):
        """Add a worker."""
        arguments = (f"--address={self.address}", "--num-cpus=1")
        self.nodes.append(Node(*arguments, environment=self.environment | (environment or {}), **options))
        return self.nodes[-1]

    def end(self):
        """Kill what runs and remove its files."""
        for node in reversed(self.nodes):
            node.kill()
            shutil.rmtree(node.folder, ignore_errors=True)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in taken:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in taken]
