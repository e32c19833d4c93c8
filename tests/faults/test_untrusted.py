"""Files from somebody else that are made to harm run no code, lead nowhere, fill no memory, and are refused in a line.

What is broken by chance is in `test_fuzz.py`; model files that do not fit are in `tests/test_teacher.py`.
"""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_ledger import made_ledger
from PIL import Image
from typer.testing import CliRunner

from analysis.tables import styles
from analysis.tables import table as tables
from degan_search import ledger
from degan_search.cli import main  # noqa: F401  (adds the commands)
from degan_search.cli.app import PlainConsole, app
from degan_search.data import files, parquet
from degan_search.evaluation import networks
from degan_search.ledger import pack as packs
from degan_search.ledger import row_file
from degan_search.ledger.columns import config_columns, config_of
from degan_search.settings import yaml_text
from degan_search.settings.resolve import trial_config
from degan_search.system import untrusted, weights_file
from degan_search.system.errors import LONGEST, BrokenFileWarning, UserError, visible

ESCAPES = "\x1b[2J\x1b]0;title\x07 \u202eevil [red]x[/red] :smile:"


def png(size=(8, 8), mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(png())
    return tmp_path / "images"


def left_out(run, *says):
    """A file of one row is broken: it is named, and the other rows are there."""
    with pytest.warns(BrokenFileWarning) as told:
        frame = ledger.load(run)
    for part in ("cannot be read and is left out", *says):
        assert part in str(told[0].message)
    assert len(frame) == len(list((run / "ledger").iterdir())) - 1 > 0


def refused(action, *says):
    with pytest.raises(UserError) as error:
        action()
    for part in says:
        assert part in str(error.value)


class TestImages:
    """Folders, Parquet and npz."""

    @pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
    def test_what_is_no_file_is_refused(self, folder, make):
        make(folder / "1.png")
        refused(lambda: files.read_folder(folder), "1.png is a folder, pipe, device or broken link")

    def test_a_link_to_a_device_or_to_itself_is_refused(self, folder):
        (folder / "1.png").symlink_to("/dev/zero")
        refused(lambda: files.read_folder(folder), "1.png")
        (folder / "1.png").unlink()
        (folder / "1.png").symlink_to("1.png")
        refused(lambda: files.read_folder(folder), "1.png")

    @pytest.mark.parametrize("kind", ["png", "gif", "bmp", "tif"])
    def test_pixels_are_counted_before_they_are_decoded(self, folder, kind):
        (folder / f"1.{kind}").write_bytes(claims(kind))
        refused(lambda: files.read_folder(folder), f"1.{kind}", "decompression bomb")

    def test_a_program_in_a_picture_is_none(self, folder):
        """Pillow would give an EPS file to Ghostscript, whatever its name."""
        (folder / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
        refused(lambda: files.read_folder(folder), "1.png cannot be read as an image")

    def test_of_an_animation_the_first_picture_is_taken(self, folder):
        frames = [Image.new("RGB", (32, 32), colour) for colour in ("#ff0000", "#00ff00")]
        frames[0].save(folder / "0.png", save_all=True, append_images=frames[1:])
        assert files.read_folder(folder).images[0, :, 0, 0].tolist() == [255, 0, 0]

    def test_too_many_images_are_refused_before_one_is_read(self, folder, monkeypatch):
        for number in range(1, 5):
            (folder / f"{number}.png").write_bytes(b"never read")
        monkeypatch.setattr(untrusted, "SET_BYTES", 4 * 3072)
        refused(lambda: files.read_folder(folder), "5 images of 3,072 bytes each; at most 4")

    def test_names_cannot_forge_a_message(self, folder):
        (folder / f"{ESCAPES}\n.png".replace("/", "")).write_bytes(b"no image")
        with pytest.raises(UserError) as error:
            files.read_folder(folder)
        assert "\x1b" not in str(error.value) and "\u202e" not in str(error.value) and r"\x1b[2J" in str(error.value)

    def test_names_that_are_no_text_can_be_told(self, folder):
        with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:  # noqa: PTH123
            file.write(b"no image")
        with pytest.raises(UserError) as error:
            files.read_folder(folder)
        str(error.value).encode()

    def test_a_file_that_parquet_names_is_not_opened(self, tmp_path):
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        (tmp_path / "secret.png").write_bytes(png())
        rows = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}], kind)
        pq.write_table(pa.table({"image": rows}), tmp_path / "set.parquet")
        refused(lambda: parquet.read(tmp_path / "set.parquet"), "row 0")

    @pytest.mark.parametrize("rows", [3_000_000, 100_000_000])
    def test_many_rows_in_few_bytes(self, tmp_path, rows):
        file = tmp_path / "set.parquet"
        kind = pa.struct([("bytes", pa.binary())])
        with pq.ParquetWriter(file, pa.schema([("image", kind)])) as writer:
            part = pa.table({"image": pa.array([{"bytes": b""}], kind).take(pa.array(np.zeros(1_000_000, np.int32)))})
            for _ in range(rows // 1_000_000):
                writer.write_table(part)
        assert file.stat().st_size < 1_000_000
        refused(lambda: parquet.read(file), f"{rows:,} images of 3,072 bytes each; at most 2,796,202")

    def test_a_repeated_large_image_is_read_in_batches(self, tmp_path, monkeypatch):
        """80 rows of one value of half a megabyte, which the file holds once."""
        stream = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (408, 408, 3), np.uint8)
        Image.fromarray(noise).save(stream, "PNG", compress_level=0)
        kind = pa.struct([("bytes", pa.binary())])
        rows = pa.array([{"bytes": stream.getvalue()}], kind).take(pa.array(np.zeros(80, np.int32)))
        pq.write_table(pa.table({"image": rows}), tmp_path / "set.parquet")
        assert (tmp_path / "set.parquet").stat().st_size < 2_000_000
        monkeypatch.setattr(untrusted, "BATCH_BYTES", 5_000_000)
        before = pa.default_memory_pool().max_memory()
        assert len(parquet.read(tmp_path / "set.parquet")) == 80
        assert pa.default_memory_pool().max_memory() - before < 20_000_000

    def test_an_npz_header_that_claims_much(self, tmp_path):
        header = io.BytesIO()
        claimed = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 32, 32)}
        np.lib.format.write_array_header_1_0(header, claimed)
        with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
            archive.writestr("images.npy", header.getvalue())
        refused(lambda: files.read_npz(tmp_path / "set.npz"), "[1000000000, 32, 32]", "at most 8,589,934,592 bytes")

    def test_a_zip_bomb(self, tmp_path, monkeypatch):
        with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", bytes(10**7))
        monkeypatch.setattr(untrusted, "SET_BYTES", 10**6)
        refused(lambda: files.read_npz(tmp_path / "set.npz"), "unpacks to 10,000,000 bytes; at most 2,000,000")

    def test_an_endless_list_of_contents(self, tmp_path):
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**31, 0, 0)
        (tmp_path / "set.npz").write_bytes(b"PK\3\4" + bytes(100) + end)
        refused(lambda: files.read_npz(tmp_path / "set.npz"), "list of contents of 2,147,483,648 bytes")


def claims(kind):
    """An image file of a few bytes whose header claims 60,000 x 60,000 pixels."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, {"tif": "TIFF"}.get(kind, kind))
    data, side = bytearray(stream.getvalue()), 60_000
    if kind == "png":
        data[16:24] = struct.pack(">2L", side, side)
        import zlib

        data[29:33] = struct.pack(">L", zlib.crc32(data[12:29]))
    elif kind == "gif":
        data[6:10] = struct.pack("<2H", side, side)
    elif kind == "bmp":
        data[18:26] = struct.pack("<2l", side, side)
    else:
        directory = struct.unpack("<L", data[4:8])[0]
        count = struct.unpack("<H", data[directory : directory + 2])[0]
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            if struct.unpack("<H", data[entry : entry + 2])[0] in (256, 257):
                data[entry + 2 : entry + 12] = struct.pack("<HLL", 4, 1, side)
    return bytes(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("runs") / "made", 12)


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def change(run, **columns):
    """Write other values into the first row's file; return it."""
    file = sorted((run / "ledger").glob("search-*"))[0]
    table = pq.read_table(file)
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        array = value if isinstance(value, pa.Array) else pa.array([value], table.schema.field(name).type)
        table = table.set_column(place, pa.field(name, array.type), array)
    pq.write_table(table, file)
    return file


def first(run):
    """The row that `change` changes."""
    return ledger.load(run).set_index("trial_id", drop=False).loc["search-0000"]


class TestLedger:
    """Rows of somebody else's."""

    @pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", ".hidden", "a/b", "a\0b", "x" * 200, "", None])
    def test_a_trial_cannot_name_another_place(self, run, name):
        file = change(run, trial_id=name)
        refused(lambda: ledger.load(run), str(file), "move it away")
        refused(lambda: networks.find(run, "best", "student"), str(file))

    def test_a_row_is_its_files(self, run):
        file = change(run, trial_id="search-9999")
        refused(lambda: ledger.curves(run), str(file), "'search-9999'")

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"attempt": None}, "attempt None"),
            ({"state": "DONE"}, "state 'DONE'; known: COMPLETE, PRUNED, FAIL"),
            ({"phase": None}, "phase None; known: search, final"),
            ({"schema_version": 99}, "rows of schema 99"),
            ({"started": pa.array([2**62], pa.timestamp("us", "UTC"))}, "before 1970 or after 2199"),
        ],
    )
    def test_odd_rows(self, run, columns, said):
        change(run, **columns)
        refused(lambda: ledger.load(run), str(run), said)

    @pytest.mark.parametrize(
        "columns",
        [
            {"score": pa.array(["high"])},
            {"score": pa.array([[0.5]])},
            {"reason": pa.array([b"\xff"]).view(pa.string())},
        ],
    )
    def test_values_of_another_kind(self, run, columns):
        left_out(run, change(run, **columns).name)

    def test_reports_without_budget(self, run):
        change(run, reports=[{"score": 0.5, "seconds": 1.0}])
        refused(lambda: ledger.curves(run), "report without budget")

    @pytest.mark.parametrize("times", [0, 2, 1_000_000])
    def test_a_file_is_one_row(self, run, times):
        file = sorted((run / "ledger").glob("*"))[0]
        table = pq.read_table(file, columns=["trial_id", "attempt", "phase", "state"])
        pq.write_table(table.take(pa.array(np.zeros(times, np.int64))), file)
        left_out(run, f"it has {times:,} rows; one is expected")

    def test_a_million_reports_in_few_bytes(self, run):
        reports = [{"budget": 1, "score": 0.5, "seconds": 1.0}] * 1_000_000
        file = change(run, reports=reports)
        assert file.stat().st_size < 1_000_000
        left_out(run, "1,000,000 of one column; that is no trial")

    def test_a_column_that_is_there_twice(self, run):
        file = sorted((run / "ledger").glob("*"))[0]
        pq.write_table(pq.read_table(file).append_column("score", pa.array([1.0])), file)
        left_out(run, "two columns of one name")

    @pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
    def test_what_is_no_file(self, run, make):
        make(run / "ledger" / "search-7777-1.parquet")
        left_out(run, "search-7777-1.parquet", "plain file is needed")

    def test_folders_that_lead_elsewhere(self, run, tmp_path):
        (run / "scores").rename(tmp_path / "other")
        (run / "scores").symlink_to(tmp_path / "other")
        refused(lambda: ledger.load(run), "scores is a link")

    def test_a_pack_is_looked_at_like_its_rows(self, run, monkeypatch):
        monkeypatch.setattr(packs, "PACK_FROM", 1)
        expected = ledger.load(run)
        pack = run / "packed" / "ledger.parquet"
        table = pq.read_table(pack)
        names = table["trial_id"].to_pylist()
        pq.write_table(table.set_column(0, "trial_id", pa.array(["../x", *names[1:]])), pack)
        refused(lambda: ledger.load(run), "../x")
        pq.write_table(pa.concat_tables([table] * 3), pack)
        assert ledger.load(run).equals(expected)

    def test_text_cannot_style_a_terminal(self, run):
        change(run, reason=ESCAPES, cell=f"{ESCAPES}\nx", host=ESCAPES)
        row = first(run)
        assert row["reason"] == row["host"] == visible(ESCAPES)
        assert row["cell"] == f"{visible(ESCAPES)}\nx"

    DEEP = '{"a":' * 900 + "1" + "}" * 900

    @pytest.mark.parametrize("text", [None, "", '{"a"', "[1]", "3", "[" * 10**5, DEEP, "NaN"])
    def test_configurations_that_are_none(self, run, text):
        change(run, config_json=text)
        refused(lambda: config_of(first(run)), "configuration of search-0000")

    @pytest.mark.parametrize(
        "values",
        [{"proxy": ESCAPES}, {"student": {"width": 10**9}}, {"gan": {"latent": 10**6}}, {"proxy": "x" * 10**6}],
    )
    def test_configurations_that_ask_too_much(self, run, values):
        change(run, config_json=json.dumps(values))
        with pytest.raises(UserError) as error:
            config_of(first(run))
        assert "\x1b" not in str(error.value) and len(str(error.value)) < 2 * LONGEST


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
        tables.save(tables.table(ledger.load(run)), run)
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
        console = PlainConsole(file=stream, markup=False, emoji=False, force_terminal=True, color_system="truecolor")
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
            "a: &b [1]\nc: *b",
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


def test_arrows_pattern_is_that_of_messages():
    for number in (*range(0x2100), *range(0x2000, 0x2070)):
        character = chr(number)
        found = pa.compute.match_substring_regex(pa.array([character]), row_file.UNSEEN)[0].as_py()
        assert found == (visible(character) != character), hex(number)


def test_config_columns_of_settings_with_brackets_are_kept():
    config = trial_config({"proxy": "cifar100/[flowers,trees]"})
    assert config_of({"trial_id": "x", **config_columns(config)}) == config
