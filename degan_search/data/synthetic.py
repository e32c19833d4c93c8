"""Image sets that need no download: glyphs over photographs, photographs, noise, digits; same seed, same bits."""

import math
import string
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

from degan_search.data.images import Images, ImageSet, luma

Split = Literal["train", "test"]
SIZE = 32
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
RASTER = 48  # pixels of the square in which a glyph is drawn before it is shrunk and slanted


@cache
def photographs() -> tuple[Image.Image, ...]:
    """scikit-learn's two sample photographs, RGB, 640x427."""
    return tuple(Image.fromarray(photo) for photo in load_sample_images().images)


@cache
def glyph_mask(face: str, character: str) -> Image.Image:
    """One character, gray 0..255 on a RASTER square, its ink centred and 3/4 of the square high or wide."""
    import matplotlib  # for its font files alone; a worker, which draws no glyph, does without

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    trial = ImageFont.truetype(path, RASTER).getbbox(character)
    extent = max(trial[2] - trial[0], trial[3] - trial[1])
    font = ImageFont.truetype(path, RASTER * RASTER * 0.75 / extent)
    left, top, right, bottom = font.getbbox(character)
    mask = Image.new("L", (RASTER, RASTER))
    corner = ((RASTER - left - right) / 2, (RASTER - top - bottom) / 2)
    ImageDraw.Draw(mask).text(corner, character, fill=255, font=font)
    return mask


def patches(rng: np.random.Generator, count: int) -> Images:
    """`count` square crops of the photographs, of sides 32 to 256 pixels, half of them mirrored."""
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    photos = photographs()
    which = rng.integers(len(photos), size=count)
    sides = np.exp(rng.uniform(math.log(32), math.log(256), count))
    places = rng.random((count, 2))
    for i in range(count):
        photo, side = photos[which[i]], sides[i]
        left, top = places[i] * (np.array(photo.size) - side)
        box = (left, top, left + side, top + side)
        images[i] = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    mirrored = rng.random(count) < 0.5
    images[mirrored] = images[mirrored, :, ::-1]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def shapes(rng: np.random.Generator, character: str, count: int) -> np.ndarray:
    """One character in many faces, sizes, slants, angles and places: coverage 0..1, float32 [count, 1, 32, 32]."""
    masks = np.empty((count, 1, SIZE, SIZE), np.float32)
    faces = rng.integers(len(FACES), size=count)
    heights = rng.uniform(16, 27, count)  # of the ink, in pixels
    angles, slants = np.radians(rng.uniform(-10, 10, count)), rng.uniform(-0.2, 0.2, count)
    widths = np.exp(rng.uniform(-0.2, 0.2, count))
    shifts = rng.uniform(-1, 1, (count, 2)) * (SIZE - heights[:, None]) * 0.3
    for i in range(count):
        # Pillow takes the inverse map: where in the raster an output pixel comes from.
        zoom, cos, sin = heights[i] / (0.75 * RASTER), math.cos(angles[i]), math.sin(angles[i])
        forth = zoom * np.array([[cos, -sin], [sin, cos]]) @ [[widths[i], slants[i]], [0, 1]]
        back = np.linalg.inv(forth)
        offset = RASTER / 2 - back @ (SIZE / 2 + shifts[i])
        affine = (*back[0], offset[0], *back[1], offset[1])
        mask = glyph_mask(FACES[faces[i]], character)
        mask = mask.transform((SIZE, SIZE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        masks[i, 0] = np.asarray(mask)
    return masks / 255


def ink(rng: np.random.Generator, grounds: Images, masks: np.ndarray) -> np.ndarray:
    """A colour for each glyph, float32 [N, 3, 1, 1], lighter or darker than the ground by enough to be read."""
    covered = masks.sum((1, 2, 3)) + 1e-6
    ground = (luma(grounds) * masks).sum((1, 2, 3)) / covered
    contrast = rng.uniform(65, 150, len(grounds))
    lighter = np.where(rng.random(len(grounds)) < 0.5, ground + contrast < 255, ground - contrast < 0)
    grey = np.where(lighter, ground + contrast, ground - contrast)
    hue = rng.uniform(-70, 70, (len(grounds), 3))
    hue -= (hue @ [0.299, 0.587, 0.114])[:, None]  # colour without a change of luma
    colours: np.ndarray = (grey[:, None] + hue).clip(0, 255).astype(np.float32)
    return colours[:, :, None, None]


def glyphs(split: Split, classes: Sequence[str] | None = None) -> ImageSet:
    """A-Z and 0-9 over patches of photographs, RGB 32x32; 1,000 train and 200 test images a class.

    An image depends on its class, split and index alone, so a few classes are drawn without the others.
    """
    wanted = [name for name in GLYPH_CLASSES if classes is None or name in classes]
    count = GLYPHS_PER_CLASS[split]
    images = np.empty((len(wanted) * count, 3, SIZE, SIZE), np.uint8)
    for place, name in enumerate(wanted):
        rng = np.random.default_rng([GLYPHS, SPLITS.index(split), GLYPH_CLASSES.index(name)])
        grounds, masks = patches(rng, count), shapes(rng, name, count)
        mixed = grounds + (ink(rng, grounds, masks) - grounds) * masks
        images[place * count : (place + 1) * count] = mixed.round()
    return ImageSet("glyphs", images, np.repeat(np.arange(len(wanted)), count), tuple(wanted))


def photos(split: Split) -> ImageSet:
    """Patches of photographs, RGB 32x32, without labels."""
    rng = np.random.default_rng([PHOTOS, SPLITS.index(split)])
    return ImageSet("photos", patches(rng, PHOTO_COUNTS[split]), None, ())


def uniform_noise(split: Split) -> ImageSet:
    """Independent uniform bytes, RGB 32x32, without labels."""
    rng = np.random.default_rng([UNIFORM, SPLITS.index(split)])
    images = rng.integers(0, 256, (NOISE_COUNTS[split], 3, SIZE, SIZE), np.uint8)
    return ImageSet("noise/uniform", images, None, ())


def gaussian_noise(split: Split) -> ImageSet:
    """Independent normal pixels, mean 127.5, standard deviation 64, clipped to bytes, RGB 32x32, without labels."""
    rng = np.random.default_rng([GAUSSIAN, SPLITS.index(split)])
    # 2**16 quantiles of the distribution in a table: ten times as fast as drawing normals.
    quantiles = np.array([NormalDist(127.5, 64).inv_cdf((i + 0.5) / 2**16) for i in range(2**16)])
    drawn = rng.integers(2**16, size=(NOISE_COUNTS[split], 3, SIZE, SIZE), dtype=np.uint16)
    images = quantiles.clip(0, 255).round().astype(np.uint8)[drawn]
    return ImageSet("noise/gaussian", images, None, ())


def digits(split: Split) -> ImageSet:
    """scikit-learn's handwritten digits, gray 8x8, 0..16 stretched to 0..255; a fixed stratified 80/20 split."""
    bunch = load_digits()
    images = (bunch.images[:, None] * (255 / 16)).round().astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    whole = ImageSet("digits", images, labels, tuple(string.digits))
    return whole.take(np.sort(parts[SPLITS.index(split)]))
