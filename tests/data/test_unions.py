"""Unions of proxies: which names are joined, how many images each gives, and what is known of them together."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from degan_search.data import proxies, unions
from degan_search.data.images import CountError
from degan_search.system import memory
from degan_search.system.errors import UserError

KNOWN = {*proxies.SETS, *proxies.SUBSETS}


def folder(place, colour, count, size=(40, 30)):
    place.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (colour, colour, colour)).save(place / f"{number}.png")


def gray(loaded):
    """How many images there are of each one colour."""
    values, counts = np.unique(loaded.images.reshape(len(loaded), -1)[:, 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "joined"),
    [
        ("photos", ["photos"]),
        ("glyphs/[K-Z]+photos", ["glyphs/[K-Z]", "photos"]),
        ("photos@64+glyphs@64/[A,B]+noise/uniform", ["photos@64", "glyphs@64/[A,B]", "noise/uniform"]),
        ("cifar100/related_90+fotos", ["cifar100/related_90", "fotos"]),
        ("folder:/a+b/c", ["folder:/a+b/c"]),
        ("folder:/c+++photos", ["folder:/c++", "photos"]),
        ("folder:/a+photos_2", ["folder:/a+photos_2"]),
        ("folder:/a+photos/train", ["folder:/a+photos/train"]),
        ("folder:/a+cifar100/[bear]+noise/uniform@8", ["folder:/a", "cifar100/[bear]", "noise/uniform@8"]),
        ("digits+folder:/a+b+npz:c+d+digits", ["digits", "folder:/a+b", "npz:c+d", "digits"]),
        ("folder:/a/[c++,d+photos]+photos", ["folder:/a/[c++,d+photos]", "photos"]),
        ("parquet:/a?image=x+y+photos", ["parquet:/a?image=x+y", "photos"]),
        ("photos+", ["photos", ""]),
    ],
)
def test_what_a_name_joins(name, joined):
    assert unions.names(name, KNOWN) == joined


@given(st.text("+:/[]?@a~\0", max_size=20) | st.lists(st.sampled_from(["folder:", "photos", "+", "/[", "]", "~x"])))
def test_a_name_loses_nothing(name):
    assert "+".join(unions.names("".join(name), KNOWN)) == "".join(name)


def test_a_path_that_is_there_is_taken_whole(tmp_path):
    folder(tmp_path / "a+photos", 10, 3)
    name = f"folder:{tmp_path}/a+photos"
    assert proxies.joined(name) == [name]
    assert len(proxies.load(name)) == 3
    assert proxies.joined(f"{name}+photos") == [name, "photos"]
    assert proxies.joined(f"{name}/[x]+photos") == [f"{name}/[x]", "photos"]
    folder(tmp_path / "b", 20, 3)
    assert proxies.joined(f"folder:{tmp_path}/b+photos") == [f"folder:{tmp_path}/b", "photos"]


@given(st.data())
def test_shares_are_as_even_as_may_be(data):
    totals = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(sum))
    count = data.draw(st.integers(1, sum(totals)))
    given_ = unions.shares("x", count, totals)
    assert sum(given_) == count
    for some, total in zip(given_, totals, strict=True):
        assert 0 <= some <= total
        assert some == total or some >= max(given_) - 1  # a part that gives less than another has no more


def test_what_is_left_over_the_first_parts_give():
    assert unions.shares("x", 8, [9, 9, 9]) == [3, 3, 2]
    assert unions.shares("x", 1, [1, 5]) == [1, 0]
    for count in (0, 28):
        with pytest.raises(UserError, match=f"x has 27 images; count must be 1 to that, not {count}"):
            unions.shares("x", count, [9, 9, 9])


def test_a_count_is_split_over_the_parts(tmp_path):
    for number, (colour, images) in enumerate([(10, 3), (20, 9), (30, 40)]):
        folder(tmp_path / str(number) / "few", colour, images)
        folder(tmp_path / str(number) / "none", 200, 1)
    name = "+".join(f"folder:{tmp_path}/{number}/[few]" for number in range(3))
    assert proxies.size(name) is None
    assert gray(proxies.load(name)) == {10: 3, 20: 9, 30: 40}
    assert gray(proxies.load(name, count=9)) == {10: 3, 20: 3, 30: 3}
    assert gray(proxies.load(name, count=30)) == {10: 3, 20: 9, 30: 18}
    assert gray(proxies.load(name, count=1)) == {10: 1}
    with pytest.raises(UserError, match=r"has 52 images; count must be 1 to that, not 53"):
        proxies.load(name, count=53)


def test_images_of_all_parts_have_one_shape(tmp_path):
    folder(tmp_path / "own", 10, 5)
    assert proxies.load(f"photos@20+folder:{tmp_path}/own", count=6).images.shape == (6, 3, 20, 20)
    assert proxies.load(f"folder:{tmp_path}/own+photos@20", count=6).images.shape == (6, 3, 32, 32)
    assert proxies.load("digits+photos@20", count=6).images.shape[1] == proxies.load("digits").images.shape[1]
    found = proxies.load(f"digits+photos@20+folder:{tmp_path}/own", count=9, size=(16, 24), channels=3, fit="stretch")
    assert found.images.shape == (9, 3, 16, 24)
    for start, part in enumerate(["digits", "photos@20", f"folder:{tmp_path}/own"]):
        alone = proxies.load(part, count=3, size=(16, 24), channels=3, fit="stretch").images
        assert (found.images[3 * start : 3 * start + 3] == alone).all()
    assert found.labels is None
    assert found.classes == ()


def test_it_is_drawn_by_the_seed_and_has_a_test_split():
    name = "glyphs/[K-M]+digits"
    once, again, other = (proxies.load(name, "test", count=20, seed=seed).images for seed in (0, 0, 1))
    assert (once == again).all()
    assert not (once == other).all()
    assert len(proxies.load(name, "test")) == 600 + 360
    assert proxies.has_test(name)


def test_what_is_known_of_a_union(tmp_path):
    folder(tmp_path / "own", 10, 30)
    own = f"folder:{tmp_path}/own"
    name = f"glyphs@64/[A-C]+{own}+photos"
    proxies.check(name)
    assert proxies.size(name) == 3000 + 30 + 10_000
    assert proxies.parent_size(name) == 36_000 + 30 + 10_000
    assert proxies.share(name) == pytest.approx(13_030 / 46_030)
    assert proxies.classes_of(name) == ()
    assert proxies.own_bases(name) == [own]
    assert not proxies.has_test(name)
    two = "glyphs/[A-C]+glyphs/[K]"
    assert (proxies.parent_size(two), proxies.size(two), proxies.share(two)) == (36_000, 4000, pytest.approx(1 / 9))


@pytest.mark.parametrize("use", [proxies.check, proxies.load, proxies.size, proxies.share, proxies.classes_of])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glyphs/[K-Z]+fotos", "no image set or subset 'fotos'; did you mean photos"),
        ("photos+", "no image set or subset ''"),
        ("glyphs/[K-Z]+photos@7", "from 8 to 512"),
        ("photos+zip:there", "expected folder:PATH"),
        ("photos+photos", "holds images twice: photos and photos are of one set"),
        ("photos+photos@64", "holds images twice"),
        ("glyphs/[A-C]+digits+glyphs@40/[C-E]", r"holds images twice: C of glyphs/\[A-C\] and of glyphs@40/\[C-E\]"),
        ("cifar100/related_90+cifar100/[cloud,bus]", "twice: cloud of cifar100/related_90"),
        ("npz:a/b.npz+npz:./a/b.npz/[x]", "are of one set"),
    ],
)
def test_wrong_unions(name, message, use):
    with pytest.raises(UserError, match=message):
        use(name)


def test_a_folder_of_a_union_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/none is not a folder"):
        proxies.check(f"photos+folder:{tmp_path}/none+digits")


def test_memory_must_hold_all_parts_together(tmp_path, monkeypatch):
    for name in "ab":
        folder(tmp_path / name, 10, 8)
    monkeypatch.setattr("degan_search.data.files._pixels", None)  # nothing is decoded
    monkeypatch.setattr(memory, "available", lambda: 8 * 3 * 64 * 64)
    with pytest.raises(UserError, match=r"has 16 images of 12,288 bytes each; at most 8 such .* count: 8"):
        proxies.load(f"folder:{tmp_path}/a+folder:{tmp_path}/b", size=(64, 64), channels=3)


def test_a_wrong_count_says_between_processes_how_many_there_are():
    with pytest.raises(CountError) as caught:
        proxies.load("digits/[3]", count=1000)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.images, str(again)) == (caught.value.images, str(caught.value))
    assert 100 < again.images < 200
