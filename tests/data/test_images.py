"""ImageSet and the conversions: known values, Pillow as the reference, bad input."""

import numpy as np
import pytest
import torch
from PIL import Image

from degan_search.data.images import ImageSet, augment, denormalise, normalise, split, to_input
from degan_search.system.errors import UserError


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


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_augmented_images_are_crops_of_the_padded_ones_half_of_them_mirrored():
    count, (height, width), padding = 1500, (5, 7), 2
    images = torch.rand(count, 2, height, width, generator=rng(1)) * 1.9 - 0.9  # nowhere black
    before = images.clone()
    augmented = augment(images, rng(), padding)
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.float32
    assert torch.equal(images, before)
    made = []
    for image, result in zip(images, augmented, strict=True):
        padded = torch.full((2, height + 2 * padding, width + 2 * padding), -1.0)
        padded[:, padding : padding + height, padding : padding + width] = image
        fitting = [
            (top, left, mirrored)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            for mirrored in (False, True)
            if torch.equal(
                result,
                padded[:, top : top + height, left : left + width].flip([2] if mirrored else []),
            )
        ]
        assert len(fitting) == 1
        made += fitting
    assert len(set(made)) == 5 * 5 * 2  # all offsets, mirrored and not
    counts = np.unique(np.array(made), axis=0, return_counts=True)[1]
    assert counts.max() < 1500 / 50 * 2
    assert np.mean([mirrored for *_, mirrored in made]) == pytest.approx(0.5, abs=0.05)
    assert (augmented == -1).any()


def test_augmentation_follows_its_generator_alone():
    images = torch.rand(20, 3, 32, 32, generator=rng(1))
    first = augment(images, rng(3))
    torch.manual_seed(5)
    assert torch.equal(augment(images, rng(3)), first)
    assert torch.equal(augment(images.contiguous(memory_format=torch.channels_last), rng(3)), first)
    assert not torch.equal(augment(images, rng(4)), first)
    stream = rng(3)
    assert torch.equal(augment(images, stream), first)
    assert not torch.equal(augment(images, stream), first)


def test_without_padding_images_are_mirrored_alone():
    images = torch.rand(30, 1, 4, 4, generator=rng(1))
    for image, result in zip(images, augment(images, rng(), 0), strict=True):
        assert torch.equal(result, image) or torch.equal(result, image.flip(2))


def test_the_common_padding_is_4():
    white = augment(torch.ones(2000, 1, 32, 32), rng())[:, 0]
    assert {int((image == 1).any(1).sum()) for image in white} == {28, 29, 30, 31, 32}
    assert {int((image == 1).any(0).sum()) for image in white} == {28, 29, 30, 31, 32}


def test_split_parts_are_disjoint_and_whole():
    train, held = split(50_000, 0.2, seed=3)
    assert (len(train), len(held)) == (40_000, 10_000)
    assert sorted(np.concatenate([train, held])) == list(range(50_000))
    again, other = split(50_000, 0.2, seed=3), split(50_000, 0.2, seed=4)
    assert (again[0] == train).all()
    assert not (other[0] == train).all()
    everything, nothing = split(50, 0, seed=3)
    assert sorted(everything) == list(range(50)) and len(nothing) == 0


@pytest.mark.parametrize(("count", "holdout"), [(0, 0.0), (10, 1.0), (10, -0.5), (2, 0.1), (0, 0.2)])
def test_split_refuses_an_empty_part(count, holdout):
    with pytest.raises(UserError, match="held out"):
        split(count, holdout, 0)
