"""Files from somebody else that are made to harm run no code, lead nowhere, fill no memory, and are refused in a line.

What is broken by chance is in `test_fuzz.py`; model files that do not fit are in `tests/stages/test_teacher.py`.
"""

import codecs
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analysis.tables import styles
from analysis.tables.table import save, table
from degan_search import ledger
from degan_search.cli.main import app
from degan_search.evaluation import networks
from degan_search.settings import yaml_text
from degan_search.settings.trial import TeacherConfig
from degan_search.stages.teacher_file import read_network
from degan_search.system import untrusted, weights_file
from degan_search.system.console import PlainConsole
from degan_search.system.errors import LONGEST, UserError, visible
from tests.faults.hostile import ESCAPES, refused


class TestRun:
    """What a run's folder holds beside the ledger."""

    @pytest.fixture
    def call(self):
        def called(*arguments):
            return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*map(str, arguments)])

        return called

    @pytest.mark.parametrize("content", ["{", "[" * 10**5, '{"versions": [[1]], "git_commit": {"a": 1}}'])
    def test_every_command_answers_in_a_line(self, run, call, tmp_path, content):
        for name in ("space.yaml", "run.json", "finals.json"):
            (run / name).write_text(content)
        for command in (
            ("table", run, "--style", "csv"),
            ("report", run, "--out", tmp_path / "report.html"),
            ("export", run, "--optuna", tmp_path / "journal.log"),
            ("finals", run, "--compare-only"),
            ("best", run, "--json"),
        ):
            result = call(*command)
            assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
            assert result.exit_code == 0 or (result.exit_code == 2 and result.stderr.count("\n") == 1)

    @pytest.mark.parametrize("name", ["table.csv", "table.md", "table.tex", "table.png"])
    def test_a_link_laid_out_for_an_output_is_replaced(self, run, tmp_path, name):
        (tmp_path / "mine").write_text("untouched")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(tmp_path / "mine")
        save(table(ledger.load(run)), run)
        assert (tmp_path / "mine").read_text() == "untouched"
        assert not (run / name).is_symlink()

    def test_a_network_that_lies_elsewhere(self, finished_run, tiny, tmp_path):
        run = shutil.copytree(finished_run, tmp_path / "run")
        student = run / "trials" / "search-0000" / "student.safetensors"
        student.rename(tmp_path / "other.safetensors")
        student.symlink_to(tmp_path / "other.safetensors")
        refused(lambda: networks.load_student(run, "search-0000", tiny(), 10), "is a link to", "outside its run")

    def test_tables_hold_no_formula(self):
        import pandas as pd

        table = pd.DataFrame({"proxy": ["=cmd|' /C calc'!A0", "+1", "@x", "-2+3", "plain", "-"], "score": [-1.0] * 6})
        lines = styles.csv(table).splitlines()[1:]
        assert [line[0] for line in lines] == ["'", "'", "'", "'", "p", "-"]
        assert all(line.endswith(",-1.0") for line in lines)

    def test_the_console_prints_brackets_and_escapes_as_they_are(self):
        stream = io.StringIO()
        console = PlainConsole(file=stream, force_terminal=True, color_system="truecolor")
        console.print(ESCAPES, highlight=False)
        assert stream.getvalue() == f"{visible(ESCAPES)}\n"
        assert "[red]x[/red] :smile:" in stream.getvalue()


class TestSettings:
    """YAML."""

    @pytest.mark.parametrize(
        "text",
        [
            "a: !!python/object/apply:os.system ['touch ran']",
            "a: !!python/name:os.system",
            "a: &a [*a]",
            '!!int ""',
            "!!timestamp x",
            "!!bool x",
            "[" * 10**5,
            '"\\ud800"',
            '"\\u001b[31m"',
            "? [a]\n: 1",
        ],
    )
    def test_yaml_that_is_no_setting(self, text, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        refused(lambda: yaml_text.parse(text, "this file"), "this file")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
    def test_what_is_no_file(self, tmp_path, make):
        make(tmp_path / "space.yaml")
        refused(lambda: yaml_text.read(tmp_path / "space.yaml", "it"), "it is a folder, pipe or device")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Encoded:
    """Bytes of text, when it is unpickled."""

    def __init__(self, codec):
        self.codec = codec

    def __reduce__(self):
        return codecs.encode, ("aa", self.codec)


class TestModels:
    """Archives of weights, beside what tests/test_teacher.py has."""

    def test_a_pickle_in_front_of_an_archive(self, tmp_path):
        """The reader of torch looks at the beginning, zip readers at the end."""
        stream = io.BytesIO()
        torch.save({"a": torch.zeros(2)}, stream)
        data = pickle.dumps(Bomb(tmp_path / "ran")) + stream.getvalue()
        refused(lambda: untrusted.check_state(data, "this"), "this is no archive of torch.save's")
        assert not (tmp_path / "ran").exists()

    def test_memory_asked_for_by_a_pickle(self):
        """`bytearray(n)` is a call that torch itself allows."""
        asked = pickle.PROTO + b"\2" + b"c__builtin__\nbytearray\n" + b"\x8a\5\0\0\0\0\2" + b"\x85R."
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", asked)
        refused(lambda: untrusted.check_state(stream.getvalue(), "this"), "'__builtin__ bytearray'")

    @pytest.mark.parametrize("archive", [True, False])
    @pytest.mark.parametrize(("codec", "refuses"), [("hex", True), ("Puny-code", True), ("latin1", False)])
    def test_bytes_that_grow(self, archive, codec, refuses):
        """Numpy's numbers are pickled as text to encode; an encoding that makes more of it would fill the memory."""
        stream = io.BytesIO()
        torch.save({"a": Encoded(codec), "b": np.float64(1)}, stream, _use_new_zipfile_serialization=archive)
        check = partial(untrusted.check_state, stream.getvalue(), "this")
        refused(check, f"encoding {codec!r}") if refuses else check()

    def test_nothing_of_numpy_is_called(self, tmp_path):
        """Its arrays can hold any object, and its types can be given any state."""
        kept = {"a": np.array([Bomb(tmp_path / "ran")], dtype=object), "w": torch.ones(2)}
        config = TeacherConfig(dataset="digits", network="lenet", path="w.pt")
        for archive in (True, False):
            stream = io.BytesIO()
            torch.save(kept, stream, _use_new_zipfile_serialization=archive)
            refused(partial(read_network, config, stream.getvalue(), ".pt", 10), "which no plain state dict needs")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("claimed", [2**31 - 1, 2**50])
    def test_an_old_file_that_claims_more_numbers_than_it_has(self, claimed):
        stream = io.BytesIO()
        torch.save({"w": torch.ones(77)}, stream, _use_new_zipfile_serialization=False)
        assert stream.getvalue().count(b"K\x4dN") == 1  # the storage's length, then None: it is no view
        data = stream.getvalue().replace(b"K\x4dN", b"\x8a\x08" + claimed.to_bytes(8, "little") + b"N")
        config = TeacherConfig(dataset="digits", network="lenet", path="w.pt")
        refused(partial(read_network, config, data, ".pt", 10), "it is broken")

    def test_overlapping_parts(self, monkeypatch):
        """One part listed a hundred times."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a/0", bytes(1000))
            first = archive.infolist()[0]
            for number in range(1, 100):
                other = zipfile.ZipInfo(f"a/{number}")
                for name in ("header_offset", "file_size", "compress_size", "CRC"):
                    setattr(other, name, getattr(first, name))
                archive.filelist.append(other)
        refused(lambda: untrusted.check_zip(stream, "this", 50_000), "unpacks to 100,000 bytes; at most 50,000")

    @pytest.mark.parametrize("dtype", ["F32", "F4", "U8", "NONE"])
    def test_safetensors_that_claims_much(self, dtype):
        header = json.dumps({"a": {"dtype": dtype, "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
        data = struct.pack("<Q", len(header)) + header + bytes(8)
        refused(lambda: weights_file.read_tensors(data, "this"), "this is not a whole safetensors file")


def test_long_messages_are_cut():
    assert len(str(UserError("x" * 10**6))) < LONGEST + 20
