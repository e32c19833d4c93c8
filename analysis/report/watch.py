"""A local server of the report page, which shows a sweep while it runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

import pandas as pd

from analysis import report
from analysis.report.samples import plain_file
from degan_search.ledger import row_file
from degan_search.storage import layout
from degan_search.system.errors import UserError

HOST = "127.0.0.1"
Importances = Callable[[Path], pd.DataFrame | None]
SAMPLES = re.compile(rf"/trials/({row_file.TRIAL_ID})/samples\.png")


class Page:
    """A run's page, made again when it is asked for and the run's files have changed."""

    def __init__(self, run: Path, importances: Importances) -> None:
        self.run = run
        self._importances = importances
        self._lock = Lock()
        self._made = ("", "")

    def version(self) -> str:
        """Return a text that changes with the run's files."""
        parts = []
        for pattern in (f"{layout.LEDGER}/*.parquet", f"{layout.SCORES}/*.parquet", "run.json", "space.yaml"):
            for file in sorted(self.run.glob(pattern)):
                try:
                    about = file.stat()
                except FileNotFoundError:  # it was removed after `glob` had found it
                    continue
                parts.append(f"{file.name} {about.st_size} {about.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def html(self) -> str:
        """Return the page as of now.

        Raises:
            UserError: no run there, or a broken ledger.
        """
        with self._lock:
            version = self.version()
            if self._made[0] != version:
                self._made = (
                    version,
                    report.render(self.run, importances=self._importances(self.run), version=version),
                )
            return self._made[1]


class Handler(BaseHTTPRequestHandler):
    """Answers requests for the page, its version and the run's sample grids, and for nothing else."""

    def __init__(self, page: Page, *args: object) -> None:
        self.page = page
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer one request."""
        # Another site's page must not read this one by a name that it points here.
        host = self.headers.get("Host", "").rpartition(":")[0]
        path = self.path.partition("?")[0]
        samples = SAMPLES.fullmatch(path)
        if host not in (HOST, "localhost"):
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"only at 127.0.0.1\n")
        elif path == "/":
            self._page()
        elif path == "/version":
            self._answer(HTTPStatus.OK, "text/plain", self.page.version().encode())
        elif samples and (picture := plain_file(self.page.run, samples[1])):
            self._answer(HTTPStatus.OK, "image/png", picture.read_bytes())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not here\n")

    def _page(self) -> None:
        try:
            self._answer(HTTPStatus.OK, "text/html", self.page.html().encode())
        except (UserError, OSError) as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{error}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind if kind == "image/png" else f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, as the page asks every few seconds."""


def server(run: Path, port: int = 0, importances: Importances = lambda run: None) -> ThreadingHTTPServer:
    """Return a server of a run's page on 127.0.0.1; port 0 takes any free one.

    `importances` gives those of the run's settings, as `report.write` takes them.

    Raises:
        UserError: no run there, a broken ledger, or the port cannot be had.
    """
    page = Page(run, importances)
    page.html()  # an error of the run is raised here, before anything is served
    try:
        return ThreadingHTTPServer((HOST, port), partial(Handler, page))
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} cannot be used: {error}; 0 takes any free one") from None


def serve(run: Path, port: int, importances: Importances, say: Callable[[str], None]) -> None:
    """Serve a run's page until Ctrl-C; `say` is given its address first.

    Raises:
        UserError: as `server`.
    """
    with server(run, port, importances) as serving:
        try:
            say(f"http://{HOST}:{serving.server_address[1]}/")
            serving.serve_forever()
        except KeyboardInterrupt:
            return
