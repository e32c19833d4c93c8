"""Folders of images as people have them: any name, other files among them, rotated photographs, own outputs."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from degan_search.data import proxies, write
from degan_search.system.errors import NoticeWarning, UserError

FORMATS = {
    "jfif": "JPEG",
    "jpe": "JPEG",
    "JPEG": "JPEG",
    "JPG": "JPEG",
    "pgm": "PPM",
    "PNM": "PPM",
    "ppm": "PPM",
    "dib": "BMP",
    "Tiff": "TIFF",
    "webp": "WEBP",
    "apng": "PNG",
    "img": "PNG",
    "dat": "GIF",
    "5f2c9e": "JPEG",
    "scan": "TIFF",
    "old": "BMP",
}


def encoded(kind="PNG", colour=200, **options):
    stream = io.BytesIO()
    Image.new("L", (32, 32), colour).save(stream, kind, **options)
    return stream.getvalue()


def put(root, **classes):
    """Class folders with these files: names, which get a PNG image, or contents by name."""
    for name, files in classes.items():
        for file in files:
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[file] if isinstance(files, dict) else encoded())
    return f"folder:{root}"


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_are_taken_by_content(tmp_path, suffix, recwarn):
    (tmp_path / "bare").write_bytes(encoded())
    (tmp_path / f"1.{suffix}").write_bytes(encoded(FORMATS[suffix], 100))
    assert proxies.parent_size(f"folder:{tmp_path}") == 2
    assert sorted(proxies.load(f"folder:{tmp_path}").images[:, 0, 0, 0].tolist()) == pytest.approx([100, 200], abs=1)
    assert not recwarn.list


def test_all_classes_are_there_whatever_their_format(tmp_path):
    kinds = {f"class_{number}": {f"0.{suffix}": encoded(FORMATS[suffix])} for number, suffix in enumerate(FORMATS)}
    loaded = proxies.load(put(tmp_path, **kinds))
    assert len(loaded.classes) == len(loaded) == len(FORMATS)


def test_what_is_passed_over_is_counted_and_named(tmp_path):
    name = put(tmp_path, cat=["0.png"], dog=["0.png"])
    for file, content in {
        "cat/notes.txt": b"BM is how BMP files begin",
        "cat/photo.heic": b"\0\0\0\x18ftypheic",
        "dog/raw.cr2": b"II*\0\x10\0\0\0CR\2\0",
        "labels.csv": b"P5 is how PGM files begin",
    }.items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "dog" / "thumbs").mkdir()
    (tmp_path / "empty").mkdir()
    told = r"6 passed over.*: cat/notes\.txt, cat/photo\.heic, dog/raw\.cr2, dog/thumbs, empty, \.\.\. \(6 in all\)"
    with pytest.warns(NoticeWarning, match=told):
        loaded = proxies.load(name)
    assert loaded.classes == ("cat", "dog")
    assert len(loaded) == 2


def test_files_of_operating_systems_are_passed_over_silently(tmp_path, recwarn):
    name = put(tmp_path, cat=["0.png"], dog=["0.png"])
    for file in ("cat/._0.png", "cat/.DS_Store", "dog/Thumbs.db", "dog/desktop.ini", "._x.jpg", ".DS_Store"):
        (tmp_path / file).write_bytes(b"\0\5\x16\7")
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "._cat.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*.pt")
    loaded = proxies.load(name)
    assert (len(loaded), loaded.classes) == (2, ("cat", "dog"))
    assert not recwarn.list


def test_a_class_that_would_vanish_is_an_error(tmp_path):
    name = put(tmp_path, cat=["0.png"], dog={"0.heic": b"\0\0\0\x18ftypheic", "Thumbs.db": b"x"})
    with pytest.raises(UserError, match=r"class 'dog' of .* has no image that can be read, only 0\.heic"):
        proxies.check(name)


def test_images_one_folder_further(tmp_path):
    """As in Tiny ImageNet: n01443537/images/0.JPEG beside a file of boxes."""
    name = put(tmp_path, n02={"images/0.JPEG": encoded("JPEG"), "boxes.txt": b"0"}, n01=["images/0.JPEG", "images/1"])
    with pytest.warns(NoticeWarning, match=r"1 passed over.*: n02/boxes\.txt"):
        loaded = proxies.load(name)
    assert loaded.classes == ("n01", "n02")
    assert loaded.labels.tolist() == [0, 0, 1]


def test_folders_of_splits_are_not_taken_for_classes(tmp_path):
    name = put(tmp_path, train=["cat/0.png", "dog/0.png"], test=["cat/0.png", "dog/0.png"])
    with pytest.raises(UserError, match=r"test has no images of its own, but cat, dog in it have: .* folder:.*/test"):
        proxies.check(name)


def test_folders_of_several_names_are_not_taken_for_one_set(tmp_path):
    with pytest.raises(UserError, match=r"subfolders of several names \(left, right\)"):
        proxies.check(put(tmp_path, a=["left/0.png"], b=["right/0.png"]))


def test_links_inside_the_folder_are_followed_whatever_their_name(tmp_path):
    name = put(tmp_path / "set", cat=["0.png"], dog=["0.png"])
    blobs = tmp_path / "set" / ".blobs"
    blobs.mkdir()
    (blobs / "a1b2").write_bytes(encoded(colour=7))
    (tmp_path / "set" / "cat" / "1.jpg").symlink_to("../.blobs/a1b2")
    (tmp_path / "set" / "cat" / "2").symlink_to("../.blobs/a1b2")
    assert proxies.load(name).images[:, 0, 0, 0].tolist() == [200, 7, 7, 200]


def test_a_file_outside_is_never_opened_to_see_what_it_is(tmp_path):
    name = put(tmp_path / "set", cat=["0.png"], dog=["0.png"])
    (tmp_path / "secret").write_bytes(encoded())
    (tmp_path / "set" / "cat" / "1").symlink_to(tmp_path / "secret")
    with pytest.warns(NoticeWarning, match=r"1 passed over.*: cat/1$"):
        assert len(proxies.load(name)) == 2
    (tmp_path / "set" / "cat" / "1.jfif").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"1\.jfif is a link to .*secret, outside"):
        proxies.check(name)


TURNS = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}
"""How a camera stores an upright image under each value of EXIF's orientation."""


@pytest.mark.parametrize(("kind", "depth"), [("PNG", 8), ("PNG", 16), ("TIFF", 8), ("TIFF", 16), ("WEBP", 8)])
@pytest.mark.parametrize("orientation", TURNS)
def test_photographs_are_turned_upright(tmp_path, kind, depth, orientation):
    upright = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) // 4
    pixels = upright.astype(np.uint8) if depth == 8 else upright * 257
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    turned = Image.fromarray(np.asarray(TURNS[orientation](Image.fromarray(pixels))))
    turned.save(tmp_path / f"0.{kind.lower()}", kind, exif=exif, **options)
    assert (proxies.load(f"folder:{tmp_path}").images == upright).all()


def test_broken_exif_data_do_not_break_an_image(tmp_path):
    pixels = np.full((32, 32), 99, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (proxies.load(f"folder:{tmp_path}").images == 99).all()


CLASSES = ("T-shirt/top", "Bag", "ant", "10", "9")


@pytest.mark.parametrize(("kind", "read_as"), [("folders", "folder"), ("parquet", "parquet"), ("npz", "npz")])
def test_own_outputs_keep_names_and_classes_without_images(tmp_path, kind, read_as, recwarn):
    images = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(32, 2).repeat(32, 3)
    labels = np.array([4, 0, 3])
    with write.writing(tmp_path / "made", kind, CLASSES, {"classes": CLASSES}) as add:
        add(images, labels, np.eye(5, dtype=np.float32)[labels])
    loaded = proxies.load(f"{read_as}:{tmp_path / 'made'}")
    assert loaded.classes == CLASSES
    assert dict(zip(loaded.images[:, 0, 0, 0].tolist(), loaded.labels.tolist(), strict=True)) == {0: 4, 1: 0, 2: 3}
    some = proxies.load(f"{read_as}:{tmp_path / 'made'}/[T-shirt/top,9]")
    assert (some.classes, some.images[some.labels == 1].max()) == (("T-shirt/top", "9"), 0)
    assert not recwarn.list


def test_own_class_folders_that_a_copy_left_out_keep_their_numbers(tmp_path):
    with write.writing(tmp_path / "made", "folders", ("a", "b", "c"), {"classes": ["a", "b", "c"]}) as add:
        add(np.zeros((1, 1, 32, 32), np.uint8), np.array([2]), np.eye(3, dtype=np.float32)[[2]])
    (tmp_path / "made" / "a").rmdir()
    loaded = proxies.load(f"folder:{tmp_path / 'made'}")
    assert (loaded.classes, loaded.labels.tolist()) == (("a", "b", "c"), [2])


@pytest.mark.parametrize(
    "about", ["[", "[" * 100_000, "[]", "{}", json.dumps({"classes": ["x"]}), json.dumps({"classes": [1, {}]})]
)
def test_somebody_elses_about_json_changes_nothing(tmp_path, about):
    name = put(tmp_path, cat=["0.png"], dog=["0.png"])
    (tmp_path / "about.json").write_text(about)
    assert proxies.load(name).classes == ("cat", "dog")


def test_class_folders_sort_as_text(tmp_path):
    """Not in natural order: labels stay what they always were; docs/own-teacher-and-images.md says so."""
    assert proxies.load(put(tmp_path, **{name: ["0.png"] for name in ("1", "2", "10")})).classes == ("1", "10", "2")
