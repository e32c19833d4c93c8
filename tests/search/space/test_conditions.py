"""Conditions: settings and parameters for some trials only."""

from degan_search.search.space import cell as spaces
from degan_search.search.space import check
from degan_search.search.space.cell import Cell
from degan_search.search.space.schema import Space
from tests.search.space.made_spaces import SMALL, draws, read, refused


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
