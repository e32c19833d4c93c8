"""Every command that a document names exists, with its options, and so does every path and every imported name."""

import ast
import importlib
import re
import shlex
from typing import get_args

import pytest
import typer.main
import yaml
from documents import ROOT, blocks, code, documents, name, program, shell_lines

from degan_search.cli.main import app
from degan_search.search.space import file as space_file
from degan_search.search.space.schema import Space
from degan_search.settings.resolve import parse, trial_config
from degan_search.settings.trial import TrialConfig

COMMANDS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FOLDERS = ("degan_search/", "analysis/", "search_spaces/", "tests/", "benchmarks/", "docs/", "deploy/", ".ci/")
ROOT_FILES = re.compile(r"[A-Z]{3,}\.md|pyproject\.toml|constraints\.txt|Makefile")
OURS = {"degan-search", "make", "python", "pytest"}
FILES = r"base64|csv|html|json|md|npz|onnx|parquet|pt2|py|safetensors|sbatch|toml|yaml"
LIBRARIES = ("numpy", "torch")
MODULES = ("", "degan_search.", "analysis.", "analysis.tables.")
EVERY = pytest.mark.parametrize("document", documents(), ids=name)


def options_of(words):
    """Return the long options among a command's words."""
    return [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]


def known_options(command):
    """Return the command's options, those that turn something off too."""
    return {option for one in COMMANDS[command].params for option in (*one.opts, *one.secondary_opts)}


def check_ours(words, whole):
    """Refuse a `degan-search` command that does not exist; one given whole must also parse, and find its space."""
    if len(words) == 1:
        return
    command, *rest = words[1:]
    assert command in COMMANDS, f"no command {command!r}"
    if unknown := set(options_of(rest)) - known_options(command):
        raise AssertionError(f"{command} has no {', '.join(unknown)}")
    if whole:
        given = COMMANDS[command].make_context(command, rest).params
        if command == "sweep" and not given["space"].endswith(".yaml"):
            assert given["space"] in space_file.shipped(), f"no space {given['space']!r}"


def check_python(words):
    """Refuse a script or a benchmark that is not there, or a benchmark without an option."""
    rest = words[1:]
    if rest[:1] == ["-m"] and rest[1].startswith("benchmarks."):
        file = ROOT / f"{rest[1].replace('.', '/')}.py"
        assert file.exists(), f"no {rest[1]}"
        source = file.read_text() + (ROOT / "benchmarks/measure.py").read_text()
        for option in options_of(rest):
            variable = option.removeprefix("--").replace("-", "_")
            assert option in source or re.search(rf"\b{variable}\b", source), f"{rest[1]} has no {option}"
    elif rest and rest[0].endswith(".py"):
        assert (ROOT / rest[0]).exists(), f"no {rest[0]}"


def check(words, whole):
    """Refuse a command of this project that does not exist; any other program is left alone."""
    words = program(words)
    if words[:1] == ["degan-search"]:
        check_ours(words, whole)
    elif words[:1] == ["make"]:
        assert set(words[1:]) <= TARGETS | {word for word in words if "=" in word}, f"{' '.join(words)}: no such target"
    elif words[:1] == ["python"]:
        check_python(words)


def faults_of(cases):
    """Return what is wrong with each command."""
    found = []
    for words, whole in cases:
        try:
            check(words, whole)
        except Exception as error:  # whatever the command line's own parser raises
            found.append(f"{shlex.join(words)}: {error or type(error).__name__}")
    return found


def inline_commands(text):
    words = [part.split() for part in code(text)]
    return [one for one in words if one and (one[0] in OURS or one[0].startswith(".venv/bin/") or "=" in one[0])]


@EVERY
def test_commands(document):
    text = document.read_text()
    cases = [(words, True) for words in shell_lines(text)] + [(words, False) for words in inline_commands(text)]
    assert not (wrong := faults_of(cases)), "\n".join(wrong)


@EVERY
def test_options_named_alone(document):
    known = {option for command in COMMANDS for option in known_options(command)}
    benchmarks = "".join(file.read_text() for file in (ROOT / "benchmarks").glob("*.py"))
    named = [option for part in code(document.read_text()) if part.startswith("--") for option in options_of([part])]
    wrong = [f"no command has {one}" for one in named if one.split()[0] not in known and f'"{one}"' not in benchmarks]
    assert not wrong, "\n".join(wrong)


@EVERY
def test_paths(document):
    text = document.read_text()
    words = [word for part in code(text) for word in part.split()]
    words += [word for line in shell_lines(text) for word in line]
    wrong = [word for word in words if not is_there(word.rstrip(",.;:"))]
    assert not wrong, "not there: " + ", ".join(wrong)


def is_there(word):
    """Return whether a word is no path of this project, or one of a file, folder or pattern that is there."""
    path = word.partition("::")[0].rstrip("/")
    if word.startswith(FOLDERS) or ROOT_FILES.fullmatch(word):
        return any(True for _ in ROOT.glob(path))
    if re.fullmatch(r"[\w/]+\.py", word):  # a file named without its folder
        return any(True for _ in ROOT.glob(f"*/**/{path}"))
    return True


@EVERY
def test_python(document):
    for block in blocks(document.read_text(), "python"):
        names = {}
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("degan_search", "analysis"):
                for one in node.names:
                    names[one.asname or one.name] = imported(node.module, one.name)
            elif isinstance(node, ast.Import):
                ours = [one for one in node.names if one.name == "degan_search"]
                names |= {one.asname or one.name: importlib.import_module(one.name) for one in ours}
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                assert hasattr(names[node.value.id], node.attr), f"{node.value.id} has no {node.attr}"


def imported(module, one):
    """Return what `from module import one` gives."""
    found = importlib.import_module(module)
    return getattr(found, one) if hasattr(found, one) else importlib.import_module(f"{module}.{one}")


@EVERY
def test_dotted_names(document):
    dotted = re.compile(r"(?<![\w/.-])[a-z_]\w*(?:\.[a-z_]\w*)+")
    words = [word for part in code(document.read_text()) for word in dotted.findall(part)]
    wrong = [word for word in words if not (is_file(word) or is_setting(word) or is_in_a_module(word))]
    assert not wrong, "no setting, file or function: " + ", ".join(wrong)


def is_file(word):
    return re.search(rf"\.(?:{FILES})$", word) is not None


def is_setting(word):
    """Return whether a word such as `gan.steps` is a setting of a trial, or one of a space."""
    return any(has_setting(model, word.split(".")) for model in (TrialConfig, Space))


def has_setting(model, names):
    field = getattr(model, "model_fields", {}).get(names[0])
    if field is None or len(names) == 1:
        return field is not None
    return any(has_setting(kind, names[1:]) for kind in (field.annotation, *get_args(field.annotation)))


def is_in_a_module(word):
    """Return whether a word such as `ledger.load` is a module or what one defines; other libraries are trusted."""
    if word.split(".")[0] in LIBRARIES:
        return True
    module, _, one = re.sub(r"^ds\.", "degan_search.", word).rpartition(".")
    for parent in MODULES:
        try:
            imported(parent + module, one)
        except ImportError:
            continue
        return True
    return False


@EVERY
def test_settings_in_yaml(document):
    for block in blocks(document.read_text(), "yaml"):
        values = yaml.safe_load(block)
        trial_config(values["trial"])
        if "cells" in values:
            parse(Space, values)


@pytest.mark.parametrize(
    "line",
    [
        "degan-search swep demo",
        "degan-search sweep nothing_shipped",
        "degan-search sweep demo --no-such-option",
        "degan-search table",
        "degan-search generate runs/demo --count many --out x",
        "make tests",
        "python -m benchmarks.no_such",
        "taskset -c 0 python -m benchmarks.degan_step --no-such-option",
        "DATA_DIR=x .venv/bin/degan-search swep demo",
    ],
)
def test_a_wrong_command_is_found(line):
    assert faults_of([(shlex.split(line), True)])


@pytest.mark.parametrize("word", ["distillation.pool_refresh", "gan.lambda", "ledger.lode", "trial.seed.x"])
def test_a_wrong_name_is_found(word):
    assert not (is_file(word) or is_setting(word) or is_in_a_module(word))


@pytest.mark.parametrize("path", ["degan_search/no_such.py", "docs/*.nothing", "no_such_file.py", "NOTHING.md"])
def test_a_wrong_path_is_found(path):
    assert not is_there(path)
