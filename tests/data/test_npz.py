"""NumPy archives of others: MedMNIST's, Keras's, and arrays that the user names."""

import numpy as np
import pytest

from degan_search.data import proxies
from degan_search.system.errors import UserError

SIZES = {"train": 5, "val": 2, "test": 3}
PIXELS = {"train": 10, "val": 20, "test": 30}


def images(split, *shape):
    return np.full((SIZES[split], 28, 28, *shape), PIXELS[split], np.uint8)


def labels(split, kind=np.uint8):
    return (np.arange(SIZES[split]) % 3).astype(kind)


def medmnist(*splits, channels=()):
    """`train_images` [N, 28, 28] or [N, 28, 28, 3], `train_labels` [N, 1]."""
    return {f"{split}_images": images(split, *channels) for split in splits} | {
        f"{split}_labels": labels(split)[:, None] for split in splits
    }


def keras(*splits):
    return {f"x_{split}": images(split) for split in splits} | {f"y_{split}": labels(split) for split in splits}


LAYOUTS = {
    "medmnist": medmnist("train", "val", "test"),
    "medmnist, colour": medmnist("train", "val", "test", channels=(3,)),
    "keras": keras("train", "test"),
    "keras, capital": {name.replace("x_", "X_"): array for name, array in keras("train", "test").items()},
}


def saved(root, **arrays):
    np.savez(root / "set.npz", **arrays)
    return f"npz:{root / 'set.npz'}"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", SIZES)
def test_splits(tmp_path, layout, split):
    name = saved(tmp_path, **LAYOUTS[layout])
    if split == "val" and layout.startswith("keras"):
        with pytest.raises(UserError, match=r"has no split 'val', in the arrays .*; write npz:.*/train or npz:.*/test"):
            proxies.check(f"{name}/val")
        return
    loaded = proxies.load(f"{name}/{split}")
    assert loaded.name == f"{name}/{split}"
    assert (loaded.images == PIXELS[split]).all()
    assert loaded.labels.tolist() == labels(split).tolist()
    assert loaded.labels.dtype == np.int64
    assert loaded.classes == ("0", "1", "2"), "also of the split in which no image has the last class"
    assert proxies.parent_size(f"{name}/{split}") == SIZES[split]
    some = proxies.load(f"{name}/{split}/[0]")
    assert len(some) == np.count_nonzero(labels(split) == 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_archive_of_several_splits_is_not_mixed(tmp_path, layout):
    with pytest.raises(UserError, match=r"has several splits, in the arrays .*; write npz:.*/train or npz:.*/test"):
        proxies.check(saved(tmp_path, **LAYOUTS[layout]))


@pytest.mark.parametrize("layout", [medmnist, keras])
@pytest.mark.parametrize("split", SIZES)
def test_the_only_split_needs_no_name(tmp_path, layout, split):
    name = saved(tmp_path, **layout(split))
    assert (proxies.load(name).images == PIXELS[split]).all()
    assert (proxies.load(f"{name}/{split}").images == PIXELS[split]).all()


def test_arrays_that_the_user_names(tmp_path):
    name = saved(tmp_path, faces=images("train"), kinds=labels("train"), ages=labels("train", float))
    with pytest.raises(UserError, match=r"has the arrays faces, kinds, ages; expected images.*\?image=NAME&label=NAME"):
        proxies.check(name)
    assert proxies.load(f"{name}?image=faces").labels is None
    assert proxies.load(f"{name}?image=faces&label=kinds").labels.tolist() == labels("train").tolist()
    with pytest.raises(UserError, match="no array 'face'"):
        proxies.check(f"{name}?image=face")
    with pytest.raises(UserError, match=r"ages of .* is float64"):
        proxies.check(f"{name}?image=faces&label=ages")


def test_several_labels_for_an_image_are_refused_and_images_can_be_read_alone(tmp_path):
    arrays = medmnist("train", "test") | {"train_labels": np.zeros((SIZES["train"], 14), np.uint8)}
    name = saved(tmp_path, **arrays)
    with pytest.raises(UserError, match=r"train_labels of .* is uint8 \[5, 14\].*\?label= reads images alone"):
        proxies.check(f"{name}/train")
    assert proxies.load(f"{name}/train?label=").labels is None
    assert proxies.load(f"{name}/test").labels.tolist() == [0, 1, 2]


def test_unlabelled_test_images_of_others_do_not_matter(tmp_path):
    arrays = keras("train", "test") | {"y_test": np.full(SIZES["test"], -1)}
    assert proxies.load(f"{saved(tmp_path, **arrays)}/train").classes == ("0", "1", "2")


def test_a_split_of_few_images_may_have_high_labels(tmp_path):
    name = saved(tmp_path, **keras("train") | {"y_train": np.array([9, 0, 99, 5, 5])})
    assert len(proxies.load(name).classes) == 100


@pytest.mark.parametrize(
    "classes",
    [np.array(["a", "b"]), np.array(["a", "a", "b"]), np.arange(3), np.array([["a"] * 3]), np.array([None, {}])],
)
def test_other_things_in_classes_change_nothing(tmp_path, classes):
    name = saved(tmp_path, images=images("train"), labels=labels("train"), classes=classes)
    assert proxies.load(name).classes == ("0", "1", "2")


def test_class_names_too_large_are_not_read(tmp_path):
    name = saved(
        tmp_path, images=images("train"), labels=labels("train"), classes=np.array(["a", "b", "c" * 2_000_000])
    )
    assert proxies.load(name).classes == ("0", "1", "2")
