"""What all figures share: looks, labels, accuracies, and the files they become."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis import figures
from analysis.figures import style
from degan_search.settings.methods import METHODS
from degan_search.system.errors import UserError
from tests.analysis.figures.made_parts import TIDY


class TestLook:
    """What all figures share."""

    def test_every_method_has_a_look_of_its_own(self):
        looks = [tuple(style.method_style(method).values()) for method in METHODS]
        assert len(set(looks)) == len(looks)
        assert style.method_style("new") not in [style.method_style(method) for method in METHODS]

    def test_looks_do_not_change_when_methods_are_added(self):
        assert style.method_style("degan") == {"color": "#009e73", "marker": "D"}
        assert style.method_style("true_matched") == {"color": "#d55e00", "marker": "P"}

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (["proxy=a method=degan", "proxy=b/[K-Z] method=degan"], ["a", "b/[K-Z]"]),
            (["proxy=a method=x", "proxy=b method=y"], ["proxy=a method=x", "proxy=b method=y"]),
            (["proxy=my own=1 method=x", "proxy=b method=x"], None),
            (["proxy=a method=x"], ["proxy=a method=x"]),
            ([], []),
        ],
    )
    def test_labels_keep_what_tells_them_apart(self, labels, expected):
        shortened = style.short(labels)
        assert list(shortened) == labels
        assert len(set(shortened.values())) == len(labels)
        assert expected is None or list(shortened.values()) == expected

    def test_finals_show_test_accuracy_and_the_search_that_on_held_out_images(self, trials):
        found = style.with_accuracy(trials)
        final = found["phase"] == "final"
        assert np.allclose(found["accuracy"][final], 100 * found["test_accuracy"][final])
        assert np.allclose(found["accuracy"][~final], 100 * found["oracle_accuracy"][~final])
        assert (found["state"] == "COMPLETE").all()

    @pytest.mark.parametrize("suffix", style.SUFFIXES)
    def test_the_same_figure_gives_the_same_bytes(self, suffix, tmp_path):
        for number in range(2):
            figures.save(figures.methods_by_proxy(TIDY), tmp_path / f"{number}{suffix}")
        assert (tmp_path / f"0{suffix}").read_bytes() == (tmp_path / f"1{suffix}").read_bytes()

    def test_large_pictures_are_made_small_enough(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (400, 3, 32, 32), np.uint8)
        classes = np.arange(400) % 10
        figure = figures.samples_by_class(noise, classes, noise, classes, [str(name) for name in range(10)])
        figures.save(figure, tmp_path / "noise.png")
        assert (tmp_path / "noise.png").stat().st_size < style.LIMIT

    def test_other_files_are_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"figure\.jpg must end in one of \.png"):
            figures.save(Figure(), tmp_path / "figure.jpg")
