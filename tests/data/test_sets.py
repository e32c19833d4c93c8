"""The contract of every image set, the real Parquet files where they are, and the glyphs' fonts."""

from pathlib import Path

import numpy as np
import pytest

from degan_search.data import synthetic
from degan_search.data.images import to_input
from degan_search.data.sets import CIFAR100_CLASSES, SETS, SUPERCLASSES, load_set, train_size
from degan_search.data.wanted import Wanted
from degan_search.system.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"
EMBEDDED = [name for name, entry in SETS.items() if not entry.from_files]
SIZES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28)}


def check_contract(name, loaded, classes):
    assert loaded.name == name
    assert loaded.images.dtype == np.uint8
    assert loaded.images.shape[1:] == SIZES.get(name, (3, 32, 32))
    assert loaded.images.flags.c_contiguous
    assert loaded.classes == classes
    if classes:
        assert loaded.labels.dtype == np.int64
        assert loaded.labels.shape == (len(loaded),)
        assert (np.unique(loaded.labels) == np.arange(len(classes))).all()
    else:
        assert loaded.labels is None


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets(name, tmp_path):
    entry = SETS[name]
    classes = entry.classes[-3:] or None  # three are enough
    train, test, again = (load_set(name, split, tmp_path, Wanted(classes)) for split in ("train", "test", "train"))
    check_contract(name, train, classes or ())
    check_contract(name, test, classes or ())
    assert (train.images == again.images).all()
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}
    assert train_size(name) == entry.train_size
    if not classes:
        assert len(train) == entry.train_size
    assert list(tmp_path.iterdir()) == []


def test_embedded_sizes():
    assert len(load_set("digits", "train")) == SETS["digits"].train_size
    assert synthetic.GLYPHS_PER_CLASS["train"] * len(synthetic.GLYPH_CLASSES) == SETS["glyphs"].train_size
    assert np.bincount(load_set("glyphs", "test", wanted=Wanted(["A", "7"])).labels).tolist() == [200, 200]


def test_noise_statistics():
    uniform = load_set("noise/uniform", "test").images
    assert (uniform.min(), uniform.max()) == (0, 255)
    assert uniform.mean() == pytest.approx(127.5, abs=0.1)
    assert uniform.std() == pytest.approx(73.9, abs=0.1)
    gaussian = load_set("noise/gaussian", "test").images.astype(float)
    assert gaussian.mean() == pytest.approx(127.5, abs=0.1)
    assert (gaussian[(gaussian > 63) & (gaussian < 192)].size / gaussian.size) == pytest.approx(0.683, abs=0.01)


@pytest.mark.parametrize("face", synthetic.FACES)
def test_every_face_has_every_character(face):
    masks = {name: synthetic.glyph_mask(face, name).tobytes() for name in synthetic.GLYPH_CLASSES}
    assert len(set(masks.values())) == len(masks)
    assert synthetic.glyph_mask(face, "\ufffe").tobytes() not in masks.values()
    for mask in masks.values():
        ink = np.frombuffer(mask, np.uint8).reshape(synthetic.RASTER, -1)
        assert ink.max() > 200
        assert not ink[[0, -1]].any()
        assert not ink[:, [0, -1]].any()


def test_a_glyph_does_not_depend_on_the_other_classes():
    alone = load_set("glyphs", "test", wanted=Wanted(["Q"]))
    beside = load_set("glyphs", "test", wanted=Wanted(["B", "Q"]))
    assert (alone.images == beside.images[beside.labels == 1]).all()


def test_glyphs_differ_from_the_photograph_behind_them():
    rng = np.random.default_rng(0)
    grounds, masks = synthetic.patches(rng, 300), synthetic.shapes(rng, "E", 300)
    assert (masks.sum((1, 2, 3)) > 25).all()  # pixels of ink
    mixed = grounds + (synthetic.ink(rng, grounds, masks) - grounds) * masks
    change = np.abs(mixed - grounds).max((1, 2, 3))
    assert np.quantile(change, 0.02) > 50
    lighter = (mixed - grounds).mean((1, 2, 3)) > 0
    assert 0.3 < lighter.mean() < 0.7


def test_digits_are_stretched_and_stratified():
    train, test = load_set("digits", "train"), load_set("digits", "test")
    assert len(train) + len(test) == 1797
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert np.bincount(test.labels).min() >= 34
    assert to_input(test.images, 1).shape == (360, 1, 32, 32)


def test_cifar100_has_20_superclasses_of_5():
    assert [len(words.split()) for words in SUPERCLASSES.values()] == [5] * 20
    assert len(set(CIFAR100_CLASSES)) == 100


@pytest.mark.parametrize("name", [name for name, entry in SETS.items() if entry.from_files])
def test_real_images(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is absent")
    classes = SETS[name].classes[3:5]
    test = load_set(name, "test", REAL, Wanted(classes))
    check_contract(name, test, classes)
    assert np.bincount(test.labels).std() == 0
    assert train_size(name, REAL) == SETS[name].train_size


def test_data_dir_from_the_environment(monkeypatch, tmp_path):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "train.parquet").write_text("not Parquet")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=str(tmp_path)):
        load_set("cifar10", "train")


@pytest.mark.parametrize("name", [name for name, entry in SETS.items() if entry.from_files])
def test_absent_sets_say_where_they_were_sought(name, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("so that no folder can be made here, and nothing is downloaded")
    with pytest.raises(UserError, match=f"{blocked}/{name}/train.parquet"):
        load_set(name, "train", blocked)


def test_torchvisions_own_files(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.arange(4 * 28 * 28).reshape(4, 28, 28).astype(np.uint8)
    for part in ("train", "t10k"):  # IDX: type, dimensions, sizes, bytes
        sizes = b"".join(size.to_bytes(4, "big") for size in images.shape)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3]) + sizes + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 4, 9, 0, 3, 9]))
    loaded = load_set("fashion_mnist", "test", tmp_path, Wanted(["ankle_boot", "dress"]))
    assert loaded.classes == ("dress", "ankle_boot")
    assert loaded.labels.tolist() == [1, 0, 1]
    assert (loaded.images == images[[0, 2, 3], None]).all()


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("cifar", "train", "did you mean cifar10"),
        ("photos", "valid", "no split 'valid'"),
        ("zip:images.zip", "train", "expected folder:PATH"),
    ],
)
def test_bad_names(name, split, message):
    with pytest.raises(UserError, match=message):
        load_set(name, split)
