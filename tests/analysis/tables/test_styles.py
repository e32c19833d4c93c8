"""How a table reads as text, Markdown, CSV and LaTeX."""

import io
import math

import pandas as pd

from analysis.tables.styles import WIDTH
from analysis.tables.table import render
from tests.analysis.tables.made_rows import RELATED, mixed


def test_text(sweep):
    assert render(mixed(sweep)) == (
        "Student accuracy in %, mean ± sample standard deviation (seeds); true data: glyphs; teacher: 80.0 on the "
        "held-out 20% of\nthe true training images; 81.0 on the test images.\n"
        "\n"
        "proxy data   method  ours            95% interval  lambdas   trials  hours\n"
        "──────────────────────────────────────────────────────────────────────────\n"
        "folder:a|b   proxy   missing\n"
        "             degan   missing                                      1   0.00\n"
        "under_score  proxy   65.5* (1)                                    1   0.02\n"
        "             degan   71.0 ± 1.0 (3)  [70.0, 72.0]  0.125, 5       3   3.00\n"
        "\n"
        "Measured on the held-out 20% of the true training images or the test images.\n"
        "* Measured on the held-out 20% of the true training images: the search's best trial by its score, "
        "no final trials.\n"
        "The interval is a bootstrap over seeds: with few seeds it is too narrow.\n"
        "How the lambdas (lambda_e, lambda_d) were chosen: data-free: balanced_soft_agreement.\n"
        "5 trials, of which 0 pruned and 1 failed; 3.02 hours of trials together: 3.02 core-hours.\n"
    )


def test_what_cells_held_and_cost_stands_beside_them(sweep):
    glyphs = {"teacher.dataset": "glyphs"}
    held = {"core_seconds": 2 * 3600.0, "gpu_seconds": 1800.0}
    (sweep.folder / "run.json").write_text('{"options": {"price": "cpu=0.5eur/h,gpu=3eur/h"}}')
    sweep.add("photos", "degan", score=0.5, test=0.7, settings=glyphs, seconds=3600.0, **held)
    sweep.add("photos", "proxy", score=0.5, test=0.6, settings=glyphs, seconds=3600.0, threads=1)
    shown = render(sweep.tidy())
    assert "trials  hours  core-h  GPU-h      cost\n" in shown
    assert "1   1.00    2.00   0.50  2.50 eur\n" in shown
    assert "1   1.00    1.00         0.50 eur\n" in shown
    assert shown.endswith("2.00 hours of trials together: 3.00 core-hours, 0.50 GPU-hours, 3.00 eur.\n")


def test_the_papers_figure_and_ours_stand_side_by_side(sweep):
    sweep.add(RELATED, "degan", score=0.5, test=0.5)
    (line,) = [line for line in render(sweep.tidy()).splitlines() if "50.0" in line]
    assert line.split() == ["degan", "50.0", "(1)", "80.55", "-30.5", "0,", "5", "1", "0.00"]


def test_text_lines_are_no_longer_than_a_terminal(sweep):
    for seed in range(10):
        long = "cifar100/[" + ",".join(f"class_{number}" for number in range(30)) + "]"
        sweep.add(long, "proxy_matched", score=0.5, test=1 - 0.05 * seed, settings={"seed": seed})
    text = render(sweep.tidy())
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "class_29" in "".join(text.split())


def test_markdown_escapes_what_it_would_read_as_its_own(sweep):
    markdown = render(mixed(sweep), "markdown")
    assert r"| 65.5\* (1)" in markdown and "\n\\* Measured on the held-out" in markdown
    assert r"folder:a\|b" in markdown


def test_csv_has_every_column_unrounded(sweep):
    tidy = mixed(sweep)
    read = pd.read_csv(io.StringIO(render(tidy, "csv")))
    pd.testing.assert_frame_equal(read, tidy.fillna(math.nan), check_dtype=False)  # a blank may be None


def test_latex_compiles_by_its_rules(sweep):
    """Each row has as many cells, and no sign is left that LaTeX would read as its own."""
    settings = {"teacher.dataset": "fashion_mnist", "gan.lambda_e": 0.125}
    for seed in (1, 2):
        sweep.add("folder:50%_{a}", "degan", score=0.5, test=0.5, settings=settings | {"seed": seed})
        sweep.add("cifar10", "degan", score=0.5, test=0.5, settings=settings | {"seed": seed})
    latex = render(sweep.tidy(), "latex")
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.strip()]
    columns = latex.split(r"\begin{tabular}{")[1].split("}")[0]
    assert len(rows) == 8 and all(row.count("&") == len(columns) - 1 and row.endswith(r"\\") for row in rows)
    assert r"folder:50\%\_\{a\}" in latex and r"fashion\_mnist" in latex and r"lambda\_e" in latex
    assert r"50.0 $\pm$ 0.0 (2)" in latex and "$-$33.8" in latex and "±" not in latex
    commands = (r"\_", r"\%", r"\{", r"\}")
    for command in commands:
        latex = latex.replace(command, "")
    assert "_" not in latex and "%" not in latex and "#" not in latex
    assert latex.count("{") == latex.count("}") and latex.count("$") % 2 == 0
    assert [latex.count(rf"\begin{{{name}}}") for name in ("table", "tabular")] == [1, 1]
    assert latex.rstrip().endswith(r"\end{table}")


def test_without_held_out_cells_there_is_no_star(sweep):
    sweep.add(RELATED, "degan", score=0.5, test=0.7)
    text = render(sweep.tidy())
    assert "*" not in text and "Measured on the test images." in text
