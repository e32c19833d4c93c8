"""The table as a picture: every figure of the table is in it."""

import math

import pandas as pd
from PIL import Image

from analysis import figures

TIDY = pd.DataFrame(
    {
        "proxy": ["photos", "photos", "noise/uniform", "noise/uniform"],
        "method": ["proxy", "degan", "proxy", "degan"],
        "ours": [60.0, 72.0, 11.0, math.nan],
        "std": [1.0, 2.0, math.nan, math.nan],
        "teacher": [87.0, 87.0, 87.0, math.nan],
    }
)


def test_every_measured_cell_is_written_beside_its_mark():
    (axes,) = figures.methods_by_proxy(TIDY).axes
    assert sorted(text.get_text() for text in axes.texts) == ["11", "60", "72"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["photos", "noise/uniform"]
    assert axes.get_ylim() == (0, 100)


def test_methods_differ_in_mark_as_well_as_in_colour():
    (axes,) = figures.methods_by_proxy(TIDY).axes
    lines = [line for line in axes.get_lines() if line.get_marker() in figures.MARKERS]
    assert len({line.get_marker() for line in lines}) == 2
    assert len({line.get_color() for line in lines}) == 2


def test_a_figure_is_saved_as_a_picture(tmp_path):
    figures.save(figures.methods_by_proxy(TIDY), tmp_path / "table2.png")
    with Image.open(tmp_path / "table2.png") as picture:
        assert picture.width > 400
    assert (tmp_path / "table2.png").stat().st_size < 300_000
