"""Pictures of results: each figure draws what it is given or says what is missing, and shows the values it should."""

import math

import numpy as np
import pandas as pd
import pytest
from made_ledger import class_orders, made_ledger
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from analysis import figures
from analysis.figures import look
from analysis.figures.accuracy import front
from analysis.figures.samples import CLASSES, SHOWN
from analysis.tables import table as tables
from degan_search import ledger
from degan_search.cli.main import app
from degan_search.products.samples import class_samples
from degan_search.settings.methods import METHODS
from degan_search.system.errors import UserError

TIDY = pd.DataFrame(
    {
        "proxy": ["photos", "photos", "noise/uniform", "noise/uniform"],
        "method": ["proxy", "degan", "proxy", "degan"],
        "ours": [60.0, 72.0, 11.0, math.nan],
        "std": [1.0, 2.0, math.nan, math.nan],
        "teacher": [87.0, 87.0, 87.0, math.nan],
    }
)
NAMES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("runs") / "made", 120)


@pytest.fixture(scope="module")
def trials(run):
    return ledger.load(run)


@pytest.fixture(scope="module")
def curves(run):
    return ledger.curves(run)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    return class_orders(tmp_path_factory.mktemp("runs") / "learned")


def given(trials, curves):
    """What `Entry.needs` may ask for, from these trials."""
    proxies = list(dict.fromkeys(trials["config_proxy"]))
    cells = [(cell, name, share, 12) for cell in trials["cell"].unique() for name, share in (("a", 0.9), ("b", 0.1))]
    classes = np.arange(2 * len(trials)) % 3
    images = np.random.default_rng(0).integers(0, 256, (len(classes), 1, 8, 8), np.uint8)
    samples = (images, classes, images, classes, NAMES)
    return {
        "trials": trials,
        "curves": curves,
        "table": tables.table(trials),
        "measures": pd.DataFrame({"proxy": proxies, "classes": range(1, len(proxies) + 1), "distance": 0.5}),
        "importances": pd.DataFrame(cells, columns=["cell", "parameter", "importance", "n"]),
        **dict(zip(figures.FIGURES["samples"].needs, samples, strict=True)),
    }


def texts(axes):
    return [text.get_text() for text in axes.texts]


class TestContract:
    """Every figure of the table."""

    @pytest.mark.parametrize("name", figures.FIGURES)
    def test_draws_a_run(self, name, trials, curves, tmp_path):
        entry, parts = figures.FIGURES[name], given(trials, curves)
        figures.save(entry.draw(*(parts[need] for need in entry.needs)), tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size < look.LIMIT
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10

    @pytest.mark.parametrize("name", ["methods_by_proxy", "weights", "steps", "parallel", "pareto"])
    def test_draws_a_run_that_learns_new_classes(self, name, learned, tmp_path):
        entry, parts = figures.FIGURES[name], given(ledger.load(learned), ledger.curves(learned))
        figures.save(entry.draw(*(parts[need] for need in entry.needs)), tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size < look.LIMIT

    @pytest.mark.parametrize("name", figures.FIGURES)
    @pytest.mark.parametrize("which", ["none", "search-0000", "final-0000", "failed", "pruned"])
    def test_draws_one_trial_or_none_or_says_what_is_missing(self, name, which, trials, curves, tmp_path):
        states = {"failed": "FAIL", "pruned": "PRUNED"}
        ids = trials.loc[trials["state"] == states[which], "trial_id"].iloc[:1] if which in states else [which]
        parts = given(trials[trials["trial_id"].isin(ids)], curves[curves["trial_id"].isin(ids)])
        entry = figures.FIGURES[name]
        try:
            figure = entry.draw(*(parts[need] for need in entry.needs))
        except UserError as error:
            assert len(str(error)) > 20
        else:
            assert isinstance(figure, Figure)
            figures.save(figure, tmp_path / "one.png")

    def test_needs_are_what_the_test_and_the_command_give(self, trials, curves):
        assert {need for entry in figures.FIGURES.values() for need in entry.needs} == set(given(trials, curves))


class TestLook:
    """What all figures share."""

    def test_every_method_has_a_look_of_its_own(self):
        looks = [tuple(look.method_look(method).values()) for method in METHODS]
        assert len(set(looks)) == len(looks)
        assert look.method_look("new") not in [look.method_look(method) for method in METHODS]

    def test_looks_do_not_change_when_methods_are_added(self):
        assert look.method_look("degan") == {"color": "#009e73", "marker": "D"}
        assert look.method_look("true_matched") == {"color": "#d55e00", "marker": "P"}

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
        shortened = look.short(labels)
        assert list(shortened) == labels
        assert len(set(shortened.values())) == len(labels)
        assert expected is None or list(shortened.values()) == expected

    def test_finals_show_test_accuracy_and_the_search_that_on_held_out_images(self, trials):
        found = look.with_accuracy(trials)
        final = found["phase"] == "final"
        assert np.allclose(found["accuracy"][final], 100 * found["test_accuracy"][final])
        assert np.allclose(found["accuracy"][~final], 100 * found["oracle_accuracy"][~final])
        assert (found["state"] == "COMPLETE").all()

    @pytest.mark.parametrize("suffix", look.SUFFIXES)
    def test_the_same_figure_gives_the_same_bytes(self, suffix, tmp_path):
        for number in range(2):
            figures.save(figures.methods_by_proxy(TIDY), tmp_path / f"{number}{suffix}")
        assert (tmp_path / f"0{suffix}").read_bytes() == (tmp_path / f"1{suffix}").read_bytes()

    def test_large_pictures_are_made_small_enough(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (400, 3, 32, 32), np.uint8)
        classes = np.arange(400) % 10
        figure = figures.samples_by_class(noise, classes, noise, classes, [str(name) for name in range(10)])
        figures.save(figure, tmp_path / "noise.png")
        assert (tmp_path / "noise.png").stat().st_size < look.LIMIT

    def test_other_files_are_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"figure\.jpg must end in one of \.png"):
            figures.save(Figure(), tmp_path / "figure.jpg")


class TestMethodsByProxy:
    """The table as a picture."""

    def test_every_measured_cell_is_written_beside_its_mark(self):
        (axes,) = figures.methods_by_proxy(TIDY).axes
        assert sorted(texts(axes)) == ["11", "60", "72"]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["photos", "noise/\nuniform"]
        assert axes.get_ylim() == (0, 100)

    def test_methods_differ_in_mark_as_well_as_in_colour(self):
        (axes,) = figures.methods_by_proxy(TIDY).axes
        lines = [line for line in axes.get_lines() if line.get_marker() in figures.MARKERS]
        assert len({line.get_marker() for line in lines}) == 2
        assert len({line.get_color() for line in lines}) == 2

    def test_of_table_3_each_kind_of_classes_has_its_place(self, learned):
        (axes,) = figures.methods_by_proxy(tables.table(ledger.load(learned))).axes
        assert [label.get_text() for label in axes.get_xticklabels()] == [
            "all classes",
            "old classes",
            "new classes",
        ]
        assert texts(axes).count("50") == texts(axes).count("30") == 6

    def test_methods_of_one_proxy_do_not_reach_into_the_next(self):
        many = pd.DataFrame([{"proxy": p, "method": m, "ours": 50.0} for p in "ab" for m in METHODS])
        (axes,) = figures.methods_by_proxy(many.assign(std=math.nan, teacher=87.0)).axes
        places = [line.get_xdata() for line in axes.get_lines() if line.get_marker() in figures.MARKERS]
        assert len(places) == len(METHODS)
        assert all(abs(place[0]) < 0.5 and abs(place[1] - 1) < 0.5 for place in places)

    def test_proxies_without_a_figure_are_left_out(self):
        missing = TIDY.assign(proxy="other", ours=math.nan)
        (axes,) = figures.methods_by_proxy(pd.concat([TIDY, missing])).axes
        assert len(axes.get_xticklabels()) == 2


class TestRelatedness:
    """Accuracy against relatedness."""

    def measures(self, trials):
        proxies = trials["config_proxy"].unique()
        return pd.DataFrame(
            {"proxy": proxies, "near": np.arange(len(proxies)) + 1.0, "far": 10.0 ** np.arange(len(proxies))}
        )

    def test_each_trial_stands_at_its_proxys_measure(self, trials):
        measures = self.measures(trials)
        near, far = figures.relatedness(trials, measures).axes
        accurate = look.with_accuracy(trials)
        for axes, name in ((near, "near"), (far, "far")):
            drawn = np.concatenate([marks.get_offsets() for marks in axes.collections])
            place = accurate["config_proxy"].map(measures.set_index("proxy")[name])
            expected = np.column_stack([place, accurate["accuracy"]])
            assert np.allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])
        assert (near.get_xscale(), far.get_xscale()) == ("linear", "log")

    def test_proxies_at_one_place_share_a_name(self, trials):
        measures = self.measures(trials).assign(near=[1, 1, 1.001, 2])
        (axes,) = figures.relatedness(trials, measures, ["near"]).axes
        first, last = (", ".join(measures["proxy"][part]) for part in (slice(0, 3), slice(3, 4)))
        assert texts(axes) == [first, last]

    def test_proxies_of_other_sizes_are_other_proxies(self, trials):
        measures = self.measures(trials).assign(count=10_000)
        smaller = measures.assign(count=50, near=-7.0)
        (axes,) = figures.relatedness(trials, pd.concat([measures, smaller]), ["near"]).axes
        drawn = np.concatenate([marks.get_offsets() for marks in axes.collections])
        assert drawn[:, 0].min() == 1
        assert len(drawn) == len(look.with_accuracy(trials))

    def test_what_it_refuses(self, trials):
        measures = self.measures(trials)
        with pytest.raises(UserError, match="degan-search relatedness"):
            figures.relatedness(trials, None)
        with pytest.raises(UserError, match="did you mean near"):
            figures.relatedness(trials, measures, ["neer"])
        with pytest.raises(UserError, match="no measures of the trials' proxies"):
            figures.relatedness(trials, measures.assign(proxy="other"))
        with pytest.raises(UserError, match="varies"):
            figures.relatedness(trials, measures.assign(near=1.0, far=2.0))
        other = trials.assign(config_teacher_dataset="digits")
        with pytest.raises(UserError, match=r"digits"):
            figures.relatedness(pd.concat([trials, other]), measures)


class TestPareto:
    """Accuracy against compute."""

    def test_the_front_is_what_no_other_beats_or_equals(self):
        cost = pd.Series([3, 1, 2, 2, 4, 5], name="seconds")
        accuracy = pd.Series([30.0, 10.0, 20.0, 25.0, 30.0, 40.0])
        assert front(cost, accuracy).to_numpy().tolist() == [[1, 10], [2, 25], [3, 30], [5, 40]]

    def test_a_panel_for_each_proxy_of_each_true_data_set(self, trials):
        assert len(figures.pareto(trials).axes) == trials["config_proxy"].nunique()
        other = trials.assign(config_teacher_dataset="digits")
        titles = [axes.get_title() for axes in figures.pareto(pd.concat([trials, other])).axes]
        assert len(titles) == 2 * trials["config_proxy"].nunique()
        assert "digits: photos" in titles

    def test_costs(self, trials):
        assert "GAN steps" in figures.pareto(trials, "gan_steps").axes[-1].get_xlabel()
        with pytest.raises(UserError, match="'second'"):
            figures.pareto(trials, "second")


class TestWeights:
    """The heat map."""

    ROWS = (
        # lambda_e, lambda_d, state, score, accuracy
        (0.0, 0.0, "COMPLETE", 0.1, 0.20),
        (0.0, 5.0, "COMPLETE", 0.9, 0.40),
        (0.0, 9.0, "COMPLETE", 0.2, 0.60),
        (0.5, 0.0, "PRUNED", 0.95, math.nan),
        (0.5, 20.0, "COMPLETE", 0.3, 0.70),
    )

    def frame(self, trials):
        names = ["config_gan_lambda_e", "config_gan_lambda_d", "state", "score", "oracle_accuracy"]
        row = trials[(trials["config_method"] == "degan") & (trials["phase"] == "search")].iloc[[0] * len(self.ROWS)]
        return row.assign(**dict(zip(names, zip(*self.ROWS, strict=True), strict=True))).reset_index(drop=True)

    def test_cells_hold_mean_and_number_and_zero_has_its_own(self, trials):
        axes = figures.weights(self.frame(trials)).axes[0]
        found = {(round(t.get_position()[0]), round(t.get_position()[1]), t.get_text()) for t in axes.texts}
        # Across 0, 3 to 10, 10 to 30; up 0, 0.3 to 1.
        assert found == {
            (0, 0, "20"),
            (0, 0, "n=1"),
            (1, 0, "50"),
            (1, 0, "n=2"),
            (0, 1, "–"),
            (2, 1, "70"),
            (2, 1, "n=1"),
        }
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "3", "10", "30"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.3", "1"]

    def test_the_choice_is_the_finished_trial_of_the_best_score(self, trials):
        (outline,) = [p for p in figures.weights(self.frame(trials)).axes[0].patches if not p.get_fill()]
        assert (outline.get_x(), outline.get_y()) == (0.5, -0.5)

    def test_the_best_cell_of_each_panel_has_one_colour(self, trials):
        frame = self.frame(trials)
        other = frame.assign(config_proxy="other", oracle_accuracy=frame["oracle_accuracy"] / 2)
        panels = figures.weights(pd.concat([frame, other])).axes[:2]
        best = [
            {to_hex(p.get_facecolor()) for p in axes.patches if p.get_fill() and p.get_x() == 1.5} for axes in panels
        ]
        assert best[0] == best[1] == {to_hex(colormaps["cividis"](1.0))}

    def test_scores_where_no_accuracy_is_measured(self, trials):
        frame = self.frame(trials).assign(oracle_accuracy=math.nan)
        assert "0.90" not in texts(figures.weights(frame).axes[0])
        assert "0.55" in texts(figures.weights(frame).axes[0])
        with pytest.raises(UserError, match="oracle_accuracy"):
            figures.weights(frame, "oracle_accuracy")
        with pytest.raises(UserError, match="did you mean score"):
            figures.weights(frame, "scores")


class TestSteps:
    """Score against GAN steps."""

    def test_each_trial_ends_with_the_mark_of_its_state(self, curves):
        scored = curves[(curves["phase"] == "search") & curves["score"].notna()]
        figure = figures.steps(curves)
        assert len(figure.axes) == scored["cell"].nunique()
        ends = [line for axes in figure.axes for line in axes.get_lines() if len(line.get_xdata()) == 1]
        for marker, state in (("o", "COMPLETE"), ("x", "PRUNED"), ("v", "FAIL")):
            expected = scored[scored["state"] == state].groupby("trial_id").tail(1)
            found = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ends if line.get_marker() == marker]
            assert sorted(found) == sorted(zip(expected["budget"], expected["score"], strict=True))

    def test_rungs_are_dotted_lines(self, curves):
        axes = figures.steps(curves).axes[0]
        assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"] == [100, 200]

    def test_the_best_finished_trial_of_each_cell_is_thick(self, curves):
        done = curves[(curves["phase"] == "search") & (curves["stage"] == "done")]
        for axes, (_, own) in zip(figures.steps(curves).axes, done.groupby("cell", sort=False), strict=True):
            thick = [line for line in axes.get_lines() if line.get_linewidth() == 2.5]
            assert [line.get_ydata()[-1] for line in thick] == [own["score"].max()]

    def test_runs_do_not_mix(self, curves):
        longer = curves.assign(run="other", budget=2 * curves["budget"])
        panels = figures.steps(pd.concat([curves, longer])).axes
        assert len({axes.get_title() for axes in panels}) == len(panels) == 8
        assert all(axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 800 for axes in panels)


class TestSettings:
    """Parallel coordinates and importances."""

    def test_axes_are_what_varies_and_lines_the_finished_trials(self, trials):
        (axes,) = figures.parallel(trials).axes
        names = [label.get_text() for label in axes.get_xticklabels()]
        assert names == ["proxy", "lambda_e", "lambda_d", "score", "held-out accuracy (%)"]
        done = trials[(trials["phase"] == "search") & (trials["state"] == "COMPLETE")]
        strong = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) == len(names)]
        lines = np.array([*strong, *(segment[:, 1] for segment in axes.collections[0].get_segments())])
        assert len(lines) == len(done)
        assert np.allclose(lines[:, 1:].min(axis=0), 0)
        assert np.allclose(lines[:, 1:].max(axis=0), 1)
        # 0 lies below the others on a logarithmic axis.
        assert (lines[:, 1] == 0).sum() == (done["config_gan_lambda_e"] == 0).sum()
        assert ((lines[:, 1] > 0) & (lines[:, 1] < 0.11)).sum() == 0

    def test_the_best_on_each_proxy_are_strong(self, trials):
        (axes,) = figures.parallel(trials).axes
        done = trials[(trials["phase"] == "search") & (trials["state"] == "COMPLETE")]
        strong = [line for line in axes.get_lines() if line.get_linewidth() > 1]
        assert len(strong) == sum(math.ceil(len(part) / 10) for _, part in done.groupby("config_proxy"))
        assert len({line.get_color() for line in strong}) == len({line.get_linestyle() for line in strong}) == 4

    def test_bars_are_the_importances(self):
        table = pd.DataFrame({"cell": ["proxy=a", "proxy=a"], "parameter": ["x", "y"], "importance": [0.25, 0.75]})
        (axes,) = figures.importances(table).axes
        assert sorted(bar.get_width() for bar in axes.patches) == [0.25, 0.75]
        assert texts(axes) == ["0.25", "0.75"]


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


class TestCommand:
    """`degan-search figures`."""

    def call(self, *arguments):
        return CliRunner().invoke(app, ["figures", *map(str, arguments)])

    def test_writes_each_figure_or_says_why_not(self, run, tmp_path, trials):
        measures = pd.DataFrame({"proxy": trials["config_proxy"].unique(), "near": range(4)})
        measures.to_csv(tmp_path / "measures.csv")
        result = self.call(run, "--out", tmp_path / "out", "--relatedness", tmp_path / "measures.csv")
        assert result.exit_code == 0, (result.output, result.exception)
        drawn = {file.stem for file in (tmp_path / "out").glob("*.png")}
        assert drawn == set(figures.FIGURES) - {"samples"}  # a made run has no networks
        lines = " ".join(result.stdout.split())
        assert "samples is not drawn: no trial of" in lines

    def test_samples_of_the_best_trial_on_each_proxy(self, finished_run, tmp_path):
        result = self.call(finished_run, "--only", "samples", "--out", tmp_path)
        assert result.exit_code == 0, (result.output, result.exception)
        assert [file.name for file in tmp_path.iterdir()] == ["samples_digits.png"]

    def test_what_it_refuses(self, run, tmp_path):
        for arguments, says in (
            ([run, "--only", "weight"], "did you mean weights"),
            ([run, "--only", "relatedness", "--out", tmp_path], "no figure could be drawn"),
            ([tmp_path / "none"], "none"),
        ):
            result = self.call(*arguments)
            assert result.exit_code == 2
            assert says in " ".join(result.output.split())
        (tmp_path / "empty.csv").write_text("")
        result = self.call(run, "--only", "relatedness", "--relatedness", tmp_path / "empty.csv", "--out", tmp_path)
        assert "is no table" in " ".join(result.output.split())


def test_a_made_run_has_as_many_trials_as_asked_for_and_says_that_it_is_made(run, trials, curves):
    assert len(trials) == 120
    assert set(trials["host"]) == {"made"}
    assert '"made": true' in (run / "run.json").read_text()
    assert set(trials["state"]) == {"COMPLETE", "PRUNED", "FAIL"}
    assert trials.loc[trials["state"] != "COMPLETE", "reason"].str.startswith("made: ").all()
    assert set(curves["trial_id"]) <= set(trials["trial_id"])
    assert len(list((run / "trials").glob("*/samples.png"))) == 12
    assert len(ledger.load(made_ledger(run.parent / "small", 5))) == 5
