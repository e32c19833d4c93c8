"""The drawn subsets of CIFAR-100, and the space that runs them."""

import pytest

from degan_search.data import proxies as proxy_sets
from degan_search.data.proxies import SUBSETS
from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from degan_search.system.errors import UserError


class TestDrawnSubsets:
    """Random subsets of the 90 related classes, and the space that runs them."""

    DRAWN = {name: classes for name, classes in SUBSETS.items() if "/drawn_" in name}

    def test_are_these_for_ever(self):
        assert self.DRAWN["cifar100/drawn_01_a"] == ("sweet_pepper",)
        assert self.DRAWN["cifar100/drawn_02_c"] == ("cockroach", "house")
        assert self.DRAWN["cifar100/drawn_05_a"] == ("bottle", "crocodile", "keyboard", "pine_tree", "plain")

    def test_are_thirty_different_ones_of_the_related_90(self):
        assert len(set(self.DRAWN.values())) == len(self.DRAWN) == 30
        assert all(set(classes) <= set(SUBSETS["cifar100/related_90"]) for classes in self.DRAWN.values())
        sizes = sorted({len(classes) for classes in self.DRAWN.values()})
        assert (sizes[0], sizes[-1], len(sizes)) == (1, 65, 10)

    def test_a_wrong_one_is_told_its_neighbours_and_others_do_not_see_them(self):
        with pytest.raises(UserError, match="did you mean cifar100/drawn_05_"):
            proxy_sets.check("cifar100/drawn_05_d")
        with pytest.raises(UserError) as caught:
            proxy_sets.check("glyphs/")
        assert "drawn" not in str(caught.value)

    @pytest.mark.parametrize(
        ("space", "methods"),
        [("relatedness_cifar10", ("proxy", "degan")), ("relatedness_fashion_mnist", ("proxy", "dcgan", "degan"))],
    )
    def test_the_space_runs_each_once_with_each_method_and_count(self, space, methods):
        cells = spaces.cells(space_file.load(space))
        assert not any(cell.trials() for cell in cells)  # nothing varies: each is a final run alone
        configs = [cell.example() for cell in cells]
        assert {config.proxy for config in configs} == {*self.DRAWN, "cifar100/related_90"}
        arms = {(config.method, config.count) for config in configs}
        assert arms == {(method, count) for method in methods for count in (500, None)}
        assert len(cells) == 31 * 2 * len(methods)
        tuned = {(config.gan.lambda_e, config.gan.lambda_d) for config in configs if config.method == "degan"}
        assert tuned == {(0, 5)}
