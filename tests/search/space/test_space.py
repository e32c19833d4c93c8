"""Space files: what is read, what is refused, and what trials are drawn."""

from functools import cache
from itertools import islice
from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from degan_search.search.space import cell as spaces
from degan_search.search.space import check
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import Cell
from degan_search.search.space.schema import Range, Space
from degan_search.settings import yaml_text
from degan_search.system.errors import UserError
from degan_search.trial import checks

optuna.logging.set_verbosity(optuna.logging.WARNING)
NUMBERS = ("width", "latent", "epochs")
SMALL = {
    "trial": {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}},
    "cells": {"proxy": ["noise/uniform", "digits"]},
    "parameters": {"gan.lambda_e": {"zero_or_log": [0.1, 10]}, "gan.lambda_d": [0, 5, 10]},
}


def write(folder, content, name="mine.yaml"):
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(file)


def read(folder, **changes):
    return space_file.load(write(folder, {**SMALL, **changes}))


def refused(call, *parts):
    """The message of the UserError, which is one line and holds these parts."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 2000
    for part in parts:
        assert part in message
    return message


def study(cell, seed=0):
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
    for point in spaces.points(cell):
        made.enqueue_trial(point)
    return made


def draws(cell, count=60, seed=0):
    made = study(cell, seed)
    return [cell.configure(made.ask()) for _ in range(count)]


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
                flat = spaces._flat(config)
                assert {key: flat[key] for key in cell.settings} == cell.settings

    def test_first_points_are_tried_first(self, name):
        space = shipped(name)
        tried = [cell for cell in spaces.cells(space) if list(spaces.points(cell))]
        assert tried or not space.first
        for cell in tried[:3]:
            for point, config in zip(space.first, draws(cell, len(space.first)), strict=True):
                flat = spaces._flat(config)
                known = {key: value for key, value in point.items() if key in cell.varies()}
                assert {key: flat[key] for key in known} == known


def test_every_yaml_file_is_shipped():
    folder = Path(__file__).parents[3] / "search_spaces"
    assert space_file.shipped() == sorted(file.stem for file in folder.glob("*.yaml"))


@given(st.data())
def test_ranges_draw_inside(data):
    kind = data.draw(st.sampled_from(["range", "log", "int", "zero_or_log"]))
    number = st.integers(1, 1000) if kind == "int" else st.floats(0.001, 1000)
    low, high = sorted(data.draw(st.lists(number, min_size=2, max_size=2, unique=True)))
    spec = Range.model_validate({kind: [low, high]})
    values = [spec.suggest("x", optuna.create_study().ask()) for _ in range(5)]
    assert all(low <= value <= high or (kind == "zero_or_log" and value == 0) for value in values)
    if kind == "int":
        assert all(isinstance(value, int) for value in values)


def test_zero_or_log_gives_zero_and_both_ends_of_the_range():
    made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    spec = Range(zero_or_log=(0.01, 100))
    values = [spec.suggest("x", made.ask()) for _ in range(400)]
    positive = [value for value in values if value > 0]
    assert 130 < len(positive) < 270
    assert set(values) - set(positive) == {0.0}
    assert min(positive) < 0.03 < 30 < max(positive)
    # Log-uniform: about as many below the geometric middle as above.
    assert sum(value < 1 for value in positive) / len(positive) == pytest.approx(0.5, abs=0.12)


@given(st.sampled_from(["range", "log", "int", "zero_or_log"]), st.integers(1, 50), st.integers(1, 50), st.data())
def test_known_value_is_what_is_drawn(kind, low, above, data):
    spec = Range.model_validate({kind: [low, low + above]})
    value = data.draw(st.integers(low, low + above) | (st.just(0) if kind == "zero_or_log" else st.nothing()))
    made = optuna.create_study()
    made.enqueue_trial(spec.known("x", value))
    assert spec.suggest("x", made.ask()) == value


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({"range": [2, 1]}, "lower bound 2.0 must be below the upper bound 1.0"),
        ({"int": [3, 3]}, "must be below"),
        ({"log": [0, 1]}, "must begin above 0"),
        ({"zero_or_log": [-1, 1]}, "must begin above 0"),
        ({"log": [2, 1]}, "must be below"),
        ({"range": [0, float("inf")]}, "finite"),
        ({"range": [0, float("nan")]}, "finite"),
        ({"range": [0, 1], "log": [1, 2]}, "exactly one"),
        ({"range": [0, 1, 2]}, "at most 2"),
        ({"int": [1.5, 3]}, "integer"),
        ({"linear": [0, 1]}, "linear"),
        ({}, "exactly one"),
        ([], "at least"),
        (3, "list"),
    ],
)
def test_wrong_ranges(bounds, says, tmp_path):
    refused(lambda: read(tmp_path, parameters={"gan.lambda_e": bounds}), "gan.lambda_e", says)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"cellls": {}}, ["mine.yaml", "unknown key 'cellls'", "cells"]),
        ({"search": {"trails": 3}}, ["unknown key 'search.trails'", "trials"]),
        ({"search": {"sampler": "tpo"}}, ["search.sampler", "'tpo'"]),
        ({"search": {"trials": 0}}, ["search.trials"]),
        ({"asha": {"reduction_factor": 1}}, ["asha.reduction_factor"]),
        ({"finals": {"seeds": []}}, ["finals.seeds"]),
        ({"finals": {"seeds": [-1]}}, ["finals.seeds"]),
        ({"finals": {"seeds": [3, 0]}}, ["finals.seeds", "own seed 0"]),
        ({"finals": {"seeds": [7]}, "parameters": {"seed": [5, 7]}}, ["own seed 7"]),
        ({"trial": {"gan": {"lambda_x": 1}}}, ["unknown key 'gan.lambda_x'", "lambda_e"]),
        ({"trial": {"gan": {"lr": -1}}}, ["gan.lr = -1"]),
        ({"trial": {"gan": 3}}, ["gan = 3"]),
        ({"trial": {"teacher": {"dataset": "cifar11"}}}, ["'cifar11'", "cifar10"]),
        ({"trial": {"teacher": {"network": "alexnett"}}}, ["'alexnett'", "alexnet"]),
        ({"trial": {"student": {"network": "lenett"}}}, ["'lenett'", "lenet"]),
        ({"trial": {"probe": {"at": [20, 10]}}}, ["probe", "ascend"]),
        ({"cells": {"method": ["degan", "degann"]}}, ["cell method=degann", "degan"]),
        ({"cells": {"proxy": ["digits", "cifar100/nosuch"]}}, ["cell proxy=cifar100/nosuch"]),
        ({"cells": {"proxy": ["glyphs/[A-J]", "cifar100/[flowers,treess]"]}}, ["'treess'", "trees"]),
        ({"cells": {"proxy": []}}, ["cells.proxy"]),
        ({"cells": {"proxy": ["digits", "digits"]}}, ["cell proxy=digits", "twice"]),
        ({"cells": {"proxxy": ["digits"]}}, ["unknown key 'proxxy'", "proxy"]),
        ({"cells": {f"gan.{n}": list(range(100)) for n in NUMBERS}}, ["cells", "combinations"]),
        ({"parameters": {"student.network": ["lenet", "lenot"]}}, ["'lenot'"]),
        ({"parameters": {"proxy": ["digits", "diggits"]}, "cells": {}}, ["'diggits'"]),
        ({"parameters": {"method": ["degan", "dcgun"]}}, ["'dcgun'"]),
        ({"parameters": {"gan.beta1": {"range": [0, 2]}}}, ["gan.beta1"]),
        ({"parameters": {"gan.width": {"range": [2, 4]}}}, ["gan.width", "integer"]),
        ({"parameters": {"count": {"int": [10, 20]}}}, ["count can vary in a list alone"]),
        ({"parameters": {"gan.lambda_e": []}}, ["gan.lambda_e"]),
        ({"when": [{"if": {}}]}, ["when.0.if"]),
        ({"when": [{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": [0, 1]}}]}, ["gan.lambda_d", "twice"]),
        ({"when": [{"if": {"gan.lambda_d": 10}, "trial": {"gan": {"lrr": 1}}}]}, ["unknown key 'gan.lrr'"]),
        ({"when": [{"if": {"gan.lambda_d": 5}, "parameters": {"gan.lr": [0.1, 99]}}]}, ["gan.lr"]),
        ({"first": [{"gan.lambda_e": 99}]}, ["first: gan.lambda_e = 99", "[0.1, 10.0]"]),
        ({"first": [{"gan.lambda_e": 0.01}]}, ["first: gan.lambda_e = 0.01"]),
        ({"first": [{"gan.lambda_d": 7}]}, ["first: gan.lambda_d = 7", "[0, 5, 10]"]),
        ({"first": [{"gan.lambda_e": "much"}]}, ["first: gan.lambda_e = 'much'", "number"]),
        ({"first": [{"gan.lambda_x": 1}]}, ["first: 'gan.lambda_x'", "gan.lambda_d, gan.lambda_e"]),
        ({"first": [{"gan.lr": 0.1}]}, ["first: 'gan.lr'"]),
        ({"first": [{"gan.width": 2.5}], "parameters": {"gan.width": {"int": [2, 4]}}}, ["gan.width", "whole"]),
        ({"search": {"sampler": "grid"}}, ["grid needs lists", "gan.lambda_e"]),
        (
            {"search": {"sampler": "grid"}, "parameters": {f"gan.{n}": [*range(1, 200)] for n in NUMBERS}},
            ["grid has more than"],
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_spaces(changes, parts, tmp_path):
    refused(lambda: read(tmp_path, **changes), *parts)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "valid dictionary"),
        ("just words", "valid dictionary"),
        ("[1, 2]", "valid dictionary"),
        ("a: [", "not YAML"),
        ("a: b: c", "not YAML"),
        ("trial: !!python/object/apply:os.system ['true']", "not YAML"),
        (BOMB, "aliases"),
        ("trial: &again {gan: *again}", "aliases"),
        ("[" * 5000, "nested too deeply"),
        ("trial: " + "{a: " * 5000, "nested too deeply"),
        ("trial: {proxy: 2024-02-03}", "trial: proxy = 2024-02-03"),
        ("trial: {proxy: 2024-99-99}", "not YAML"),
        ("trial: {gan: {1: 2}}", "key 1 must be text"),
        ("1: 2", "key 1 must be text"),
        ("trial: !!binary aGVsbG8=", "bytes"),
        ("# " + "x" * yaml_text.MAX_BYTES, "at most 1,000,000 are read"),
    ],
    ids=lambda text: text[:25],
)
def test_text_that_is_no_space(text, says, tmp_path):
    refused(lambda: space_file.load(write(tmp_path, text)), "mine.yaml", says)


@given(st.text(max_size=60))
def test_any_text_is_refused_in_one_line_or_read(text):
    try:
        yaml_text.parse(text, "text")
    except UserError as error:
        assert "\n" not in str(error)


def test_bytes_that_are_no_text(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"description: \xff\xfe")
    refused(lambda: space_file.load(str(file)), "mine.yaml", "cannot be read as text")


def test_names_that_are_not_there(tmp_path):
    refused(lambda: space_file.load(str(tmp_path / "none.yaml")), "none.yaml", "does not exist")
    refused(lambda: space_file.load(str(tmp_path)), "not shipped")
    refused(lambda: space_file.load("smoek"), "did you mean smoke")


class TestConditions:
    """Settings and parameters under `when`."""

    def space(self, folder, **changes):
        return read(
            folder,
            cells={"proxy": ["noise/uniform", "digits"], "method": ["dcgan", "degan"]},
            parameters={},
            when=[
                {"if": {"method": "degan"}, "parameters": {"gan.lambda_e": {"zero_or_log": [0.1, 10]}}},
                {"if": {"method": "degan", "proxy": ["digits", "photos"]}, "parameters": {"gan.lambda_d": [3, 4]}},
                {"if": {"proxy": "digits"}, "trial": {"gan": {"width": 3}}},
            ],
            **changes,
        )

    def test_hold_for_their_cells_alone(self, tmp_path):
        by_label = {cell.label: cell for cell in spaces.cells(self.space(tmp_path))}
        assert {label: list(cell.varies()) for label, cell in by_label.items()} == {
            "proxy=noise/uniform method=dcgan": [],
            "proxy=noise/uniform method=degan": ["gan.lambda_e"],
            "proxy=digits method=dcgan": [],
            "proxy=digits method=degan": ["gan.lambda_e", "gan.lambda_d"],
        }
        for label, cell in by_label.items():
            configs = draws(cell, 20)
            assert {config.gan.width for config in configs} == {3 if "digits" in label else 64}
            weights = {config.gan.lambda_d for config in configs}
            assert weights == ({0} if "dcgan" in label else {3, 4} if "digits" in label else {5})

    def test_trials_without_and_with_finals(self, tmp_path):
        space = self.space(tmp_path, search={"trials": 7})
        assert [cell.trials() for cell in spaces.cells(space)] == [1, 7, 1, 7]
        space = self.space(tmp_path, search={"trials": 7}, finals={"seeds": [1]})
        assert [cell.trials() for cell in spaces.cells(space)] == [0, 7, 0, 7]

    def test_first_points_leave_out_what_a_cell_does_not_vary(self, tmp_path):
        space = self.space(tmp_path, first=[{"gan.lambda_e": 0, "gan.lambda_d": 4}])
        assert [list(spaces.points(cell)) for cell in spaces.cells(space)] == [
            [],
            [{"gan.lambda_e is 0": True}],
            [],
            [{"gan.lambda_e is 0": True, "gan.lambda_d": 1}],
        ]

    def test_on_a_drawn_value(self, tmp_path):
        space = read(
            tmp_path,
            cells={},
            parameters={"proxy": ["noise/uniform", "digits"]},
            when=[{"if": {"proxy": "digits"}, "parameters": {"gan.lambda_d": [1, 2]}}],
        )
        drawn = {(config.proxy, config.gan.lambda_d) for config in draws(Cell({}, space))}
        assert drawn == {("noise/uniform", 5.0), ("digits", 1.0), ("digits", 2.0)}

    def test_under_which_a_parameter_would_change_its_kind(self, tmp_path):
        two = [
            {"if": {"proxy": "digits"}, "parameters": {"gan.lambda_d": [1, 2]}},
            {"if": {"proxy": "noise/uniform"}, "parameters": {"gan.lambda_d": {"range": [1, 2]}}},
        ]
        changes = {"parameters": {"proxy": ["noise/uniform", "digits"]}, "when": two}
        refused(lambda: read(tmp_path, cells={}, **changes), "gan.lambda_d is not the same")
        # Cells are studies of their own, so there it may.
        check.check(Space.model_validate({**SMALL, "parameters": {}, "when": two}))

    def test_that_change_what_trials_share(self, tmp_path):
        space = read(
            tmp_path,
            cells={"method": ["dcgan", "degan"]},
            parameters={"proxy": ["noise/uniform", "digits"], "gan.lr": [0.1, 0.2], "count": [50, 60]},
            when=[{"if": {"gan.lr": 0.2, "method": "degan"}, "trial": {"objective": "agreement"}}],
        )
        shared = [
            [(config.proxy, config.count, config.objective) for config in cell.shared()] for cell in spaces.cells(space)
        ]
        usual = {
            (proxy, count, "balanced_soft_agreement") for proxy in ("noise/uniform", "digits") for count in (50, 60)
        }
        assert set(shared[0]) == usual
        assert set(shared[1]) == usual | {(proxy, count, "agreement") for proxy, count, _ in usual}

    def test_in_a_grid(self, tmp_path):
        space = read(
            tmp_path,
            cells={},
            parameters={"proxy": ["noise/uniform", "digits"], "gan.lambda_e": [0, 1]},
            when=[{"if": {"proxy": "digits"}, "parameters": {"gan.lambda_d": [1, 2]}}],
            search={"sampler": "grid"},
        )
        cell = Cell({}, space)
        assert cell.grid() == [
            {"proxy": "noise/uniform", "gan.lambda_e": 0},
            {"proxy": "noise/uniform", "gan.lambda_e": 1},
            {"proxy": "digits", "gan.lambda_e": 0, "gan.lambda_d": 1},
            {"proxy": "digits", "gan.lambda_e": 0, "gan.lambda_d": 2},
            {"proxy": "digits", "gan.lambda_e": 1, "gan.lambda_d": 1},
            {"proxy": "digits", "gan.lambda_e": 1, "gan.lambda_d": 2},
        ]
        assert cell.trials() == 6
        drawn = [(config.proxy, config.gan.lambda_e, config.gan.lambda_d) for config in draws(cell, 6)]
        assert len(set(drawn)) == 6


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


def test_a_parameter_that_the_method_does_not_use_is_refused(tmp_path):
    refused(lambda: read(tmp_path, parameters={"shots": [1, 5]}), "shots varies", "'degan' does not use it")
    varied = {"method": ["proxy", "degan"]}
    refused(
        lambda: read(tmp_path, cells=varied, parameters={"distill.mix_proxy": [0.25, 0.5]}), "method=proxy", "mix_proxy"
    )
    read(tmp_path, cells=varied)  # of the weights a row says that they had no effect


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
