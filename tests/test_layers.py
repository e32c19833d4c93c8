"""The layout of the repository: who may import whom, what an import leaves unloaded, and how long files may be."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent
FOLDERS = ("degan_search", "search_spaces", "analysis", "benchmarks", "tests")
PLOTTING = ["analysis", "plotly", "matplotlib", "jinja2"]
UNUSED = [*PLOTTING, "torchvision", "torch._dynamo", "scipy", "sklearn"]
"""Of a sweep's processes, not all of which need them, and each takes half a second or more."""


def test_contracts_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_every_folder_stands_in_exactly_one_layer():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    assert contract["type"] == "layers"
    listed = [name.strip() for layer in contract["layers"] for name in layer.split(":")]
    folders = {path.parent.name for path in (ROOT / "degan_search").glob("*/__init__.py")}
    assert sorted(listed) == sorted([*(f"degan_search.{folder}" for folder in folders), "analysis"])


def test_the_package_has_no_module_outside_a_folder():
    assert [path.name for path in (ROOT / "degan_search").glob("*.py")] == ["__init__.py"]


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for package in ("degan_search", "analysis") for path in (ROOT / package).rglob("*.py")}
    assert not [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()]


def python_files():
    return [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]


def test_no_file_is_long():
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in python_files()}
    assert {folder.partition("/")[0] for folder in lengths} == set(FOLDERS)
    assert not {name: lines for name, lines in lengths.items() if lines > 300}


def test_no_class_is_long():
    found = {}
    for file in python_files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                found[f"{file.relative_to(ROOT)}: {node.name}"] = node.end_lineno - node.lineno + 1
    assert "degan_search/trial/trial.py: Trial" in found
    assert not {name: lines for name, lines in found.items() if lines > 150}


def test_a_worker_loads_the_compiler_before_a_trial_would():
    text = "import sys\nfrom degan_search.search.workers import worker\nname = 'torch._dynamo'\n"
    text += "before = name in sys.modules\nworker.load_compiler()\nprint(before, name in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("module", "unloaded"),
    [
        ("degan_search", ["torch", "ray", "optuna", "pandas", "numpy", "analysis", "degan_search.api"]),
        ("degan_search.cli.main", ["torch", "ray", "optuna", "pandas", "numpy"]),
        (
            "degan_search.settings.lengths, degan_search.trial.run_here, degan_search.evaluation.accuracy",
            ["ray", "optuna"],
        ),
        ("degan_search.search.workers.worker", UNUSED),
        ("degan_search.search.sweep, degan_search.search.resume, degan_search.search.finals.finals", UNUSED),
        ("analysis.tables", ["torch", "ray", "optuna"]),
    ],
)
def test_what_an_import_leaves_unloaded(module, unloaded):
    program = f"import sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert module.split(",")[0] in loaded
    assert not set(unloaded) & set(loaded)
