"""Pictures of images: grids of samples."""

from __future__ import annotations

import io

from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid


def sample_grid(images: UInt8[Tensor, "n c h w"], columns: int = 8, zoom: int = 2) -> bytes:
    """Return a PNG with the images in rows."""
    grid = to_pil_image(make_grid(images, nrow=columns, padding=2, pad_value=255))
    buffer = io.BytesIO()
    grid.resize((grid.width * zoom, grid.height * zoom), resample=0).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
