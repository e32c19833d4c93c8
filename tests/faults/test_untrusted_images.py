"""Images from somebody else that are made to harm: folders, Parquet and npz."""

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from degan_search.data import folders, npz, parquet
from degan_search.system import untrusted
from degan_search.system.errors import NoticeWarning, UserError
from tests.faults.hostile import ESCAPES, png, refused


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(png())
    return tmp_path / "images"


class TestImages:
    """Folders, Parquet and npz."""

    @pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
    def test_what_is_no_file_is_refused(self, folder, make):
        make(folder / "1.png")
        refused(lambda: folders.read_folder(folder), "1.png is a folder, pipe, device or broken link")

    def test_a_link_to_a_device_or_to_itself_is_refused(self, folder):
        (folder / "1.png").symlink_to("/dev/zero")
        refused(lambda: folders.read_folder(folder), "1.png")
        (folder / "1.png").unlink()
        (folder / "1.png").symlink_to("1.png")
        refused(lambda: folders.read_folder(folder), "1.png")

    @pytest.mark.parametrize("kind", ["png", "gif", "bmp", "tif"])
    def test_pixels_are_counted_before_they_are_decoded(self, folder, kind):
        (folder / f"1.{kind}").write_bytes(claims(kind))
        refused(lambda: folders.read_folder(folder), f"1.{kind}", "decompression bomb")

    def test_a_program_in_a_picture_is_none(self, folder):
        """Pillow would give an EPS file to Ghostscript, whatever its name."""
        (folder / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
        refused(lambda: folders.read_folder(folder), "1.png cannot be read as an image")

    def test_of_an_animation_the_first_picture_is_taken(self, folder):
        frames = [Image.new("RGB", (32, 32), colour) for colour in ("#ff0000", "#00ff00")]
        frames[0].save(folder / "0.png", save_all=True, append_images=frames[1:])
        assert folders.read_folder(folder).images[0, :, 0, 0].tolist() == [255, 0, 0]

    def test_too_many_images_are_refused_before_one_is_read(self, folder, monkeypatch):
        for number in range(1, 5):
            (folder / f"{number}.png").write_bytes(b"never read")
        monkeypatch.setattr(untrusted, "SET_BYTES", 4 * 3072)
        refused(lambda: folders.read_folder(folder), "5 images of 3,072 bytes each; at most 4")

    def test_names_cannot_forge_a_message(self, folder):
        (folder / f"{ESCAPES}\n.png".replace("/", "")).write_bytes(b"no image")
        with pytest.raises(UserError) as error:
            folders.read_folder(folder)
        assert "\x1b" not in str(error.value) and "\u202e" not in str(error.value) and r"\x1b[2J" in str(error.value)

    def test_names_that_are_no_text_can_be_told(self, folder):
        with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:  # noqa: PTH123
            file.write(b"no image")
        with pytest.raises(UserError) as error:
            folders.read_folder(folder)
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

    def test_long_labels_in_few_bytes(self, tmp_path, monkeypatch):
        """A million rows of one text of a megabyte, which the file holds once: a terabyte as text."""
        rows = pa.array([0], pa.int32()).take(pa.array(np.zeros(1_000_000, np.int32)))
        labels = pa.DictionaryArray.from_arrays(rows, pa.array(["x" * 10**6]))
        images = pa.array([b""], pa.binary()).take(rows)
        pq.write_table(pa.table({"label": labels, "image": images}), tmp_path / "set.parquet")
        assert (tmp_path / "set.parquet").stat().st_size < 1_000_000
        monkeypatch.setattr(untrusted, "BATCH_BYTES", 5_000_000)
        before = pa.default_memory_pool().max_memory()
        refused(lambda: parquet.read(tmp_path / "set.parquet"), "column label", "holds no class names", "row 0")
        assert pa.default_memory_pool().max_memory() - before < 200_000_000

    def test_shards_are_counted_together(self, tmp_path, monkeypatch):
        for number in range(3):
            pq.write_table(pa.table({"image": pa.array([b"never read"] * 2)}), tmp_path / f"{number}.parquet")
        monkeypatch.setattr(untrusted, "SET_BYTES", 5 * 3072)
        refused(lambda: parquet.read(tmp_path), "6 images of 3,072 bytes each; at most 5")

    @pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
    def test_what_is_no_file_is_not_opened_to_see_what_it_is(self, folder, make):
        make(folder / "1")
        with pytest.warns(NoticeWarning, match=r"1 passed over.*: 1$"):
            assert len(folders.read_folder(folder)) == 1

    def test_an_npz_header_that_claims_much(self, tmp_path):
        header = io.BytesIO()
        claimed = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 32, 32)}
        np.lib.format.write_array_header_1_0(header, claimed)
        with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
            archive.writestr("images.npy", header.getvalue())
        refused(lambda: npz.read_npz(tmp_path / "set.npz"), "[1000000000, 32, 32]", "at most 8,589,934,592 bytes")

    def test_a_zip_bomb(self, tmp_path, monkeypatch):
        with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", bytes(10**7))
        monkeypatch.setattr(untrusted, "SET_BYTES", 10**6)
        refused(lambda: npz.read_npz(tmp_path / "set.npz"), "unpacks to 10,000,000 bytes; at most 2,000,000")

    def test_an_endless_list_of_contents(self, tmp_path):
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**31, 0, 0)
        (tmp_path / "set.npz").write_bytes(b"PK\3\4" + bytes(100) + end)
        refused(lambda: npz.read_npz(tmp_path / "set.npz"), "list of contents of 2,147,483,648 bytes")


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
