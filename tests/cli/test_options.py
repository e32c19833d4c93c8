"""The run options: each declared once, and the same by default as in the search's own `Options`."""

import dataclasses
import inspect
from pathlib import Path

import pytest
from typer.testing import CliRunner

from degan_search.api.options import RUN_OPTIONS
from degan_search.cli import finals, sweep
from degan_search.cli.main import app
from degan_search.cli.options import Given
from degan_search.search.run.options import Options
from degan_search.system.errors import UserError

TYPED = {
    "cpus_per_trial": (2, 2),
    "gpus_per_trial": (0.25, 0.25),
    "max_concurrent": (3, 3),
    "fuse": (4, 4),
    "address": ("head:6379", "head:6379"),
    "track": ("mlflow", "mlflow"),
    "retries": (5, 5),
    "time_limit": ("2h", 7200.0),
    "checkpoint_every": ("1.5", 1.5),
    "keep": ("7", 7),
    "budget": ("30min", 1800.0),
    "price": ("cpu=1eur/h", "cpu=1eur/h"),
}
"""What is typed, and the field of `Options` that it makes."""
RUN = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})


def flags(*given):
    return [text for name in given for text in ("--" + name.replace("_", "-"), str(TYPED[name][0]))]


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Where the commands would run a sweep, what they ask for is kept instead."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)
    calls = []
    monkeypatch.setattr("degan_search.search.sweep.sweep", lambda *given: calls.append(given))
    monkeypatch.setattr("degan_search.search.resume.resume", lambda *given: calls.append(given))
    monkeypatch.setattr("degan_search.search.finals.finals.finals", lambda *given: calls.append(given))
    return calls


def test_each_is_a_field_of_the_searchs_options_with_its_default():
    own = {field.name: field.default for field in dataclasses.fields(Options)}
    for option in RUN_OPTIONS:
        assert Given({option.name: option.default}).read(option.name) == own[option.name]
    assert {option.name for option in RUN_OPTIONS} == set(TYPED)


def test_a_sweep_takes_all_of_them(asked):
    result = RUN.invoke(app, ["sweep", "smoke", "--data-dir", "images", *flags(*TYPED)])
    assert result.exit_code == 0, result.output
    ((_, options, *_),) = asked
    assert options == Options(
        Path("runs"), "smoke", Path.cwd() / "images", **{name: value for name, (_, value) in TYPED.items()}
    )


def test_a_sweep_without_any_has_the_defaults(asked):
    assert RUN.invoke(app, ["sweep", "smoke"]).exit_code == 0
    assert asked[0][1] == Options(name="smoke")


@pytest.mark.parametrize("name", TYPED)
def test_resume_changes_what_was_given_alone(asked, name):
    assert RUN.invoke(app, ["resume", "runs/x", *flags(name)]).exit_code == 0
    assert asked[0][2] == {name: TYPED[name][1]}


def test_resume_can_take_back_an_address_and_a_limit_of_what_is_kept(asked):
    assert RUN.invoke(app, ["resume", "runs/x", "--address", "", "--keep", "all"]).exit_code == 0
    assert asked[0][2] == {"address": None, "keep": None}


def test_finals_take_all_but_those_of_a_whole_sweep(asked, monkeypatch):
    monkeypatch.setattr("analysis.finals.compare", lambda frame: (_ for _ in ()).throw(UserError("no table")))
    monkeypatch.setattr("degan_search.ledger.load", lambda run: None)
    taken = [name for name in TYPED if name not in ("track", "keep", "budget", "price")]
    RUN.invoke(app, ["finals", "runs/x", "--data-dir", "images", *flags(*taken)])
    ((_, options, _),) = asked
    run = Path("runs/x").resolve()
    wanted = {name: TYPED[name][1] for name in taken}
    assert options == Options(run.parent, str(run), Path("images"), **wanted)


@pytest.mark.parametrize("command", [sweep.sweep, sweep.resume, finals.finals])
def test_a_commands_own_parameters_stay(command):
    parameters = inspect.signature(command).parameters
    assert "given" not in parameters
    assert {"data_dir", "cpus_per_trial"} <= set(parameters)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("time_limit", "soon", "--time-limit 'soon' is no time; give such as 90s, 30min or 2h"),
        ("checkpoint_every", "-1s", "--checkpoint-every '-1s' is no time"),
        ("budget", "0s", "--budget '0s' is no time at all"),
        ("keep", "some", "--keep 'some' must be a whole number, or all"),
    ],
)
def test_what_makes_no_sense_is_named(name, text, says):
    with pytest.raises(UserError) as refused:
        Given({name: text}).settings()
    assert says in str(refused.value)
