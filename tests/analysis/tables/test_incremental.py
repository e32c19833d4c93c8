"""Table 3 from rows that no trial measured: class orders and seeds together, ours beside the paper's."""

import io
import math

import pandas as pd
import pytest
from made_ledger import Sweep, class_orders
from PIL import Image

from analysis import finals, regret
from analysis.statistics import interval
from analysis.tables.cells import HELD_OUT, MISSING, TEST
from analysis.tables.incremental import COLUMNS
from analysis.tables.styles import STYLES, WIDTH
from analysis.tables.table import render, save, table
from degan_search import ledger
from degan_search.selection import choose
from degan_search.system.errors import UserError

PAPERS = ["finetuning", "fixed_representation", "lwf_mc", "proxy", "degan"]


class Orders(Sweep):
    """A run of the task `incremental` that is filled by hand."""

    def learned(self, method, order=1993, size=20, score=0.5, oracle=None, test=None, settings=(), **options):
        names = {"first": f"cifar100/order_{order}_first_{size}", "next": f"cifar100/order_{order}_next_{size}"}
        task = {"task": "incremental", "teacher.dataset": names["first"], "teacher.network": "resnet32"}
        self.add(names["next"], method, score, oracle, test, settings=task | dict(settings), **options)

    def row(self, method):
        return self.tidy().set_index("method").loc[method]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)
    return Orders(tmp_path / "x")


def test_finals_are_pooled_over_class_orders_and_seeds(run):
    accuracies = {1993: (0.60, 0.62), 1994: (0.70, 0.72)}
    for order, own in accuracies.items():
        for seed, accuracy in enumerate(own):
            scores = {"old_accuracy": accuracy + 0.1, "new_accuracy": accuracy - 0.1}
            run.learned("dcgan", order, test=accuracy, settings={"seed": seed}, scores=scores)
    row = run.row("dcgan")
    assert (row.orders, row.n, row.measured_on) == (2, 4, TEST)
    assert (row.ours, row.old, row.new, row.teacher) == pytest.approx((66, 76, 56, 81))
    expected = interval([60, 62, 70, 72])
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    assert row["std"] == pytest.approx(pd.Series([60, 62, 70, 72]).std())


def test_each_class_order_has_its_own_choice(run):
    for order, better in ((1993, 1), (1994, 2)):
        for weight in (1, 2):
            score, accuracy = (0.8, 0.6 + weight / 100) if weight == better else (0.7, 0.9)
            for seed in (1, 2):
                settings = {"seed": seed, "gan.lambda_e": weight, "gan.lambda_d": 5}
                run.learned("degan", order, score=score, test=accuracy, settings=settings, chosen_by="score")
    row = run.row("degan")
    assert (row.ours, row.n, row.orders, row.trials) == (pytest.approx(61.5), 4, 2, 8)
    assert pd.isna(row.lambda_e) and row.lambda_d == 5
    assert row.lambdas == "1 to 2, 5"
    assert row.chosen_by == "data-free: balanced_soft_agreement"


def test_a_search_alone_shows_the_best_trial_of_each_class_order(run):
    for order, accuracy in ((1993, 0.5), (1994, 0.7)):
        run.learned("degan", order, score=0.8, oracle=accuracy, settings={"gan.lambda_e": 3})
        run.learned("degan", order, score=0.7, oracle=0.9)
    run.learned("degan", 1995, state="FAIL")
    row = run.row("degan")
    assert (row.ours, row.measured_on, row.orders, row.n) == (pytest.approx(60), HELD_OUT, 2, 2)
    assert (row.lambda_e, row.lambda_d, row.lambdas, row.failed) == (3, 5, "3, 5", 1)
    assert row.teacher == pytest.approx(80)


def test_held_out_images_are_not_averaged_with_test_images(run):
    run.learned("degan", 1993, test=0.5)
    run.learned("degan", 1994, oracle=0.9)
    row = run.row("degan")
    assert (row.ours, row.orders, row.measured_on, row.trials) == (pytest.approx(50), 1, TEST, 2)


def test_an_accuracy_that_is_not_yet_measured_is_missing(run):
    run.learned("degan", score=0.5)
    row = run.row("degan")
    assert (row.measured_on, row.n, row.orders) == (MISSING, 0, 0)
    assert pd.isna([row.ours, row.old, row.new]).all()


def test_rows_are_the_papers_and_the_runs_in_order(run):
    for method in ("extended", "classifier_only", "degan", "dcgan"):
        run.learned(method, test=0.7)
    tidy = run.tidy()
    assert list(tidy.columns) == COLUMNS
    assert list(tidy.method) == [*PAPERS[:4], "classifier_only", "dcgan", "degan", "extended"]
    rows = tidy.set_index("method")
    assert list(rows.paper.dropna()) == [41.6, 46.8, 62.58, 65.03, 68.65]
    assert rows.difference.dropna().to_dict() == {"degan": pytest.approx(70 - 68.65)}
    assert list(rows.index[rows.measured_on == MISSING]) == PAPERS[:4]
    assert (rows.lambda_d[["classifier_only", "degan", "extended"]] == 5).all() and pd.isna(rows.lambda_d["dcgan"])
    for style in STYLES:
        assert render(tidy, style).count("missing") == 4
        assert ("best of our extensions" in render(tidy, style)) == (style != "csv")


def test_an_initial_network_of_its_own_is_shown_beside_the_others(run):
    run.learned("lwf_mc", test=0.6, settings={"teacher.loss": "binary_cross_entropy"}, teacher=0.7)
    run.learned("degan", test=0.6)
    assert run.row("lwf_mc").teacher == pytest.approx(71)
    assert "before on the old classes: 71.0 and 81.0 on the test images." in " ".join(render(run.tidy()).split())


def test_the_extensions_of_several_class_orders(run):
    for order, weight in ((1993, 0.5), (1994, 2.0)):
        settings = {"gan.lambda_s": weight, "distill.profile": "sgd_augmented"}  # the latter plays no part here
        run.learned("extended", order, test=0.7, settings=settings)
    assert run.row("extended").extensions == "lambda_s 0.5 to 2"


@pytest.mark.parametrize(
    ("size", "settings"), [(10, {}), (20, {"count": 500}), (20, {"teacher.count": 500})], ids=["10", "new", "old"]
)
def test_of_another_size_the_papers_figures_are_shown_without_a_difference(run, size, settings):
    run.learned("degan", size=size, test=0.7, settings=settings)
    row = run.row("degan")
    assert row.paper == 68.65 and pd.isna(row.difference)
    text = render(run.tidy())
    assert "of CIFAR-100: sizes differ, no difference is shown.\n" in text and "diff." not in text


def test_of_the_papers_size_nothing_is_said_of_sizes(run):
    run.learned("degan", 1993, test=0.7)
    run.learned("degan", 1999, test=0.7)
    assert "sizes differ" not in render(run.tidy())
    row = run.row("degan")
    assert (row.old_classes, row.new_classes) == ("cifar100/order_*_first_20", "cifar100/order_*_next_20")


def test_classes_of_other_sets_are_class_orders_as_well(run):
    for old, new in (("glyphs/[A-E]", "glyphs/[F-J]"), ("glyphs/[F-J]", "glyphs/[A-E]")):
        run.add(new, "degan", 0.5, test=0.6, settings={"task": "incremental", "teacher.dataset": old})
    row = run.row("degan")
    assert (row.orders, row.old_classes) == (2, "glyphs/[A-E] or glyphs/[F-J]")


def test_settings_are_not_mixed(run):
    run.learned("degan", size=20, test=0.7)
    run.learned("dcgan", size=10, test=0.7)
    with pytest.raises(UserError, match="of one size, but these are cifar100/order_\\*_first_20 with"):
        run.tidy()


def test_networks_are_not_mixed(run):
    run.learned("degan", test=0.7)
    run.learned("dcgan", test=0.7, settings={"teacher.network": "lenet"})
    with pytest.raises(UserError, match="config_teacher_network is resnet32, lenet"):
        run.tidy()


def test_a_network_of_another_width_is_named(run):
    run.learned("degan", test=0.7, settings={"teacher.width": 6})
    assert "; network: resnet32 of width 6, before" in " ".join(render(run.tidy()).split())


def test_tasks_are_not_mixed_and_have_their_own_tables(run):
    run.learned("degan", test=0.7)
    with pytest.raises(UserError, match=r"table2 is of the task 'distillation', but .* 'incremental': table3 fits"):
        run.tidy(paper="table2")
    pd.testing.assert_frame_equal(run.tidy(paper="table3"), run.tidy())
    run.add("svhn", "degan", 0.5, test=0.5)
    with pytest.raises(UserError, match="of one task, but these trials are of incremental and distillation"):
        run.tidy()


def test_text(run):
    for order, accuracy in ((1993, 0.70), (1994, 0.72)):
        scores = {"old_accuracy": 0.75, "new_accuracy": 0.67}
        run.learned("degan", order, test=accuracy, seconds=3600.0, scores=scores)
    run.learned("proxy", oracle=0.6, seconds=72.0, scores={"old_accuracy": 0.5, "new_accuracy": 0.7})
    assert render(run.tidy()) == (
        "Accuracy in % over old and new classes, mean ± sample standard deviation (runs: class orders x seeds); old "
        "classes:\ncifar100/order_*_first_20; new classes: cifar100/order_*_next_20; network: resnet32, before on the "
        "old classes: 80.0 on\nthe held-out training images; 81.0 on the test images.\n"
        "\n"
        "method                ours            95% interval   old   new  paper  diff.  lambdas  orders  trials  hours\n"
        "────────────────────────────────────────────────────────────────────────────────────────────────────────────\n"
        "finetuning            missing                                   41.60\n"
        "fixed_representation  missing                                   46.80\n"
        "lwf_mc                missing                                   62.58\n"
        "proxy                 60.0* (1)                     50.0  70.0  65.03   -5.0                1       1   0.02\n"
        "degan                 71.0 ± 1.4 (2)  [70.0, 72.0]  75.0  67.0  68.65   +2.3  0, 5          2       2   2.00\n"
        "\n"
        "Measured on the held-out training images of old and new classes or the test images of old and new classes.\n"
        "* Measured on the held-out training images of old and new classes: the search's best trial by its score, no "
        "final\ntrials.\n"
        "The interval is a bootstrap over runs: with few runs it is too narrow.\n"
        "How the lambdas (lambda_e, lambda_d) were chosen: data-free: balanced_soft_agreement.\n"
        "3 trials, of which 0 pruned and 0 failed; 2.02 hours of trials together: 2.02 core-hours.\n"
    )


def test_wide_ranges_fit_a_terminal(run):
    for order, weight in ((1993, 0.0123), (1994, 9.87)):
        for seed in (1, 2):
            settings = {"gan.lambda_e": weight, "gan.lambda_d": 5 * weight, "seed": seed}
            run.learned("fixed_representation", order, test=0.7, settings=settings)
            more = {"scores": {}, "referee_best_test_accuracy": 0.95}
            run.learned("extended", order, test=0.7 + seed / 10, settings=settings, seconds=1e6, **more)
    assert run.row("extended").gap == pytest.approx(10)
    text = render(run.tidy())
    assert "95.0  10.0" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "0.0123 to 9.87, 0.0615 to 49.3" in run.row("extended").lambdas


def test_csv_has_every_column_and_the_files_hold_what_is_rendered(tmp_path):
    tidy = table(ledger.load(class_orders(tmp_path / "x")))
    read = pd.read_csv(io.StringIO(render(tidy, "csv")))
    pd.testing.assert_frame_equal(read, tidy.fillna(math.nan), check_dtype=False)  # a blank may be None
    save(tidy, tmp_path)
    for ending, style in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
        assert (tmp_path / f"table.{ending}").read_text() == render(tidy, style)
    with Image.open(tmp_path / "table.png") as picture:
        assert picture.width > 400
    latex = render(tidy, "latex")
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    columns = latex.split(r"\begin{tabular}{")[1].split("}")[0]
    assert all(line.count("&") == len(columns) - 1 for line in body.splitlines() if line.strip())
    assert r"order\_*\_first\_20" in latex and r"order\_\*\_first" not in render(tidy, "markdown")


def test_nothing_to_show(run):
    tidy = run.tidy(paper="table3")
    assert list(tidy.columns) == COLUMNS
    assert render(tidy) == "No trials yet.\n"
    assert render(tidy, "csv") == ",".join(COLUMNS) + "\n"


def test_choices_and_their_regret_are_made_within_a_class_order(run):
    frame = ledger.load(class_orders(run.folder.parent / "orders"))
    rows = choose.best(frame, choose.chosen_by(frame))
    assert sorted(rows["config_proxy"]) == ["cifar100/order_1993_next_20", "cifar100/order_1994_next_20"]
    assert (rows["config_gan_lambda_e"] == 2).all()
    regrets = regret.regret(frame)
    assert set(regrets["task"]) == {"incremental"} and regrets["proxy"].nunique() == 2
    assert (regrets.loc[regrets["criterion"] == "random", "regret"] > 5).all()


def test_pairs_are_compared_within_a_class_order_and_a_task(run):
    frame = ledger.load(class_orders(run.folder.parent / "orders"))
    compared = finals.compare(frame)
    assert compared.groupby("proxy")["chosen"].sum().to_list() == [1, 1]
    assert len(compared) == 2 * 6 and (compared["pairs"].dropna() == 2).all()
