"""Names of proxies: the paper's subsets exactly, the grammar, and what a bad name says."""

from pathlib import Path

import numpy as np
import pytest

from degan_search.data.proxies import SUBSETS, check, load, parent_size
from degan_search.data.sets import CIFAR100_CLASSES, SETS, SUPERCLASSES
from degan_search.system.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"
IDS = {name: [CIFAR100_CLASSES.index(found) for found in classes] for name, classes in SUBSETS.items()}


@pytest.mark.parametrize("name", SUBSETS)
def test_subsets_are_sorted_classes_of_their_set(name):
    check(name)
    assert IDS[name] == sorted(set(IDS[name]))
    count = int(name.split("_")[-1 if "order" in name else [word.isdigit() for word in name.split("_")].index(True)])
    assert len(SUBSETS[name]) == count
    assert parent_size(name) == 50_000


@pytest.mark.parametrize("name", [name for name in SUBSETS if "random" in name])
def test_random_samples_are_of_the_unrelated_40(name):
    assert set(SUBSETS[name]) < set(SUBSETS["cifar100/unrelated_40"])


def test_related_90_leaves_out_the_vehicles():
    vehicles = {name for key in ("vehicles_1", "vehicles_2") for name in SUPERCLASSES[key].split()}
    assert {"bus", "train", "streetcar", "pickup_truck", "tank"} < vehicles
    assert set(SUBSETS["cifar100/related_90"]) == set(CIFAR100_CLASSES) - vehicles


def test_unrelated_40_ids():
    assert IDS["cifar100/unrelated_40"] == [
        *[0, 5, 9, 10, 12, 16, 17, 20, 22, 23, 25, 28, 33, 37, 39, 40, 47, 49, 51, 52, 53, 54, 56, 57, 59, 60, 61],
        *[62, 68, 70, 71, 76, 82, 83, 84, 86, 87, 92, 94, 96],
    ]


def test_ids_of_the_released_code():
    assert IDS["cifar100/background_6"] == sorted([68, 23, 33, 49, 60, 71])
    assert IDS["cifar100/random_10_released"] == sorted([70, 47, 49, 37, 86, 53, 16, 94, 54, 25])


@pytest.mark.parametrize("k", range(1, 6))
def test_random_samples_are_recomputed(k):
    drawn = np.random.RandomState(k).choice(IDS["cifar100/unrelated_40"], 10, replace=False)
    assert IDS[f"cifar100/random_10_sample_{k}"] == sorted(drawn)


def test_the_first_class_order_is_icarls():
    old = [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38]
    new = [58, 70, 77, 1, 85, 19, 17, 50, 28, 53, 13, 81, 45, 82, 6, 59, 83, 16, 15, 44]
    assert IDS["cifar100/order_1993_first_20"] == sorted(old)
    assert IDS["cifar100/order_1993_next_20"] == sorted(new)
    assert IDS["cifar100/order_1993_first_10"] == sorted(old[:10])
    assert IDS["cifar100/order_1993_next_10"] == sorted(old[10:])


def test_background_6_of_the_real_images():
    if not (REAL / "cifar100").is_dir():
        pytest.skip(f"{REAL / 'cifar100'} is absent")
    loaded = load("cifar100/background_6", data_dir=REAL)
    assert loaded.name == "cifar100/background_6"
    assert loaded.classes == ("cloud", "forest", "mountain", "plain", "road", "sea")
    assert np.bincount(loaded.labels).tolist() == [500] * 6
    means = {name: loaded.images[loaded.labels == i].mean((0, 2, 3)) for i, name in enumerate(loaded.classes)}
    assert means["cloud"][2] > 150 > means["forest"][2]  # blue: labels go with the right images


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("glyphs/[K-M]", "KLM"),
        ("glyphs/[0-2,A]", "A012"),
        ("glyphs/[B, A,A-B]", "AB"),
        ("digits/[7,1]", "17"),
    ],
)
def test_classes_in_brackets(name, classes):
    check(name)
    loaded = load(name, "test")
    assert loaded.name == name
    assert loaded.classes == tuple(classes)
    assert len(np.unique(loaded.labels)) == len(classes)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("cifar100/[flowers,trees]", 10),
        ("cifar100/[large man-made outdoor things, road]", 5),
        ("cifar100/[large_man-made_outdoor_things,ray]", 6),
        ("cifar100/[sweet pepper]", 1),
    ],
)
def test_superclasses(name, classes):
    check(name)
    if (REAL / "cifar100").is_dir():
        assert len(load(name, "test", REAL).classes) == classes


def test_count_is_balanced_and_seeded():
    name = "glyphs/[A-C]"
    drawn = load(name, "test", count=31, seed=5)
    assert sorted(np.bincount(drawn.labels)) == [10, 10, 11]
    assert (drawn.images == load(name, "test", count=31, seed=5).images).all()
    assert not (drawn.images == load(name, "test", count=31, seed=6).images).all()
    with pytest.raises(UserError, match="has 600 images"):
        load(name, "test", count=601)


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_a_proxy(name):
    check(name)
    assert parent_size(name, Path("nowhere")) == SETS[name].train_size


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no image set"),
        ("cifar11", "did you mean cifar10"),
        ("cifar100/related_9", "did you mean cifar100/related_90"),
        ("related_90", "cifar100/related_90"),
        ("glyphs/", "known: cifar10"),
        ("glyphs/[]", "names no class"),
        ("glyphs/[a1]", "has no class 'a1'"),
        ("glyphs/[Z-A]", "has no class 'Z-A'"),
        ("glyphs/[0-Z]", "has no class '0-Z'"),
        ("glyphs/[flowers]", "has no class 'flowers'"),
        ("cifar100/[flower]", "did you mean flowers"),
        ("cifar10/[dog,cta]", "did you mean cat"),
        ("photos/[a]", "has no classes"),
        ("noise/uniform/[a]", "has no classes"),
        ("noise/unifrom", "did you mean noise/uniform"),
        ("zip:there", "expected folder:PATH"),
    ],
)
@pytest.mark.parametrize("use", [check, load, parent_size])
def test_bad_names(name, message, use):
    with pytest.raises(UserError, match=message):
        use(name)
