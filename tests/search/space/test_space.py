"""Space files that come with the package, and the trials that cells draw."""

from functools import cache
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import Cell
from degan_search.search.space.schema import Space
from degan_search.settings.resolve import flatten
from degan_search.trial import checks
from tests.search.space.made_spaces import SMALL, draws, read, write

shipped = cache(space_file.load)


@pytest.mark.parametrize("name", space_file.shipped())
class TestShipped:
    """Each space that comes with the package."""

    def test_says_what_it_is(self, name):
        assert shipped(name).description

    def test_reads_back_equal(self, name, tmp_path):
        loaded = shipped(name)
        dumped = space_file.dump(loaded)
        again = space_file.load(write(tmp_path, dumped))
        assert again == loaded
        assert space_file.dump(again) == dumped

    def test_draws_are_valid(self, name):
        for cell in spaces.cells(shipped(name))[:12]:
            for config in draws(cell, 5):
                checks.check(config)
                flat = dict(flatten(config.model_dump(mode="json")))
                assert {key: flat[key] for key in cell.settings} == cell.settings

    def test_first_points_are_tried_first(self, name):
        space = shipped(name)
        tried = [cell for cell in spaces.cells(space) if list(spaces.points(cell))]
        assert tried or not space.first
        for cell in tried[:3]:
            for point, config in zip(space.first, draws(cell, len(space.first)), strict=True):
                flat = dict(flatten(config.model_dump(mode="json")))
                known = {key: value for key, value in point.items() if key in cell.varies()}
                assert {key: flat[key] for key in known} == known


def test_every_yaml_file_is_shipped():
    folder = Path(__file__).parents[3] / "search_spaces"
    assert space_file.shipped() == sorted(file.stem for file in folder.glob("*.yaml"))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_grid_is_the_product_of_its_lists(lengths):
    names = ["gan.width", "gan.latent", "gan.epochs", "student.width"]
    lists = {name: [*range(1, length + 1)] for name, length in zip(names, lengths, strict=False)}
    cell = Cell({}, Space.model_validate({"parameters": lists, "search": {"sampler": "grid"}}))
    points = [tuple(point.values()) for point in cell.grid()]
    assert points == sorted(set(points))
    assert len(points) == cell.trials() == len(list(islice(spaces.points(cell), 1000)))


def test_a_cells_setting_wins_over_a_parameter_of_its_name(tmp_path):
    space = read(tmp_path, parameters={"proxy": ["photos", "digits"], "gan.lambda_d": [1, 2]})
    for cell in spaces.cells(space):
        assert list(cell.varies()) == ["gan.lambda_d"]
        assert {config.proxy for config in draws(cell, 8)} == {cell.settings["proxy"]}


def test_equal_seeds_draw_equal_trials(tmp_path):
    cell = spaces.cells(read(tmp_path))[0]
    assert draws(cell, seed=1) == draws(cell, seed=1)
    assert draws(cell, seed=1) != draws(cell, seed=2)


def test_a_drawn_profile_leaves_what_the_space_gives(tmp_path):
    trial = SMALL["trial"] | {"distill": {"epochs": 30, "lr": 5e-4}}
    (cell, _) = spaces.cells(read(tmp_path, trial=trial, parameters={"distill.profile": ["paper", "sgd_augmented"]}))
    drawn = {config.distill.profile: config.distill for config in draws(cell)}
    assert {(one.epochs, one.lr) for one in drawn.values()} == {(30, 5e-4)}
    assert [drawn[name].optimiser for name in ("paper", "sgd_augmented")] == ["adam", "sgd"]


def test_methods_without_proxy_have_one_cell(tmp_path):
    space = read(
        tmp_path, cells={"proxy": ["noise/uniform", "digits"], "method": ["true", "zskd", "dcgan"]}, parameters={}
    )
    assert [cell.label for cell in spaces.cells(space)] == [
        "proxy=noise/uniform method=true",
        "proxy=noise/uniform method=zskd",
        "proxy=noise/uniform method=dcgan",
        "proxy=digits method=dcgan",
    ]
