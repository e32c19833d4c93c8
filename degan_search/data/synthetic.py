"""Image sets that need no download: glyphs over photographs, photographs, noise, digits; same seed, same bits."""

import math
import string
from functools import cache, lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from degan_search.data.images import SIZE, Images, ImageSet, chunks, luma
from degan_search.data.wanted import EVERYTHING, Wanted

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
# First word of every seed here, so that no two sets share a stream.
GLYPHS, PHOTOS, UNIFORM, GAUSSIAN = 1, 2, 3, 4

GLYPH_CLASSES = tuple(string.ascii_uppercase + string.digits)
GLYPHS_PER_CLASS = {"train": 1_000, "test": 200}
PHOTO_COUNTS = {"train": 10_000, "test": 2_000}
NOISE_COUNTS = {"train": 50_000, "test": 10_000}
# The faces shipped with matplotlib that have A-Z and 0-9 as letters and numerals (cmsy10, cmex10 have symbols).
FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmb10",
    "cmmi10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)
RASTER = 48  # pixels of the square in which a glyph of 32x32 is drawn before it is shrunk and slanted
SHORTEST, LONGEST = 213, 427  # most pixels of the shortest and the longest side of a photograph's crop
Rows = np.ndarray | slice
ALL = slice(None)


@cache
def photographs() -> tuple[Image.Image, ...]:
    """scikit-learn's two sample photographs, RGB, 640x427."""
    from sklearn.datasets import load_sample_images

    return tuple(Image.fromarray(photo) for photo in load_sample_images().images)


@lru_cache(maxsize=2 * len(FACES))  # the faces of a character, which is drawn in all of them before the next
def glyph_mask(face: str, character: str, raster: int = RASTER) -> Image.Image:
    """One character, gray 0..255 on a square of `raster` pixels, its ink centred and 3/4 of it high or wide."""
    import matplotlib  # for its font files alone; a worker, which draws no glyph, does without

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    trial = ImageFont.truetype(path, raster).getbbox(character)
    extent = max(trial[2] - trial[0], trial[3] - trial[1])
    font = ImageFont.truetype(path, raster * raster * 0.75 / extent)
    left, top, right, bottom = font.getbbox(character)
    mask = Image.new("L", (raster, raster))
    corner = ((raster - left - right) / 2, (raster - top - bottom) / 2)
    ImageDraw.Draw(mask).text(corner, character, fill=255, font=font)
    return mask


def patches(rng: np.random.Generator, count: int, side: int = SIZE, rows: Rows = ALL) -> Images:
    """Of `count` square crops of the photographs those of these rows, [n, 3, side, side]; half are mirrored.

    A crop has 32 to 256 pixels a side, of larger images more, so that few are enlarged.
    """
    photos = photographs()
    which = rng.integers(len(photos), size=count)
    shortest, longest = min(max(side, 32), SHORTEST), min(max(2 * side, 256), LONGEST)
    sides = np.exp(rng.uniform(math.log(shortest), math.log(longest), count))
    places, mirrored = rng.random((count, 2)), rng.random(count) < 0.5
    kept = np.arange(count)[rows]
    images = np.empty((len(kept), side, side, 3), np.uint8)
    for place, i in enumerate(kept):
        photo = photos[which[i]]
        left, top = places[i] * (np.array(photo.size) - sides[i])
        box = (left, top, left + sides[i], top + sides[i])
        images[place] = photo.resize((side, side), Image.Resampling.BILINEAR, box=box)
    turned = mirrored[kept]
    images[turned] = images[turned, :, ::-1]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def shapes(rng: np.random.Generator, character: str, count: int, side: int = SIZE, rows: Rows = ALL) -> np.ndarray:
    """Of `count` shapes of a character those of these rows: coverage 0..1, float32 [n, 1, side, side].

    They differ in face, size, slant, angle and place, and are drawn at this size, not enlarged.
    """
    raster = math.ceil(RASTER * side / SIZE)
    faces = rng.integers(len(FACES), size=count)
    heights = rng.uniform(16, 27, count) * (side / SIZE)  # of the ink, in pixels
    angles, slants = np.radians(rng.uniform(-10, 10, count)), rng.uniform(-0.2, 0.2, count)
    widths = np.exp(rng.uniform(-0.2, 0.2, count))
    shifts = rng.uniform(-1, 1, (count, 2)) * (side - heights[:, None]) * 0.3
    kept = np.arange(count)[rows]
    masks = np.empty((len(kept), 1, side, side), np.float32)
    for place, i in enumerate(kept):
        # Pillow takes the inverse map: where in the raster an output pixel comes from.
        zoom, cos, sin = heights[i] / (0.75 * raster), math.cos(angles[i]), math.sin(angles[i])
        forth = zoom * np.array([[cos, -sin], [sin, cos]]) @ [[widths[i], slants[i]], [0, 1]]
        back = np.linalg.inv(forth)
        offset = raster / 2 - back @ (side / 2 + shifts[i])
        affine = (*back[0], offset[0], *back[1], offset[1])
        mask = glyph_mask(FACES[faces[i]], character, raster)
        mask = mask.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        masks[place, 0] = np.asarray(mask)
    return masks / 255


def ink(
    rng: np.random.Generator, grounds: Images, masks: np.ndarray, count: int | None = None, rows: Rows = ALL
) -> np.ndarray:
    """A colour for each glyph, float32 [n, 3, 1, 1], lighter or darker than the ground by enough to be read.

    The grounds and masks are those of these rows of `count` glyphs (None: all).
    """
    count = len(grounds) if count is None else count
    covered = masks.sum((1, 2, 3)) + 1e-6
    ground = (luma(grounds) * masks).sum((1, 2, 3)) / covered
    contrast, up = rng.uniform(65, 150, count)[rows], rng.random(count)[rows] < 0.5
    lighter = np.where(up, ground + contrast < 255, ground - contrast < 0)
    grey = np.where(lighter, ground + contrast, ground - contrast)
    hue = rng.uniform(-70, 70, (count, 3))
    hue -= (hue @ [0.299, 0.587, 0.114])[:, None]  # colour without a change of luma
    colours: np.ndarray = (grey[:, None] + hue[rows]).clip(0, 255).astype(np.float32)
    return colours[:, :, None, None]


def glyphs(split: Split, wanted: Wanted = EVERYTHING, side: int = SIZE) -> ImageSet:
    """A-Z and 0-9 over patches of photographs, RGB [n, 3, side, side]; 1,000 train and 200 test images a class.

    An image depends on its class, split, index and size alone, so only those wanted are drawn.
    """
    count = GLYPHS_PER_CLASS[split]
    labels = np.repeat(np.arange(len(GLYPH_CLASSES)), count)
    picked = wanted.pick("glyphs", len(labels), labels, GLYPH_CLASSES, size=(side, side))
    images = np.empty((len(picked.rows), 3, side, side), np.uint8)
    for label in np.unique(labels[picked.rows]):
        places = np.flatnonzero(labels[picked.rows] == label)
        for part in chunks(len(places), side, side):
            rows = picked.rows[places[part]] % count
            rng = np.random.default_rng([GLYPHS, SPLITS.index(split), int(label)])
            grounds = patches(rng, count, side, rows)
            masks = shapes(rng, GLYPH_CLASSES[label], count, side, rows)
            mixed = grounds + (ink(rng, grounds, masks, count, rows) - grounds) * masks
            images[places[part]] = mixed.round()
    return ImageSet("glyphs", images, picked.labels, picked.classes)


def photos(split: Split, wanted: Wanted = EVERYTHING, side: int = SIZE) -> ImageSet:
    """Patches of photographs, RGB [n, 3, side, side], without labels."""
    rng, count = np.random.default_rng([PHOTOS, SPLITS.index(split)]), PHOTO_COUNTS[split]
    rows = wanted.pick("photos", count, None, (), size=(side, side)).rows
    return ImageSet("photos", patches(rng, count, side, rows), None, ())


def uniform_noise(split: Split, wanted: Wanted = EVERYTHING, side: int = SIZE) -> ImageSet:
    """Independent uniform bytes, RGB [n, 3, side, side], without labels."""
    return ImageSet("noise/uniform", _noise(UNIFORM, split, wanted, side, np.uint8), None, ())


def gaussian_noise(split: Split, wanted: Wanted = EVERYTHING, side: int = SIZE) -> ImageSet:
    """Independent normal pixels, mean 127.5, deviation 64, clipped to bytes, RGB [n, 3, side, side], without labels."""
    # 2**16 quantiles of the distribution in a table: ten times as fast as drawing normals.
    normal = NormalDist(127.5, 64)
    quantiles = np.array([normal.inv_cdf((i + 0.5) / 2**16) for i in range(2**16)]).clip(0, 255).round()
    images = _noise(GAUSSIAN, split, wanted, side, np.uint16, quantiles.astype(np.uint8))
    return ImageSet("noise/gaussian", images, None, ())


def _noise(kind: int, split: Split, wanted: Wanted, side: int, drawn: type, table: np.ndarray | None = None) -> Images:
    """Integers over the whole range of the type `drawn`, turned to bytes by `table`."""
    size, most = (3, side, side), np.iinfo(drawn).max
    rows = wanted.pick(f"noise@{side}", NOISE_COUNTS[split], None, (), size=size[1:]).rows
    images = np.empty((len(rows), *size), np.uint8)
    if side == SIZE:  # one stream for all of them
        rng = np.random.default_rng([kind, SPLITS.index(split)])
        stream: np.ndarray = rng.integers(0, most, (NOISE_COUNTS[split], *size), drawn, endpoint=True)
        if table is None and len(rows) == len(stream):
            return stream
        for part in chunks(len(rows), side, side):
            images[part] = stream[rows[part]] if table is None else table[stream[rows[part]]]
        return images
    for place, row in enumerate(rows):  # a stream for each, so that a few of many are soon drawn
        rng = np.random.default_rng([kind, SPLITS.index(split), side, int(row)])
        one = rng.integers(0, most, size, drawn, endpoint=True)
        images[place] = one if table is None else table[one]
    return images


def digits(split: Split, wanted: Wanted = EVERYTHING) -> ImageSet:
    """scikit-learn's handwritten digits, gray 8x8, 0..16 stretched to 0..255; a fixed stratified 80/20 split."""
    from sklearn.datasets import load_digits  # a second, for a set that few runs use
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = (bunch.images[:, None] * (255 / 16)).round().astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    whole = ImageSet("digits", images, labels, tuple(string.digits))
    return wanted.of(whole.take(np.sort(parts[SPLITS.index(split)])))
