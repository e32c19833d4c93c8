"""Images of more than 8 bits: scaled by their depth, or refused by name, by every reader."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from degan_search.data import proxies
from degan_search.system.errors import NoticeWarning, UserError

RAMP = np.linspace(0, 65535, 32 * 32).round().astype(np.uint16).reshape(32, 32)
EXPECTED = np.round(RAMP / 257).astype(np.uint8)


def encoded(pixels, kind, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def in_folder(root, content, suffix):
    (root / "set").mkdir()
    for number in range(2):
        (root / "set" / f"{number}.{suffix}").write_bytes(content)
    return f"folder:{root / 'set'}"


def in_parquet(root, content, suffix):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array([{"bytes": content}] * 2, kind)}), root / "set.parquet")
    return f"parquet:{root / 'set.parquet'}"


def in_npz(root, content, suffix):
    pixels = np.asarray(Image.open(io.BytesIO(content))).astype(np.uint16)
    np.savez(root / "set.npz", images=np.stack([pixels, pixels]))
    return f"npz:{root / 'set.npz'}"


def tiff_12_bits(values):
    """An uncompressed TIFF file of packed 12-bit values, which says BitsPerSample 12."""
    low = values.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([low[:, 0] >> 4, (low[:, 0] & 15) << 4 | low[:, 1] >> 8, low[:, 1] & 255], 1).astype(np.uint8)
    height, width = values.shape
    entries = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries.append((279, packed.size))
    directory = len(entries).to_bytes(2, "little")
    for tag, value in entries:
        directory += tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
    return b"II*\0" + (8 + packed.size).to_bytes(4, "little") + packed.tobytes() + directory + bytes(4)


FILES = {
    "png": (encoded(RAMP, "PNG"), "png"),
    "tiff": (encoded(RAMP, "TIFF"), "tif"),
    "tiff, packed": (encoded(RAMP, "TIFF", compression="tiff_lzw"), "tif"),
    "tiff, big endian": (encoded(Image.frombytes("I;16B", (32, 32), RAMP.byteswap().tobytes()), "TIFF"), "tif"),
    "pgm": (encoded(RAMP, "PPM"), "pgm"),
}


@pytest.mark.parametrize("place", [in_folder, in_parquet, in_npz])
@pytest.mark.parametrize("file", FILES)
def test_16_bits_are_scaled_by_65535(tmp_path, file, place):
    loaded = proxies.load(place(tmp_path, *FILES[file]))
    assert len(loaded) == 2
    assert (loaded.images == EXPECTED).all()


@pytest.mark.parametrize("place", [in_folder, in_parquet, in_npz])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_16_are_refused_and_scaled_when_said(tmp_path, bits, place):
    name = place(tmp_path, encoded(RAMP >> (16 - bits), "PNG"), "png")
    with pytest.raises(UserError, match=rf"no value in them is above {2**bits - 1:,} of 65,535: write \?bits={bits} "):
        proxies.load(name)
    loaded = proxies.load(f"{name}?bits={bits}")
    assert np.abs(loaded.images.astype(int) - EXPECTED).max() <= 1 + 2 ** (8 - bits)
    assert loaded.images.max() == 255
    dark = proxies.load(f"{name}?bits=16")
    assert dark.images.max() == round((2**bits - 1) / 257)


def test_a_value_above_the_depth_that_is_said(tmp_path):
    name = in_folder(tmp_path, encoded(RAMP >> 4, "PNG"), "png")
    with pytest.raises(UserError, match=r"set/0\.png has the value 4,095; 10 bits end at 1,023"):
        proxies.load(f"{name}?bits=10")


def test_one_bright_image_shows_the_depth_of_a_set(tmp_path):
    name = in_folder(tmp_path, encoded(RAMP, "PNG"), "png")
    (tmp_path / "set" / "dark.png").write_bytes(encoded(RAMP // 100, "PNG"))
    assert [image.max() for image in proxies.load(name).images] == [255, 255, round(655 / 257)]


def test_12_bits_that_a_tiff_file_tells_are_scaled_by_4095(tmp_path):
    loaded = proxies.load(in_folder(tmp_path, tiff_12_bits(RAMP >> 4), "tif"))
    assert np.abs(loaded.images.astype(int) - EXPECTED).max() <= 1
    assert (loaded.images.min(), loaded.images.max()) == (0, 255)


def test_the_greatest_value_that_a_pgm_file_tells_is_white(tmp_path):
    values = (RAMP >> 4).astype(">u2")
    loaded = proxies.load(in_folder(tmp_path, b"P5 32 32 4095 " + values.tobytes(), "pgm"))
    assert np.abs(loaded.images.astype(int) - EXPECTED).max() <= 1
    assert loaded.images.max() == 255


def test_a_tiff_file_whose_zero_is_white(tmp_path):
    content = encoded(RAMP, "TIFF", tiffinfo={262: 0})
    loaded = proxies.load(in_folder(tmp_path, content, "tif"))
    assert (loaded.images == 255 - EXPECTED).all()


@pytest.mark.parametrize(("mode", "says"), [("F", "pixels with fractions"), ("I", "pixels with signs or 32 bits")])
def test_what_has_no_depth_is_refused_by_name(tmp_path, mode, says):
    name = in_folder(tmp_path, encoded(Image.new(mode, (32, 32)), "TIFF"), "tif")
    with pytest.raises(UserError, match=rf"set/0\.tif has {says}"):
        proxies.load(name)


def colour_png(values):
    """A PNG file with 16 bits for each of red, green and blue, which Pillow can read but not write."""
    import zlib

    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = (32).to_bytes(4) * 2 + bytes([16, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colour_of_16_bits(tmp_path):
    pixels = np.repeat(RAMP[:, :, None], 3, 2)
    name = in_folder(tmp_path, colour_png(pixels), "png")
    assert np.abs(proxies.load(name).images.astype(int) - EXPECTED).max() <= 1
    for number in range(2):
        (tmp_path / "set" / f"{number}.png").write_bytes(colour_png(pixels >> 4))
    with pytest.warns(NoticeWarning, match="16-bit colour images, and no value in them is above 4,095"):
        assert proxies.load(name).images.max() == 15


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("bits=7", "must be a whole number from 8 to 16"),
        ("bits=12.5", "must be a whole number from 8 to 16"),
        ("bits=12&bits=12", "says bits twice"),
        ("depth=12", "asks for 'depth'; known: bits"),
    ],
)
def test_bad_choices(tmp_path, end, message):
    with pytest.raises(UserError, match=message):
        proxies.check(f"{in_folder(tmp_path, encoded(RAMP, 'PNG'), 'png')}?{end}")


def test_a_folder_of_such_a_name_is_taken_as_it_is(tmp_path):
    (tmp_path / "a?bits=3").mkdir()
    (tmp_path / "a?bits=3" / "0.png").write_bytes(encoded(EXPECTED, "PNG"))
    assert (proxies.load(f"folder:{tmp_path}/a?bits=3").images == EXPECTED).all()
