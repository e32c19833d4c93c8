"""A command loads what it needs: the large packages take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_ledger import made_ledger

ROOT = Path(__file__).parents[2]
PROGRAM = """
import atexit, sys
atexit.register(lambda: print("LOADED", *sys.modules))
from degan_search.cli.main import main
main()
"""
SMALL = """
trial: {teacher: {dataset: digits, network: lenet}, proxy: digits, gan: {width: 2, batch_of: used, batch_size: 8}}
parameters: {gan.lambda_e: {range: [0, 1]}}
"""


@pytest.mark.parametrize(
    ("command", "unloaded"),
    [
        ("--help", {"torch", "ray", "optuna", "pandas", "numpy", "pyarrow", "matplotlib", "scipy"}),
        ("table", {"torch", "ray", "optuna", "scipy", "sklearn", "plotly"}),
        ("sweep", {"ray", "pandas", "torch._dynamo", "sympy", "scipy.stats", "sklearn", "matplotlib"}),
    ],
)
def test_what_a_command_leaves_unloaded(command, unloaded, tmp_path):
    arguments = [command]
    if command == "table":
        arguments.append(str(made_ledger(tmp_path / "made", 12)))
    elif command == "sweep":
        (tmp_path / "small.yaml").write_text(SMALL)
        arguments += [str(tmp_path / "small.yaml"), "--dry-run"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("LOADED ")[2].split())
    assert "degan_search.cli.main" in loaded
    assert not unloaded & loaded
