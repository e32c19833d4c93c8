"""Generated images beside proxy images, by the teacher's class."""

import numpy as np
import pytest

from analysis import figures
from analysis.figures.samples import CLASSES, SHOWN
from degan_search.products.samples import class_samples
from degan_search.system.errors import UserError
from tests.analysis.figures.made_parts import NAMES


class TestSamples:
    """Generated beside proxy images."""

    def images(self, *values):
        return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), np.uint8)

    def test_each_image_stands_in_the_row_of_its_class(self):
        generated, proxy = self.images(10, 20, 30), self.images(40, 50)
        figure = figures.samples_by_class(generated, np.array([2, 0, 2]), proxy, np.array([1, 1]), NAMES)
        left, right = (axes.images[0].get_array()[::6, ::6, 0] for axes in figure.axes)
        assert left[:, :3].tolist() == [[20, 255, 255], [255, 255, 255], [10, 30, 255]]
        assert right[:, :3].tolist() == [[255, 255, 255], [40, 50, 255], [255, 255, 255]]
        assert left.shape == (3, SHOWN)
        shares = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
        assert shares == [["ant  33%", "bee  0%", "cat  67%"], ["0%", "100%", "0%"]]

    def test_of_many_classes_those_most_generated(self):
        many = self.images(*range(100))
        figure = figures.samples_by_class(
            many, np.arange(100) // 2 + 40, many, np.arange(100), [str(n) for n in range(100)]
        )
        labels = [label.get_text().split()[0] for label in figure.axes[0].get_yticklabels()]
        assert labels == [str(n) for n in range(40, 40 + CLASSES)]

    def test_no_images(self):
        with pytest.raises(UserError, match="0 proxy images"):
            figures.samples_by_class(
                self.images(1), np.array([0]), np.empty((0, 1, 4, 4), np.uint8), np.array([], int), NAMES
            )


class TestShow:
    """The data of the samples."""

    def test_images_with_the_teachers_classes_the_same_each_time(self, finished_run):
        first, again = (
            class_samples(finished_run, "search-0000", None, finished_run.parent / "cache", 50) for _ in range(2)
        )
        assert first.generated.shape == first.proxy_images.shape == (50, 1, 32, 32)
        assert first.generated.dtype == first.proxy_images.dtype == np.uint8
        assert len(first.class_names) == 10
        assert len(set(first.generated_classes)) > 1
        for one, other in zip(first[:4], again[:4], strict=True):
            assert np.array_equal(one, other)

    def test_what_it_refuses(self, finished_run, tmp_path):
        with pytest.raises(UserError, match="has no generator"):
            class_samples(finished_run, "search-0001", None, finished_run.parent / "cache")
        with pytest.raises(UserError, match="--storage"):
            class_samples(finished_run, "search-0000", None, tmp_path)
