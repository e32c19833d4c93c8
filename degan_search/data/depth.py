"""Images of more than 8 bits for each value, brought to 8 by their depth."""

from __future__ import annotations

import re
import warnings

import numpy as np
from PIL import Image

from degan_search.system.errors import NoticeWarning, UserError

DARK = 2**14
"""A set of 16-bit images without a value this high is either of fewer bits, or almost black."""
DEPTHS = (8, 10, 12, 14)
"""Bits of cameras and scanners whose files have 16."""
CHUNK = 1024  # images converted at a time, so that wider copies stay small
_DEEP_COLOUR = re.compile(r"\b(?:LA|RGB\w*|CMYK);16")
"""Pillow's names of 16-bit pixels of which it keeps the upper 8 bits."""


class Depth:
    """Scales the images of one set to 8 bits, and looks whether the scale can be right.

    A depth that a file says is taken: BitsPerSample of a TIFF file, the greatest value of a PGM file. Else values span
    16 bits, or `bits` if the user says so. PNG's sBIT chunk says how many bits were significant before they were
    stretched to 16, so it changes nothing.
    """

    def __init__(self, bits: int | None = None) -> None:
        self.bits = bits
        self.peak = -1
        """Highest value of images whose file does not say its depth; -1: there are none."""
        self.colour_peak = -1
        """The same of 16-bit colour, of which the upper 8 bits are read."""

    def scaled(self, what: str, values: np.ndarray, top: int | None = None) -> np.ndarray:
        """Values 0..top, uint16 of any shape, as uint8 0..255, rounded; without `top`, the depth is the set's.

        Raises:
            UserError: a value above the depth that the user said.
        """
        peak = int(values.max(initial=0))
        if top is None:
            top = 2 ** (self.bits or 16) - 1
            self.peak = max(self.peak, peak)
        if peak > top:
            raise UserError(f"{what} has the value {peak:,}; {top.bit_length()} bits end at {top:,}")
        result = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), CHUNK):
            part = values[start : start + CHUNK].astype(np.uint32)
            result[start : start + CHUNK] = (part * 255 + top // 2) // top
        return result

    def gray(self, name: str, image: Image.Image, raw: str) -> Image.Image:
        """An opened gray image of one of Pillow's modes above 8 bits, as one of 8 bits; `raw` is how it was stored.

        Raises:
            UserError: fractions, 32 bits or signs, whose range no file says.
        """
        tags = getattr(image, "tag_v2", {})  # of TIFF
        pgm = image.format == "PPM" and image.mode == "I"  # Pillow has scaled it to 16 bits
        if not (image.mode.startswith("I;16") or pgm):
            kind = "fractions" if image.mode == "F" else "signs or 32 bits"
            raise UserError(
                f"{name} has pixels with {kind} (Pillow's mode {image.mode}), and no file says what is white in them; "
                "save it with 8 or 16 bits without sign"
            )
        bits = (tags.get(258) or (16,))[0]
        told = bits < 16 or (pgm and "'raw'" not in raw)  # raw: the greatest value is 65,535, which many write always
        values = self.scaled(name, np.asarray(image).astype(np.uint16), 2**bits - 1 if told else None)
        return Image.fromarray(255 - values if tags.get(262) == 0 else values)  # 0: TIFF whose 0 is white

    def see(self, image: Image.Image, raw: str) -> None:
        """Look at an image that Pillow has brought to 8 bits."""
        if _DEEP_COLOUR.search(raw):
            self.colour_peak = max(self.colour_peak, 256 * int(np.asarray(image).max(initial=0)) + 255)

    def check(self, what: object) -> None:
        """Refuse a set whose depth must be another than 16 bits; say so of colour, which could be read so far.

        Raises:
            UserError: gray images that are almost black, unless the user has said the depth.
        """
        if self.bits is not None:
            return
        if 0 <= self.peak < DARK:
            bits = next(bits for bits in DEPTHS if self.peak < 2**bits)
            raise UserError(
                f"{what} has 16-bit images, and no value in them is above {self.peak:,} of 65,535: write ?bits={bits} "
                f"behind the path if they have {bits} bits, from 0 to {2**bits - 1:,}, or ?bits=16 if they are so dark"
            )
        if 0 <= self.colour_peak < DARK:
            warnings.warn(
                f"{what} has 16-bit colour images, and no value in them is above {self.colour_peak:,} of 65,535: they "
                "come out almost black; scale them to 16 bits first if they have fewer (?bits=16 behind the path: "
                "they are so dark)",
                NoticeWarning,
                stacklevel=2,
            )
