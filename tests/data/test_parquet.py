"""Parquet of others: columns of any order, labels that are text, bare bytes, shards, the hub's own folders."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from degan_search.data import proxies
from degan_search.data.sets import CIFAR10_CLASSES
from degan_search.system.errors import NoticeWarning, UserError

PAIR = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXT = ["dog", "cat", "dog", "ant"]


def encoded(value):
    stream = io.BytesIO()
    Image.new("L", (32, 32), value).save(stream, "PNG")
    return stream.getvalue()


BLOBS = [encoded(value) for value in range(4)]


def pairs(blobs=BLOBS, kind=PAIR):
    return pa.array([{"bytes": blob, "path": "x.png"} for blob in blobs], kind)


def saved(root, file="set.parquet", names=None, **columns):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if names:
        features = {"info": {"features": {"label": {"names": list(names)}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path)
    return f"parquet:{path}"


def pixels(loaded):
    return loaded.images[:, 0, 0, 0].tolist()


IMAGES = {
    "pair": pairs(),
    "large pair": pairs(kind=pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
    "bytes": pa.array(BLOBS, pa.binary()),
    "large bytes": pa.array(BLOBS, pa.large_binary()),
    "view": pa.array(BLOBS, pa.binary_view()),
}
LABELS = {
    "text": pa.array(TEXT),
    "large text": pa.array(TEXT, pa.large_string()),
    "view": pa.array(TEXT, pa.string_view()),
    "dictionary": pa.array(TEXT).dictionary_encode(),
    "bytes": pa.array([text.encode() for text in TEXT], pa.binary()),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("first", ["label", "image"])
def test_images_of_every_kind_in_either_order(tmp_path, kind, first, recwarn):
    columns = {"label": pa.array([2, 1, 2, 0], pa.int8()), "image": IMAGES[kind]}
    name = saved(tmp_path, **{first: columns[first]} | columns)
    proxies.check(name)
    loaded = proxies.load(name)
    assert pixels(loaded) == [0, 1, 2, 3]
    assert loaded.labels.tolist() == [2, 1, 2, 0]
    assert not recwarn.list


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_text(tmp_path, kind):
    loaded = proxies.load(saved(tmp_path, label=LABELS[kind], image=pairs()))
    assert loaded.classes == ("ant", "cat", "dog")
    assert loaded.labels.tolist() == [2, 1, 2, 0]
    assert loaded.labels.dtype == np.int64
    assert pixels(proxies.load(f"{saved(tmp_path, label=LABELS[kind], image=pairs())}/[dog]")) == [0, 2]


@pytest.mark.parametrize(
    "labels", [["a", "b", None, "c"], ["a", "b", "", "c"], ["a", "b", "x" * 1001, "c"], [b"a", b"b", b"\xff", b"c"]]
)
def test_text_that_is_no_class_name(tmp_path, labels):
    with pytest.raises(UserError, match="row 2"):
        proxies.load(saved(tmp_path, label=pa.array(labels), image=pairs()))


def test_captions_are_no_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("degan_search.data.parquet.CLASSES", 2)
    name = saved(tmp_path, label=pa.array(["a", "b", "c", "d"]), image=pairs())
    with pytest.raises(UserError, match=r"column label of .* holds no class names.*\?label= none"):
        proxies.load(name)
    assert proxies.load(f"{name}?label=").labels is None


def test_where_two_columns_could_be_meant_the_user_chooses(tmp_path):
    other = pa.array(BLOBS[::-1], pa.binary())
    name = saved(tmp_path, left=pa.array(BLOBS, pa.binary()), right=other, kind=pa.array(TEXT), age=[3, 1, 0, 2])
    with pytest.raises(UserError, match=r"left: binary, right: binary, .* write \?image=left or \?image=right"):
        proxies.check(name)
    with pytest.warns(NoticeWarning, match=r"read without labels; \?label=NAME .* \(kind, age\)"):
        loaded = proxies.load(f"{name}?image=right")
    assert (pixels(loaded), loaded.labels) == ([3, 2, 1, 0], None)
    loaded = proxies.load(f"{name}?image=left&label=kind")
    assert (pixels(loaded), loaded.labels.tolist(), loaded.classes) == (
        [0, 1, 2, 3],
        [2, 1, 2, 0],
        ("ant", "cat", "dog"),
    )
    assert proxies.load(f"{name}?label=age&image=left").labels.tolist() == [3, 1, 0, 2]
    assert pixels(proxies.load(f"{name}?image=left&label=kind/[ant]")) == [3]


def test_the_first_pair_of_several_is_taken_and_it_is_said(tmp_path):
    name = saved(tmp_path, image=pairs(), mask=pairs(BLOBS[::-1]), label=[0, 1, 0, 1])
    with pytest.warns(NoticeWarning, match=r"images are read from column image; \?image=mask"):
        assert pixels(proxies.load(name)) == [0, 1, 2, 3]
    assert pixels(proxies.load(f"{name}?image=mask")) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("image=picture", "expected 'picture' to be struct<bytes"),
        ("image=label", "expected 'label' to be struct<bytes"),
        ("label=kind", "there is no 'kind'"),
        ("label=image", "expected integers or text in image"),
        ("labels=label", "asks for 'labels'; did you mean label"),
    ],
)
def test_bad_choices(tmp_path, end, message):
    with pytest.raises(UserError, match=message):
        proxies.check(f"{saved(tmp_path, image=pairs(), label=[0, 1, 0, 1])}?{end}")


class TestShards:
    """A folder of files, and the files of one split."""

    @pytest.fixture
    def folder(self, tmp_path):
        for split, blobs in (("train", BLOBS), ("test", BLOBS[:2])):
            for number in range(2):
                part = blobs[number::2]
                file = f"{split}-0000{number}-of-00002.parquet"
                saved(tmp_path / "set", file, ("a", "b"), image=pairs(part), label=[number] * len(part))
        return tmp_path / "set"

    def test_a_split(self, folder):
        loaded = proxies.load(f"parquet:{folder}/train")
        assert (pixels(loaded), loaded.labels.tolist(), loaded.classes) == ([0, 2, 1, 3], [0, 0, 1, 1], ("a", "b"))
        assert proxies.parent_size(f"parquet:{folder}/train") == 4
        assert pixels(proxies.load(f"parquet:{folder}/test/[b]")) == [1]

    def test_splits_are_not_mixed(self, folder):
        with pytest.raises(UserError, match=r"several splits; write parquet:.*/test or parquet:.*/train"):
            proxies.check(f"parquet:{folder}")

    def test_a_missing_shard_is_named(self, folder):
        (folder / "train-00000-of-00002.parquet").unlink()
        with pytest.raises(UserError, match="1 of 2 shards of 'train': 00000 is missing"):
            proxies.check(f"parquet:{folder}/train")

    @pytest.mark.parametrize(
        "files", [("0.parquet", "1.parquet"), ("part-0-a.snappy.parquet", "part-1-b.snappy.parquet")]
    )
    def test_a_folder_of_files(self, tmp_path, files):
        for number, file in enumerate(files):
            saved(tmp_path / "set", file, label=pa.array(["dog", "ant"][number:]), image=pairs(BLOBS[number:2]))
        (tmp_path / "set" / "_SUCCESS").touch()
        loaded = proxies.load(f"parquet:{tmp_path / 'set'}")
        assert (pixels(loaded), loaded.labels.tolist(), loaded.classes) == ([0, 1, 1], [1, 0, 0], ("ant", "dog"))

    def test_files_must_be_alike(self, tmp_path):
        saved(tmp_path / "set", "0.parquet", image=pairs(), label=[0, 0, 1, 1])
        saved(tmp_path / "set", "1.parquet", image=pairs(), label=pa.array(TEXT))
        with pytest.raises(UserError, match=r"text as labels of .*1\.parquet is True.*shards must be alike"):
            proxies.check(f"parquet:{tmp_path / 'set'}")

    def test_a_folder_without_any_says_where_they_are(self, folder):
        with pytest.raises(UserError, match=r"without \.parquet files; there are some in set: name one"):
            proxies.check(f"parquet:{folder.parent}")

    def test_links_out_of_the_folder_are_refused(self, folder, tmp_path):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "0.parquet").symlink_to(folder / "test-00000-of-00002.parquet")
        with pytest.raises(UserError, match=r"0\.parquet is a link to .*, outside"):
            proxies.check(f"parquet:{tmp_path / 'other'}")
        assert proxies.parent_size(f"parquet:{tmp_path / 'other' / '0.parquet'}") == 1


@pytest.mark.parametrize("inner", ["", "plain_text", "data"])
def test_a_public_set_as_the_hub_keeps_it(tmp_path, inner):
    for number in range(2):
        file = f"train-0000{number}-of-00002.parquet"
        columns = {"img": pairs(BLOBS[2 * number :][:2]), "label": [3 * number, 1]}
        saved(tmp_path / "cifar10" / inner, file, CIFAR10_CLASSES, **columns)
    loaded = proxies.load("cifar10", data_dir=tmp_path)
    assert (pixels(loaded), loaded.labels.tolist()) == ([0, 1, 2, 3], [0, 1, 3, 1])
    assert pixels(proxies.load("cifar10/[cat]", data_dir=tmp_path)) == [2]
    assert proxies.parent_size("cifar10", tmp_path) == 4


def test_a_public_set_in_two_places_is_refused(tmp_path):
    for inner in ("a", "b"):
        saved(tmp_path / "cifar10" / inner, "train-00000-of-00001.parquet", CIFAR10_CLASSES, img=pairs(), label=[0] * 4)
    with pytest.raises(UserError, match=r"train is in several folders .*; keep one"):
        proxies.load("cifar10", data_dir=tmp_path)
