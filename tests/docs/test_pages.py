"""What single pages promise: a short README, and tables that name everything the code has."""

import re

import pytest
from documents import ROOT, code

from degan_search.evaluation.relatedness import MEASURES
from degan_search.ledger.columns import METRICS, score_schema, trial_schema
from degan_search.search.run import folder, jobs
from degan_search.search.space.file import shipped
from degan_search.settings.criteria import CRITERIA, DATA_FREE
from degan_search.settings.goals import GOALS
from degan_search.settings.methods import METHODS
from degan_search.storage import layout


def names_in(page):
    return set(code((ROOT / page).read_text()))


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_metrics_page_names_every_column_of_the_ledger():
    columns = {name for schema in (trial_schema(), score_schema()) for name in schema.names}
    settings = {name for name in columns if name.startswith("config_")} - {"config_hash", "config_json"}
    reports = {field.name for field in trial_schema().field("reports").type.value_type}
    assert (columns - settings) | reports <= names_in("docs/metrics.md")


def test_metrics_page_says_which_way_is_better():
    for name, direction in METRICS.items():
        assert cells(name)[1] == {"max": "higher", "min": "lower"}[direction], name


def test_metrics_page_says_what_a_criterion_needs():
    assert {name: cells(name)[2] for name in DATA_FREE} == {name: CRITERIA[name].needs for name in DATA_FREE}


def cells(name):
    """Return the cells of the line of a table of docs/metrics.md that begins with this name."""
    lines = (ROOT / "docs/metrics.md").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"| `{name}` |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("docs/methods.md", METHODS),
        ("docs/metrics.md", MEASURES),
        ("docs/methods.md", shipped()),
        ("docs/several-goals.md", GOALS),
    ],
    ids=["methods", "relatedness", "spaces", "goals"],
)
def test_every_entry_of_a_table_has_its_line(page, table):
    assert set(table) <= names_in(page)


def test_each_detail_of_the_paper_and_each_departure_has_its_line():
    page = (ROOT / "docs/paper.md").read_text()
    details = re.findall(r"^\| \d+ \|.*$", page, re.MULTILINE)
    departures = page.split("## Departures")[1].split("\n## ")[0]
    numbered = re.findall(r"^\d+\. .*?(?=^\d+\. |\Z)", departures, re.MULTILINE | re.DOTALL)
    assert len(details) > 40
    assert [int(part.split(".")[0]) for part in numbered] == list(range(1, len(numbered) + 1)) != []
    missed = re.findall(r"^\| .*$", page.split("## Easily missed")[1].split("\n## ")[0], re.MULTILINE)[1:]
    assert len(missed) == 10
    assert not [row for row in missed if not re.search(r"\]\(\.\./tests/[\w/.]+#L\d+ ", row)]
    assert not [part for part in (*details, *numbered) if not re.search(r"\]\(\.\./[\w/.]+#L\d+ ", part)]


def test_each_path_through_the_code_enters_a_file_once():
    page = (ROOT / "CONTRIBUTING.md").read_text().split("## Three paths")[1].split("\n## ")[0]
    paths = [re.findall(r"^\d+\. (.*?): ", part, re.MULTILINE) for part in page.split("\n**A ")[1:]]
    files = [[file for step in path for file in code(step)] for path in paths]
    assert [len(path) > 15 for path in files] == [True] * 3
    assert [sorted(set(path)) for path in files] == [sorted(path) for path in files]


def test_faults_page_names_the_files_of_a_run():
    named = names_in("docs/faults.md")
    assert {folder.SPACE, folder.ABOUT, f"{jobs.JOBS}/<trial>.json", "trials/<trial>/"} <= named
    assert {f"{layout.LEDGER}/<trial>-<attempt>.parquet", f"{layout.SCORES}/<trial>.parquet"} <= named


def test_every_result_is_in_the_index():
    index = (ROOT / "docs/results/README.md").read_text()
    pages = [page.name for page in (ROOT / "docs/results").glob("*.md") if page.name != "README.md"]
    assert pages
    assert all(f"({page})" in index for page in pages)


@pytest.mark.parametrize("page", sorted((ROOT / "docs/results").glob("20*.md")), ids=lambda page: page.stem)
def test_a_result_says_what_was_asked_run_and_found(page):
    parts = ("**Question.**", f"**Measured** {page.name[:10]}.", "**Machine:**", "```sh", "|---", "## What it shows")
    text = page.read_text()
    assert not [part for part in parts if part not in text]
