"""A student as one torch.export file: what it computes when loaded again, and what it says of itself."""

import json
import operator
import shutil

import pytest
import torch
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli.main import app
from degan_search.evaluation import networks
from degan_search.ledger.columns import config_columns, config_of
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.products.student_file import ABOUT, export_student
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError
from degan_search.training.measures import predict
from degan_search.trial import outcome as outcomes
from degan_search.trial.outcome import Outcome


def images(count):
    return torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def read(path):
    extra = {ABOUT: ""}
    program = torch.export.load(path, extra_files=extra)
    return program, json.loads(extra[ABOUT])


@pytest.fixture
def student(finished_run):
    """The student of the run's first trial, as our own code reads it."""
    return networks.load_student(finished_run, "search-0000", config_of(ledger.load(finished_run).iloc[0]), 10)


@pytest.mark.parametrize("network", CLASSIFIERS)
def test_gives_the_students_logits_for_any_number_of_bytes(network, finished_run, tiny, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "digits")
    config: TrialConfig = tiny({"student": {"network": network, "width": 2}})
    about = {"trial_id": "final-0000", "attempt": 1, "phase": "final", "state": "COMPLETE", "score": 1.0}
    ledger.write_row(run, about | config_columns(config))
    student = build_classifier(network, 10, 2, 1)
    outcomes.save(Outcome({}, student), run / "trials" / "final-0000")
    export_student(run, "final-0000", tmp_path / "s.pt2")
    program, _ = read(tmp_path / "s.pt2")
    loaded = program.module()
    for count in (1, 7):
        logits = loaded(images(count))
        torch.testing.assert_close(logits, predict(student, images(count)))
        assert not logits.requires_grad
    # Nothing of this package is needed to run it.
    functions = {node.target for node in program.graph.nodes if node.op == "call_function"}
    assert all(isinstance(one, torch._ops.OpOverload) or one is operator.getitem for one in functions)


def test_softmax_gives_probabilities(finished_run, student, tmp_path):
    export_student(finished_run, "search-0000", tmp_path / "s.pt2", softmax=True)
    program, about = read(tmp_path / "s.pt2")
    torch.testing.assert_close(program.module()(images(7)), predict(student, images(7)).softmax(dim=1))
    assert about["output"] == "probabilities [N, 10]"


def test_says_what_it_is(finished_run, tiny, tmp_path):
    row = export_student(finished_run, "search-0000", tmp_path / "s.pt2")
    _, about = read(tmp_path / "s.pt2")
    assert row["trial_id"] == about["trial_id"] == "search-0000"
    assert about["run"] == "digits"
    assert about["classes"] == list("0123456789")
    assert about["input"] == "uint8 [N, 1, 32, 32], pixels 0..255"
    assert about["output"] == "logits [N, 10]"
    assert (about["score"], about["oracle_accuracy"], about["test_accuracy"]) == (0.5, 0.25, None)
    assert TrialConfig.model_validate(about["config"]) == tiny()
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt2"]


@pytest.mark.parametrize(
    ("trial", "name", "says"),
    [
        ("best", "s.pt", r"must end in \.pt2"),
        ("best", "old.pt2", "already there"),
        ("search-0002", "s.pt2", r"search-0002 has no student, as it did not finish \(PRUNED\)"),
        ("search-3", "s.pt2", "no trial 'search-3'; did you mean search-000"),
        (None, "s.pt2", "--trial is needed"),
    ],
)
def test_refuses(trial, name, says, finished_run, tmp_path):
    (tmp_path / "old.pt2").write_text("mine")
    with pytest.raises(UserError, match=says):
        export_student(finished_run, trial, tmp_path / name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_commands_say_which_trial_was_taken(finished_run, tmp_path):
    def call(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments)])
        return result.exit_code, " ".join((result.stdout + result.stderr).split())

    code, text = call("export-student", finished_run, "--trial", "best", "--out", tmp_path / "s.pt2")
    assert (code, "search-0001 (proxy on digits, score 0.700)" in text) == (0, True), text
    code, text = call("generate", finished_run, "--trial", "best", "--out", tmp_path / "a", "--count", 3)
    assert (code, "search-0000 (degan on digits, score 0.500): 3 images" in text) == (0, True), text
    short = ("--count", 1000, "--balance", "--draws", 1, "--format", "npz")
    code, text = call("generate", finished_run, "--out", tmp_path / "b.npz", *short)
    assert (code, "Short of images" in text) == (0, True), text
    code, text = call("generate", finished_run, "--trial", "search-0001", "--out", tmp_path / "c")
    assert (code, text.startswith("error: trial search-0001 has no generator")) == (2, True), text
