"""What the command line's tests share: an empty folder to run in, and pictures."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Default folders are relative: none may appear in the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)


@pytest.fixture
def pictures(tmp_path):
    """A folder of 40 pictures, one of them broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(39):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no picture")
    return folder
