"""Output that is not UTF-8, or whose reader has gone."""

import os
import subprocess
import sys

import pytest
from made_ledger import made_ledger
from rich.console import Console

from degan_search.api import conclude
from degan_search.search.open_run import Run
from degan_search.search.run.options import Options

MAIN = "from degan_search.cli.main import main; main()"
WRITES = """
import sys
from pathlib import Path
from rich.console import Console
from degan_search.cli import streams
from degan_search.cli.app import console
streams.make_lasting()
for number in range(3000):
    console.print(f"line {number}")
    print("more " * 50)
    sys.stdout.flush()
Console(stderr=True).print("on stderr")
Path("done").write_text("")
"""


def run(program, *arguments, **environment):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "100", **environment}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("runs") / "made", 48)


@pytest.fixture(scope="module")
def whole(made):
    """A table in UTF-8."""
    return run(MAIN, "table", made, PYTHONIOENCODING="utf-8").communicate(timeout=60)[0].decode()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_characters_that_cannot_be_shown_are_replaced(made, whole, encoding):
    out, err = run(MAIN, "table", made, PYTHONIOENCODING=encoding).communicate(timeout=60)
    assert not err
    assert "───" not in out.decode(encoding)
    assert "???" in out.decode(encoding)
    assert ("±" in out.decode(encoding)) == (encoding != "ascii")
    assert "───" in whole
    assert len(whole) == len(out.decode(encoding))


def test_a_reader_that_goes_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = run(WRITES)
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.stderr.read() == b"on stderr\n"
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_a_closed_output_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", WRITES]
    assert subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *command], timeout=60).returncode == 0
    assert (tmp_path / "done").exists()


def test_a_sweep_writes_all_its_files_before_it_prints(made, tmp_path):
    class Broken:
        encoding = "ascii"

        def write(self, text):
            text.encode("ascii")

        def flush(self):
            pass

    files = [made / name for name in ("table.csv", "table.md", "report.html")]
    for file in files:
        file.unlink(missing_ok=True)
    options = Options(storage=made.parent, name=made.name)
    with pytest.raises(UnicodeEncodeError):
        conclude.conclude(Run(options, Console(file=Broken()), None, None), 0.0)
    assert all(file.stat().st_size for file in files)
