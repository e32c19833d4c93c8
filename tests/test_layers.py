"""Who may import whom: the contracts in pyproject.toml, and what the command line leaves unloaded."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent


def test_contracts_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_every_module_has_a_layer():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    listed = {name.strip() for layer in contract["layers"] for name in layer.split(":")}
    modules = {path.stem for path in (ROOT / "degan_search").iterdir() if path.suffix == ".py" or path.is_dir()}
    modules -= {"__init__", "__pycache__"}
    assert listed == {f"degan_search.{module}" for module in modules} | {"analysis"}


@pytest.mark.parametrize(
    ("module", "unloaded"),
    [
        ("degan_search.cli.main", ["torch", "ray", "optuna", "pandas", "numpy"]),
        (
            "degan_search.settings.lengths, degan_search.trial.run_here, degan_search.evaluation.accuracy",
            ["ray", "optuna"],
        ),
        ("degan_search.search.workers.worker", ["analysis", "plotly", "matplotlib", "jinja2"]),
        ("degan_search.search.sweep, degan_search.search.finals", ["analysis", "plotly", "matplotlib", "jinja2"]),
        ("analysis.tables", ["torch", "ray", "optuna"]),
    ],
)
def test_what_an_import_leaves_unloaded(module, unloaded):
    program = f"import sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert module.split(",")[0] in loaded
    assert not set(unloaded) & set(loaded)
