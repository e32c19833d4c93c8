"""The report page, served while a sweep writes."""

import http.client
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner

from analysis.report import samples, watch
from degan_search import ledger
from degan_search.cli.main import app
from degan_search.system.errors import BrokenFileWarning, UserError
from tests.analysis.report.pages import fail


def huge(file):
    file.write_bytes(samples.PNG)
    os.truncate(file, 2**36)  # takes no room on the disk


@pytest.fixture
def served(tmp_path):
    """A run that has begun, its server, and a way to ask it."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "space.yaml").write_text("description: begun")
    server = watch.server(run)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask(path, host="127.0.0.1"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", f"{host}:{server.server_address[1]}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()

    yield run, f"http://127.0.0.1:{server.server_address[1]}/", ask
    server.shutdown()
    server.server_close()


class TestWatch:
    """`--watch`."""

    def test_serves_the_page_and_grids_alone(self, served, tmp_path):
        run, address, ask = served
        assert address.startswith("http://127.0.0.1:")
        for name in ("search-0000", "search-0001"):
            (run / "trials" / name).mkdir(parents=True)
        (run / "trials" / "search-0000" / "samples.png").write_bytes(samples.PNG)
        (run / "trials" / "search-0000" / "student.safetensors").write_bytes(b"secret")
        (run / "samples.png").write_bytes(b"secret")
        (tmp_path / "samples.png").write_bytes(b"secret")
        (run / "trials" / "search-0001" / "samples.png").symlink_to(tmp_path / "samples.png")
        (run / "trials" / "search-0002").symlink_to(tmp_path)
        assert ask("/")[0] == 200
        assert ask("/trials/search-0000/samples.png") == (200, samples.PNG)
        paths = ["/space.yaml", "/trials/../samples.png", "/trials/%2e%2e/samples.png", "/trials/./samples.png"]
        paths += ["/trials/search-0000/student.safetensors", "/trials/search-0000", "/trials/"]
        paths += ["/trials/search-0001/samples.png", "/trials/search-0002/samples.png", "/../samples.png"]
        assert {path: ask(path)[0] for path in paths} == dict.fromkeys(paths, 404)
        for host in ("elsewhere.example", "127.0.0.1.elsewhere.example", "localhost.elsewhere.example", "0.0.0.0", ""):
            assert ask("/", host=host)[0] == 403
            assert ask("/version", host=host)[0] == 403

    def test_is_there_for_this_machine_alone(self, made):
        server = watch.server(made)
        assert server.server_address[0] == "127.0.0.1"
        server.server_close()

    def test_a_grid_that_is_no_picture_to_look_at_is_left_out(self, served):
        run, _, ask = served
        for name, make in (("pipe", os.mkfifo), ("huge", huge)):
            (run / "trials" / name).mkdir(parents=True)
            make(run / "trials" / name / "samples.png")
            assert ask(f"/trials/{name}/samples.png")[0] == 404

    def test_refreshes_itself_and_keeps_filters(self, served, visit):
        run, address, ask = served
        before = ask("/version")
        tab = visit(address)
        expect(tab.locator(".notice")).to_contain_text("No trial has finished yet")
        tab.locator("#filters [name=text]").fill("search-0001")
        for number in range(2):
            ledger.write_row(run, fail(f"search-000{number}"))
        expect(tab.locator("#count")).to_have_text("1 of 2 trials")
        expect(tab.locator("#filters [name=text]")).to_have_value("search-0001")
        assert ask("/version") != before

    def test_a_broken_row_is_named_and_left_out(self, served):
        run, _, ask = served
        (run / "ledger").mkdir()
        (run / "ledger" / "search-0000-1.parquet").write_bytes(b"broken")
        with pytest.warns(BrokenFileWarning, match=r"search-0000-1\.parquet"):
            assert ask("/")[0] == 200

    def test_a_ledger_that_is_refused_is_told(self, served, tmp_path):
        run, _, ask = served
        ledger.write_row(tmp_path / "other", fail("search-0000"))
        (run / "ledger").symlink_to(tmp_path / "other" / "ledger")
        status, text = ask("/")
        assert status == 500
        assert b"ledger is a link" in text

    def test_ends_at_ctrl_c(self, made):
        # A shell that starts the tests in the background has them ignore the signal.
        program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        program += "from degan_search.cli.main import main; main()"
        arguments = [sys.executable, "-c", program, "report", str(made), "--watch"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as child:
            assert child.stdout.readline().startswith("http://127.0.0.1:")
            child.send_signal(signal.SIGINT)
            assert child.wait(60) == 0

    def test_faults_are_told(self, made, tmp_path):
        for arguments in (["--port", "99999"], ["--out", "page.html"]):
            result = CliRunner().invoke(app, ["report", str(made), "--watch", *arguments])
            assert result.exit_code == 2, result.output
        with pytest.raises(UserError, match="no run at"):
            watch.server(tmp_path / "none")
