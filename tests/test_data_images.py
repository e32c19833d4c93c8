"""ImageSet and the conversions: known values, Pillow as the reference, bad input."""

import numpy as np
import pytest
import torch
from PIL import Image

from degan_search.data.images import ImageSet, denormalise, normalise, split, to_input
from degan_search.errors import UserError


def make_set(labels, classes=("a", "b", "c"), channels=3, size=32):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), channels, size, size), np.uint8)
    return ImageSet("made", images, np.array(labels), tuple(classes))


def test_select_keeps_the_sets_own_order():
    whole = make_set([2, 0, 1, 2, 0])
    some = whole.select(["c", "a"])
    assert some.classes == ("a", "c")
    assert some.labels.tolist() == [1, 0, 1, 0]
    assert some.labels.dtype == np.int64
    assert (some.images == whole.images[[0, 1, 3, 4]]).all()


def test_select_speaks():
    with pytest.raises(UserError, match="did you mean"):
        make_set([0], classes=("apple",)).select(["aple"])
    with pytest.raises(UserError, match="no classes"):
        ImageSet("plain", np.zeros((1, 3, 32, 32), np.uint8), None, ()).select(["apple"])


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ((10, 10, 10), 9, [3, 3, 3]),
        ((1, 10, 10), 9, [1, 4, 4]),
        ((2, 3, 30), 20, [2, 3, 15]),
        ((4, 0, 4), 8, [4, 0, 4]),
    ],
)
def test_sample_is_balanced_without_repeats(sizes, count, expected):
    whole = make_set(np.repeat(range(3), sizes))
    drawn = whole.sample(count, seed=1)
    assert np.bincount(drawn.labels, minlength=3).tolist() == expected
    assert len({image.tobytes() for image in drawn.images}) == count
    assert (drawn.images == whole.sample(count, seed=1).images).all()


def test_sample_spreads_the_remainder_and_depends_on_the_seed():
    whole = make_set(np.repeat(range(3), 20))
    draws = [whole.sample(10, seed) for seed in range(20)]
    counts = [np.bincount(draw.labels, minlength=3).tolist() for draw in draws]
    assert all(sorted(count) == [3, 3, 4] for count in counts)
    assert len(set(map(tuple, counts))) == 3
    assert not (draws[0].images == draws[1].images).all()


def test_sample_of_an_unlabelled_set():
    whole = ImageSet("plain", make_set(range(50)).images, None, ())
    assert len({image.tobytes() for image in whole.sample(20, 0).images}) == 20


@pytest.mark.parametrize("count", [0, -1, 4])
def test_sample_refuses_other_counts(count):
    with pytest.raises(UserError, match="has 3 images"):
        make_set([0, 1, 2]).sample(count, 0)


def test_to_input_is_the_same_array_when_nothing_is_to_do():
    images = make_set([0, 1]).images
    assert to_input(images, 3) is images


def test_gray_is_what_pillow_says():
    images = make_set([0] * 20).images
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in images]
    assert (to_input(images, 1)[:, 0] == expected).all()


def test_gray_to_rgb_repeats():
    images = make_set([0, 0], channels=1).images
    assert (to_input(images, 3) == images).all()


@pytest.mark.parametrize("size", [8, 28, 50, 96])
def test_resize_is_pillows_bilinear(size):
    images = make_set([0] * 5, size=size).images
    bilinear = Image.Resampling.BILINEAR
    expected = [Image.fromarray(image.transpose(1, 2, 0)).resize((32, 32), bilinear) for image in images]
    expected = np.stack([np.asarray(image).transpose(2, 0, 1) for image in expected])
    resized = to_input(images, 3)
    assert resized.shape == (5, 3, 32, 32)
    assert np.abs(resized.astype(int) - expected).max() <= 1


def test_to_input_does_not_depend_on_the_batch(monkeypatch):
    images = make_set([0] * 7, size=28).images
    whole = to_input(images, 1)
    monkeypatch.setattr("degan_search.data.images.CHUNK", 3)
    assert (to_input(images, 1) == whole).all()


@pytest.mark.parametrize(("has", "asked"), [(4, 3), (2, 1), (3, 2)])
def test_to_input_refuses_other_channels(has, asked):
    with pytest.raises(UserError, match="channels"):
        to_input(np.zeros((1, has, 32, 32), np.uint8), asked)


def test_normalise_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    inputs = normalise(pixels)
    assert inputs.dtype == torch.float32
    assert inputs[[0, 255]].tolist() == [-1, 1]
    assert inputs[51].item() == pytest.approx(-0.6)
    assert torch.equal(denormalise(inputs), pixels)
    assert denormalise(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_split_parts_are_disjoint_and_whole():
    train, held = split(50_000, 0.2, seed=3)
    assert (len(train), len(held)) == (40_000, 10_000)
    assert sorted(np.concatenate([train, held])) == list(range(50_000))
    again, other = split(50_000, 0.2, seed=3), split(50_000, 0.2, seed=4)
    assert (again[0] == train).all()
    assert not (other[0] == train).all()


@pytest.mark.parametrize(("count", "holdout"), [(10, 0.0), (10, 1.0), (10, -0.5), (2, 0.1), (0, 0.2)])
def test_split_refuses_an_empty_part(count, holdout):
    with pytest.raises(UserError, match="held out"):
        split(count, holdout, 0)
