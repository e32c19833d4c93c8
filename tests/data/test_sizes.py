"""Images at any size: names with @SIZE, a user's own images, memory that would not hold them, draws of a few."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from degan_search.data import images, proxies
from degan_search.data.images import to_input
from degan_search.data.wanted import Wanted, check_fits
from degan_search.system import memory, untrusted
from degan_search.system.errors import UserError

NAMES = ["glyphs", "photos", "noise/uniform", "noise/gaussian"]


def picture(seed, size=(60, 40)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def own_sets(root, count=12):
    """The same pictures as class folders, Parquet and npz, by kind, and a function that breaks some of them."""
    pictures = [picture(i) for i in range(count)]
    labels = [0 if i < count // 3 else 1 for i in range(count)]
    files = [root / "folder" / "ab"[label] / f"{i:02}.png" for i, label in enumerate(labels)]
    for file, image in zip(files, pictures, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)

    def write(blobs):
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": blob, "path": None} for blob in blobs], kind)
        pq.write_table(pa.table({"image": column, "label": labels}), root / "set.parquet")

    def break_others(kept):
        write([encoded(image) if i in kept else b"broken" for i, image in enumerate(pictures)])
        for i, file in enumerate(files):
            if i not in kept:
                file.write_bytes(b"broken")

    write(map(encoded, pictures))
    arrays = np.stack([np.asarray(image) for image in pictures])
    np.savez(root / "set.npz", images=arrays, labels=labels)
    names = {"folder": "folder", "parquet": "set.parquet", "npz": "set.npz"}
    return {kind: f"{kind}:{root / name}" for kind, name in names.items()}, pictures, break_others


@pytest.mark.parametrize("name", NAMES)
def test_32_behind_the_name_changes_nothing(name):
    plain, sized = (proxies.load(f"{name}{end}", "test", count=40, seed=2) for end in ("", "@32"))
    assert (plain.images == sized.images).all()
    assert plain.classes == sized.classes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [8, 28, 45, 96])
def test_embedded_sets_are_drawn_at_their_size(name, side):
    some = proxies.load(f"{name}@{side}", "test", count=40, seed=1)
    assert some.images.shape == (40, 3, side, side)
    assert some.name == f"{name}@{side}"
    assert len({image.tobytes() for image in some.images}) == 40
    assert (some.images == proxies.load(f"{name}@{side}", "test", count=40, seed=1).images).all()
    assert 30 < some.images.std() < 110


@pytest.mark.parametrize("name", ["glyphs/[A,Q]", "glyphs@20/[A,Q]", "photos@20", "noise/uniform", "noise/gaussian@9"])
def test_a_few_are_those_of_all(name):
    whole = proxies.load(name, "test")
    for count in (1, 30):
        some = proxies.load(name, "test", count=count, seed=4)
        assert (some.images == whole.sample(count, 4).images).all()


def test_glyphs_are_drawn_large_not_enlarged():
    small = proxies.load("glyphs/[B]", "test", count=60)
    large = proxies.load("glyphs@128/[B]", "test", count=60)
    rough = to_input(large.images, 3)
    assert np.corrcoef(rough.ravel(), small.images.ravel())[0, 1] > 0.5  # the same glyphs; grounds show more
    enlarged = to_input(small.images, 3, (128, 128))
    steps = [np.abs(np.diff(each.astype(int), axis=3)).max((1, 2, 3)).mean() for each in (large.images, enlarged)]
    assert steps[0] > 2 * steps[1]  # sharp edges


def test_what_is_known_of_a_sized_set():
    name = "glyphs@64/[A-C]"
    proxies.check(name)
    assert proxies.size(name) == 3000
    assert proxies.parent_size(name) == 36_000
    assert proxies.share(name) == proxies.share("glyphs/[A-C]")
    assert proxies.classes_of(name) == ("A", "B", "C")
    assert proxies.has_test(name)
    assert proxies.own_bases(name) == []
    assert proxies.own_bases("folder:a@64/b") == ["folder:a@64/b"]  # a path may have an @


@pytest.mark.parametrize("use", [proxies.check, proxies.load, proxies.share, proxies.size, proxies.classes_of])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glyphs@7", "from 8 to 512"),
        ("photos@513", "from 8 to 512"),
        ("glyphs@/[A]", "from 8 to 512"),
        ("glyphs@064", "from 8 to 512"),
        ("glyphs@6٤", "from 8 to 512"),
        ("digits@64", "digits has images of one size"),
        ("cifar10@64/[cat]", "of any size are glyphs@64"),
        ("cifar100/related_90@64", "right behind the name of a set"),
        ("glyphs/[A]@64", "right behind the name of a set"),
        ("glyfs@64", "did you mean glyphs"),
        ("photos@64/[a]", "has no classes"),
    ],
)
def test_names_with_a_wrong_size(name, message, use):
    with pytest.raises(UserError, match=message):
        use(name)


@pytest.mark.parametrize("size", [(48, 48), (24, 80), (64, 20)])
@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_own_images_are_decoded_straight_to_the_size(tmp_path, kind, size):
    names, pictures, _ = own_sets(tmp_path, 3)
    for fit, scaled in (("crop", ImageOps.fit), ("stretch", Image.Image.resize)):
        loaded = proxies.load(names[kind], size=size, fit=fit)
        expected = [np.asarray(scaled(image, size[::-1], Image.Resampling.BILINEAR)) for image in pictures]
        assert loaded.images.shape == (3, 3, *size)
        assert (loaded.images == np.stack(expected).transpose(0, 3, 1, 2)).all()
    assert proxies.load(names[kind]).images.shape == (3, 3, 32, 32)


@pytest.mark.parametrize("size", [(48, 48), (24, 80)])
def test_sets_of_one_size_are_brought_to_another(tmp_path, size):
    names, *_ = own_sets(tmp_path, 3)
    for name in (names["npz"], "glyphs/[A]", "digits/[3]"):
        for fit in ("crop", "stretch"):
            loaded = proxies.load(name, count=3, size=size, fit=fit)
            own = proxies.load(name, count=3)
            assert (loaded.images == to_input(own.images, own.images.shape[1], size, fit)).all()
            gray = proxies.load(name, count=3, size=size, fit=fit, channels=1).images
            assert (gray == to_input(own.images, 1, size, fit)).all()


@pytest.mark.parametrize(("source", "size"), [((40, 60), (32, 32)), ((60, 40), (20, 30)), ((40, 60), (50, 96))])
def test_crop_takes_the_middle_stretch_takes_all(source, size):
    image = picture(0, (6, 4)).resize(source[::-1], Image.Resampling.BICUBIC)
    array = np.asarray(image).transpose(2, 0, 1)[None]
    for fit, scaled in (("crop", ImageOps.fit), ("stretch", Image.Image.resize)):
        expected = np.asarray(scaled(image, size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        found = to_input(array, 3, size, fit)[0]
        assert np.abs(found.astype(int) - expected).mean() < (5 if fit == "crop" else 0.5)  # Pillow crops to fractions
    same = to_input(array, 3, source)
    assert same is array


def test_no_copy_is_larger_than_a_chunk(monkeypatch):
    monkeypatch.setattr(images, "CHUNK", 8)
    seen, real = [], images.resize
    monkeypatch.setattr(images, "resize", lambda part, size: (seen.append(len(part)), real(part, size))[1])
    array = np.random.default_rng(0).integers(0, 256, (20, 3, 40, 40), np.uint8)
    cut = to_input(array, 3, (64, 64))
    assert set(seen) == {2}  # 8 of 32x32 are 2 of 64x64
    monkeypatch.undo()
    assert (cut == to_input(array, 3, (64, 64))).all()


@pytest.mark.parametrize("kind", ["folder", "parquet"])
@pytest.mark.parametrize("classes", ["", "/[{}]"])
def test_only_drawn_images_are_decoded(tmp_path, kind, classes):
    names, _, break_others = own_sets(tmp_path)
    whole = proxies.load(names[kind])
    name = names[kind] + classes.format(whole.classes[1])
    expected = proxies.load(name).sample(3, 7)
    drawn = proxies.load(name, count=3, seed=7)
    assert (drawn.images == expected.images).all()
    assert drawn.labels.tolist() == expected.labels.tolist()
    assert drawn.classes == expected.classes
    kept = [i for i, image in enumerate(whole.images) if any((image == one).all() for one in expected.images)]
    assert len(kept) == 3
    break_others(kept)
    assert (proxies.load(name, count=3, seed=7).images == expected.images).all()
    with pytest.raises(UserError, match="cannot be read as an image"):
        proxies.load(name)
    with pytest.raises(UserError, match="count must be 1 to that, not 13"):
        proxies.load(name, count=13)


def test_what_memory_does_not_hold_is_refused_with_what_would_fit(tmp_path, monkeypatch):
    names, *_ = own_sets(tmp_path)
    monkeypatch.setattr("degan_search.data.files._pixels", None)  # nothing is decoded
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    for kind in ("folder", "parquet"):
        with pytest.raises(UserError) as caught:
            proxies.load(names[kind], size=(64, 96))
        assert str(caught.value) == (
            f"{names[kind]} has 12 images of 18,432 bytes each; at most 5 such (3 x 64 x 96) fit into the "
            "100,000 bytes of memory that are free: ask for count: 5, or a size of at most 52x52"
        )
    assert proxies.load("photos@64", count=8).images.shape == (8, 3, 64, 64)
    with pytest.raises(UserError, match=r"photos@64 has 10,000 images .*count: 8$"):
        proxies.load("photos@64")
    with pytest.raises(UserError, match="digits has 1,437 images of 4,096 bytes each"):
        proxies.load("digits", size=(64, 64))
    assert len(proxies.load("photos", "test")) == 2000  # 32x32 are as they were


def test_a_set_has_a_limit_whatever_memory_there_is(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2**50)
    with pytest.raises(UserError, match=r"noise/uniform@512 has 50,000 .* are read: ask for count: 10922, or a .*239"):
        proxies.load("noise/uniform@512")
    monkeypatch.setattr(untrusted, "SET_BYTES", 100)
    with pytest.raises(UserError, match=r"at most 0 such \(3 x 64 x 64\) are read$"):
        check_fits("it", 1, (3, 64, 64))


def test_a_large_array_is_not_read_into_too_little_memory(tmp_path, monkeypatch):
    names, *_ = own_sets(tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 50_000)
    with pytest.raises(UserError, match="only 50,000 bytes of memory are free"):
        proxies.load(names["npz"])


@pytest.mark.parametrize("size", [(4, 32), (32, 513), (32,), (32, 32.0), (True, 32)])
def test_sizes_that_no_image_has(size):
    with pytest.raises(UserError, match="8 to 512 pixels"):
        Wanted(size=size)


def test_an_unknown_fit():
    with pytest.raises(UserError, match="expected crop or stretch"):
        proxies.load("photos", fit="pad")
