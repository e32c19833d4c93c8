"""A user's own images: what is read from each kind of file, and what each kind of bad file says."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from degan_search.data import proxies
from degan_search.data.files import plain
from degan_search.data.sets import CIFAR10_CLASSES, USER_SETS, load_set
from degan_search.system.errors import UserError

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def encoded(colour, size=(32, 32)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(path, blobs, labels=None, names=None, label="label", image="img"):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image: pa.array([{"bytes": blob, "path": None} for blob in blobs], kind)}
    if labels is not None:
        columns[label] = pa.array(labels)
    features = {label: {"_type": "ClassLabel", "names": names}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def write_folder(root, size=(40, 32)):
    for name, colour in COLOURS.items():
        for i in range(2):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / f"{i}.png").write_bytes(encoded(colour, size))
    (root / "notes.txt").write_text("not an image")
    return root


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.fixture
def own(tmp_path):
    """One small set of each kind, by kind: 6 images in 3 classes."""
    blobs = [encoded(colour) for colour in COLOURS.values() for _ in range(2)]
    images = np.repeat(np.array(list(COLOURS.values()), np.uint8), 2, axis=0)[:, :, None, None]
    return {
        "folder": write_folder(tmp_path / "folder"),
        "parquet": write_parquet(tmp_path / "own.parquet", blobs, [0, 0, 1, 1, 2, 2], list(COLOURS)),
        "npz": write_npz(tmp_path / "own.npz", images=images.repeat(32, 2).repeat(32, 3), labels=[0, 0, 1, 1, 2, 2]),
    }


@pytest.mark.parametrize("kind", USER_SETS)
def test_own_images_of_every_kind(own, kind):
    name = f"{kind}:{own[kind]}"
    proxies.check(name)
    assert proxies.parent_size(name) == 6
    loaded = proxies.load(name)
    assert loaded.name == name
    assert loaded.images.shape == (6, 3, 32, 32)
    assert loaded.images.dtype == np.uint8
    assert loaded.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert loaded.labels.dtype == np.int64
    assert loaded.classes == (("0", "1", "2") if kind == "npz" else tuple(COLOURS))
    assert [tuple(image[:, 5, 5]) for image in loaded.images[::2]] == list(COLOURS.values())
    some = proxies.load(f"{name}/[{loaded.classes[2]}, {loaded.classes[0]}]", count=2)
    assert some.labels.tolist() == [0, 1]
    assert some.classes == (loaded.classes[0], loaded.classes[2])
    with pytest.raises(UserError, match="train split alone"):
        proxies.load(name, "test")
    with pytest.raises(UserError, match="no class"):
        proxies.load(f"{name}/[pink]")


@pytest.mark.parametrize("kind", USER_SETS)
@pytest.mark.parametrize("use", [proxies.check, proxies.load, proxies.parent_size])
def test_absent_and_broken_files_are_named(tmp_path, kind, use):
    broken = tmp_path / "broken"
    broken.write_bytes(b"neither this nor that")
    for path in (tmp_path / "absent", broken):
        with pytest.raises(UserError, match=str(path)):
            use(f"{kind}:{path}")
    with pytest.raises(UserError, match=f"{kind}:PATH"):
        use(f"{kind}:")
    with pytest.raises(UserError, match="~nobody-of-this-name"):
        use(f"{kind}:~nobody-of-this-name/images")


def test_flat_folder_is_unlabelled(own):
    loaded = load_set(f"folder:{own['folder']}/red", "train")
    assert len(loaded) == 2
    assert loaded.labels is None
    assert loaded.classes == ()


def test_folder_crops_about_the_middle(tmp_path):
    image = Image.new("RGB", (96, 32), (255, 0, 0))
    image.paste((0, 255, 0), (32, 0, 64, 32))
    image.save(tmp_path / "wide.png")
    (tmp_path / "gray.png").write_bytes(encoded((9, 9, 9), (5, 7)))
    loaded = load_set(f"folder:{tmp_path}", "train")
    assert (loaded.images[0] == 9).all()
    assert (loaded.images[1] == np.array([0, 255, 0])[:, None, None]).all()


def test_folder_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        proxies.check(f"folder:{tmp_path}")


def test_folder_with_images_at_both_levels(own):
    (own["folder"] / "loose.png").write_bytes(encoded((1, 2, 3)))
    with pytest.raises(UserError, match="both"):
        proxies.check(f"folder:{own['folder']}")


@pytest.mark.parametrize("content", [b"", b"text", encoded((1, 2, 3))[:40]])
def test_broken_image_is_named(own, content):
    path = own["folder"] / "red" / "0.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        proxies.load(f"folder:{own['folder']}")


@pytest.mark.parametrize("factor", [0.8, 0.4])  # Pillow warns above its limit and raises above twice that
def test_decompression_bomb(own, monkeypatch, factor):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(40 * 32 * factor))
    with pytest.raises(UserError, match=r"blue/0\.png.*bomb"):
        proxies.load(f"folder:{own['folder']}")


def test_links_may_not_lead_outside(own, tmp_path):
    root = own["folder"]
    (root / "red" / "inside.png").symlink_to(root / "red" / "0.png")
    assert proxies.parent_size(f"folder:{root}") == 7
    (tmp_path / "secret.png").write_bytes(encoded((1, 2, 3)))
    (root / "red" / "outside.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match=r"outside\.png is a link"):
        proxies.check(f"folder:{root}")


def test_linked_class_folder_may_not_lead_outside(own, tmp_path):
    write_folder(tmp_path / "elsewhere")
    (own["folder"] / "zebra").symlink_to(tmp_path / "elsewhere" / "red")
    with pytest.raises(UserError, match="is a link"):
        proxies.check(f"folder:{own['folder']}")


@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 8, 6, 1), (4, 8, 6, 3), (4, 1, 8, 6), (4, 3, 8, 6)])
def test_npz_shapes(tmp_path, shape):
    images = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    loaded = load_set(f"npz:{write_npz(tmp_path / 'own.npz', images=images)}", "train")
    channels = 3 if 3 in shape else 1
    assert loaded.images.shape == (4, channels, 8, 6)
    assert loaded.labels is None
    expected = images[1, 2, 5] if shape[-1] in (1, 3) else images[1, ..., 2, 5]
    assert (loaded.images[1, :, 2, 5] == expected).all()


GOOD = np.zeros((2, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GOOD}, "has the arrays pictures; expected images"),
        ({"images": GOOD.astype(float)}, "float64"),
        ({"images": GOOD[0]}, "expected uint8"),
        ({"images": np.zeros((2, 5, 8, 8), np.uint8)}, "expected uint8"),
        ({"images": GOOD[:0]}, "expected uint8"),
        ({"images": np.array([None, {}])}, "cannot be read"),
        ({"images": GOOD, "labels": [0]}, "labels of"),
        ({"images": GOOD, "labels": [0.0, 1.0]}, "labels of"),
        ({"images": GOOD, "labels": [-1, 0]}, "labels of"),
        ({"images": GOOD, "labels": [0, 10**12]}, "labels of"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        proxies.check(f"npz:{write_npz(tmp_path / 'bad.npz', **arrays)}")


def test_parquet_without_names_or_labels(tmp_path):
    blobs = [encoded(colour, (50, 40)) for colour in COLOURS.values()]
    unnamed = load_set(f"parquet:{write_parquet(tmp_path / 'unnamed.parquet', blobs, [1, 0, 1])}", "train")
    assert unnamed.classes == ("0", "1")
    assert unnamed.images.shape == (3, 3, 32, 32)
    unlabelled = load_set(f"parquet:{write_parquet(tmp_path / 'unlabelled.parquet', blobs)}", "train")
    assert unlabelled.labels is None
    assert unlabelled.classes == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blobs": []}, "no images"),
        ({"blobs": [b"text"]}, "row 0"),
        ({"blobs": [None]}, "row 0"),
        ({"blobs": [encoded((1, 2, 3))], "labels": [0.5]}, "expected integers or text in label"),
        ({"blobs": [encoded((1, 2, 3))], "labels": [2], "names": ["a", "b"]}, r"labels outside 0\.\.1"),
        ({"blobs": [encoded((1, 2, 3))] * 2, "labels": [0, None]}, "labels outside"),
    ],
)
def test_bad_parquet(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        proxies.load(f"parquet:{write_parquet(tmp_path / 'bad.parquet', **arguments)}")


def test_parquet_without_an_image_column(tmp_path):
    pq.write_table(pa.table({"label": [1, 2]}), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match=r"columns label: int64; expected the first to be struct<bytes"):
        proxies.check(f"parquet:{tmp_path / 'bad.parquet'}")


def test_public_set_from_parquet(tmp_path):
    """The hub's layout under its set's name is found, keeps its size, and only wanted classes are decoded."""
    blobs = [encoded((i, 0, 0)) if i < 5 else b"never decoded" for i in range(10)]
    write_parquet(tmp_path / "cifar10" / "train.parquet", blobs, list(range(10)), list(CIFAR10_CLASSES))
    loaded = proxies.load("cifar10/[cat,bird]", data_dir=tmp_path)
    assert loaded.classes == ("bird", "cat")
    assert loaded.images[:, 0, 0, 0].tolist() == [2, 3]
    assert proxies.parent_size("cifar10/[cat]", tmp_path) == 10
    with pytest.raises(UserError, match="row 5"):
        proxies.load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 1], "names": ["cat", "dog"]}, "has the classes cat, dog; expected airplane"),
        ({}, "has the columns img; expected label"),
        ({"labels": [0, 10]}, r"labels outside 0\.\.9"),
    ],
)
def test_bad_public_parquet(tmp_path, arguments, message):
    write_parquet(tmp_path / "cifar10" / "train.parquet", [encoded((1, 2, 3))] * 2, **arguments)
    with pytest.raises(UserError, match=message):
        proxies.load("cifar10", data_dir=tmp_path)


def test_public_images_must_have_one_size(tmp_path):
    blobs = [encoded((1, 2, 3)), encoded((1, 2, 3), (8, 8))]
    write_parquet(tmp_path / "cifar10" / "train.parquet", blobs, [0, 1])
    with pytest.raises(UserError, match="row 1"):
        proxies.load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["T-shirt/top", "T - shirt / top", "t_shirt_top"])
def test_plain_names(name):
    assert plain(name) == "t_shirt_top"
