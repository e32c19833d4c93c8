"""An exported student in each format: what it computes when loaded again, what it says of itself, its check batch."""

import base64
import json
import operator
import shutil
import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from degan_search import ledger
from degan_search.evaluation import networks
from degan_search.ledger.columns import config_columns, config_of
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.products.student_file import check, export_student
from degan_search.products.student_formats import (
    ABOUT,
    CHECK,
    CHECK_TEXT,
    FORMATS,
    MODEL,
    WEIGHTS,
    CheckBatch,
    Exported,
)
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import NoticeWarning, UserError
from degan_search.training.measures import predict
from degan_search.trial import outcome as outcomes
from degan_search.trial.images import load_proxy
from degan_search.trial.outcome import Outcome


def images(count):
    return torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def read(path):
    extra = {ABOUT: ""}
    program = torch.export.load(path, extra_files=extra)
    return program, json.loads(extra[ABOUT])


def change_pt2(path):
    """Change a weight of a program; all else stays."""
    extra = {ABOUT: ""}
    program = torch.export.load(path, extra_files=extra)
    next(iter(program.state_dict.values())).data.add_(1)
    torch.export.save(program, path, extra_files=extra)


def change_onnx(path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    weight = next(one for one in model.graph.initializer if len(one.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, weight.name))
    onnx.save(model, path)


CHANGES = {"pt2": change_pt2, "onnx": change_onnx, "folder": lambda path: change_pt2(path / MODEL)}


@pytest.fixture(scope="module", params=CLASSIFIERS)
def traced(request, finished_run, tiny, tmp_path_factory):
    """A copy of the run with a final trial whose student is this network, that student, and what traces it once."""
    network = request.param
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp(network) / "digits")
    config: TrialConfig = tiny({"student": {"network": network, "width": 2}})
    about = {"trial_id": "final-0000", "attempt": 1, "phase": "final", "state": "COMPLETE", "score": 1.0}
    ledger.write_row(run, about | config_columns(config))
    student = build_classifier(network, 10, 2, 1)
    outcomes.save(Outcome({}, student), run / "trials" / "final-0000")
    program, kept = Exported.program, []

    def once(exported):
        if not kept:
            kept.append(program(exported))
        return kept[0]

    return run, student, once


@pytest.fixture
def final(traced, monkeypatch):
    """The run and the student; all formats are written of one program, as tracing takes longer than they do."""
    run, student, once = traced
    monkeypatch.setattr(Exported, "program", once)
    return run, student


@pytest.fixture
def student(finished_run):
    """The student of the run's first trial, as our own code reads it."""
    return networks.load_student(finished_run, "search-0000", config_of(ledger.load(finished_run).iloc[0]), 10)


def test_gives_the_students_logits_for_any_number_of_bytes(final, tmp_path):
    run, student = final
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
    assert about["preprocessing"]["size"] == [32, 32]
    assert about["preprocessing"]["mean"] == about["preprocessing"]["std"] == [0.5]
    assert about["agreement"]["balanced_soft_agreement"] is None
    assert about["check"] == "8 images of the proxy digits"
    assert TrialConfig.model_validate(about["config"]) == tiny()
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt2"]


def written(run, folder, kind, **how):
    """The first trial's student in a format."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    out = folder / f"student{FORMATS[kind].suffix}"
    export_student(run, "search-0000", out, **how)
    assert [path.name for path in folder.iterdir()] == [out.name]
    return out


def onnx_session(path):
    return pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])


def test_onnx_gives_the_students_logits_for_any_number_of_bytes(final, tmp_path):
    pytest.importorskip("onnxruntime")
    run, student = final
    export_student(run, "final-0000", tmp_path / "s.onnx")
    session = onnx_session(tmp_path / "s.onnx")
    for count in (1, 5):
        (logits,) = session.run(["logits"], {"images": images(count).numpy()})
        assert abs(logits - predict(student, images(count)).numpy()).max() < 1e-4


@pytest.mark.parametrize("softmax", [False, True])
def test_onnx_holds_names_facts_and_check_batch(softmax, finished_run, student, tmp_path):
    session = onnx_session(written(finished_run, tmp_path, "onnx", softmax=softmax))
    assert (session.get_inputs()[0].type, session.get_inputs()[0].shape) == ("tensor(uint8)", ["n", 1, 32, 32])
    held = session.get_modelmeta().custom_metadata_map
    assert json.loads(held["classes"]) == json.loads(held[ABOUT])["classes"] == list("0123456789")
    batch = CheckBatch.from_bytes(base64.b64decode(held[CHECK_TEXT]))
    (name,) = (output.name for output in session.get_outputs())
    assert name == ("probabilities" if softmax else "logits")
    assert abs(session.run(None, {"images": batch.images})[0] - batch.outputs).max() < 1e-4
    assert (abs(batch.outputs.sum(axis=1) - 1).max() < 1e-5) == softmax


def test_folder_runs_by_its_own_words(finished_run, student, tmp_path, monkeypatch, capsys):
    folder = written(finished_run, tmp_path, "folder")
    assert json.loads((folder / ABOUT).read_text())["classes"] == list("0123456789")
    weights = safetensors.torch.load_file(folder / WEIGHTS)
    assert weights.keys() == student.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())
    monkeypatch.chdir(folder)
    snippet = (folder / "README.txt").read_text().split("\n\n")[1]
    assert len(snippet.splitlines()) == 5
    exec(snippet, {})
    assert capsys.readouterr().out.strip() == str([str(int(predict(student, images(1) * 0).argmax()))])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_check_batch_passes_and_is_of_the_proxy(kind, finished_run, student, tiny, tmp_path):
    out = written(finished_run, tmp_path, kind)
    checked = check(out)
    assert checked.passes and checked.images == 8 and checked.difference < 1e-4
    batch = FORMATS[kind].load(out).check
    proxy = load_proxy(tiny(), None)
    assert (batch.images == proxy.images[proxy.held_out[:8]]).all()
    torch.testing.assert_close(torch.from_numpy(batch.outputs), predict(student, torch.from_numpy(batch.images)))


def test_the_weights_of_any_network_fit_the_program_beside_them(final, tmp_path):
    run, _ = final
    export_student(run, "final-0000", tmp_path / "s")
    assert check(tmp_path / "s").passes


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_check_fails_when_a_weight_is_changed(kind, softmax, finished_run, tmp_path):
    out = written(finished_run, tmp_path, kind, softmax=softmax)
    CHANGES[kind](out)
    checked = check(out)
    assert not checked.passes and checked.difference > checked.allowed


def test_the_check_fails_when_the_weights_beside_the_program_are_changed(finished_run, tmp_path):
    out = written(finished_run, tmp_path, "folder")
    weights = safetensors.torch.load_file(out / WEIGHTS)
    weights[next(iter(weights))] += 1
    safetensors.torch.save_file(weights, out / WEIGHTS)
    assert not check(out).passes


@pytest.mark.parametrize("kind", FORMATS)
def test_a_broken_file_is_one_line(kind, finished_run, tmp_path, capfd):
    out = written(finished_run, tmp_path, kind)
    torn = out / CHECK if kind == "folder" else out
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    with pytest.raises(UserError) as caught:
        check(out)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def test_without_the_library_the_extra_is_named(finished_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"need onnx, which is not installed: pip install 'degan-search\[onnx\]'"):
        export_student(finished_run, "search-0000", tmp_path / "s.onnx")
    assert not [*tmp_path.iterdir()]


def test_the_format_can_be_named(finished_run, tmp_path):
    export_student(finished_run, "search-0000", tmp_path / "v1.2", kind="folder")
    assert check(tmp_path / "v1.2").passes
    export_student(finished_run, "search-0000", tmp_path / "student", kind="pt2")
    assert check(tmp_path / "student").passes
    with pytest.raises(UserError, match="no format 'onx'; did you mean onnx"):
        export_student(finished_run, "search-0000", tmp_path / "s.pt2", kind="onx")


class Branching(nn.Module):
    """A network that no exporter can follow: what it does depends on the images."""

    def forward(self, images):
        return images.flatten(1)[:, :10] * (2 if images.sum() > 0 else 3)


def test_a_student_that_cannot_be_exported_is_one_line(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "load_student", lambda *_: Branching())
    with pytest.raises(UserError, match="search-0000 cannot be written as pt2: ") as caught:
        export_student(finished_run, "search-0000", tmp_path / "s.pt2")
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]


def test_without_the_proxy_the_check_images_are_noise(finished_run, tiny, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "digits")
    about = {"trial_id": "final-0000", "attempt": 1, "phase": "final", "state": "COMPLETE", "score": 1.0}
    ledger.write_row(run, about | config_columns(tiny({"proxy": f"folder:{tmp_path / 'gone'}"})))
    shutil.copytree(run / "trials" / "search-0000", run / "trials" / "final-0000")
    with pytest.warns(NoticeWarning, match="the check images are noise"):
        export_student(run, "final-0000", tmp_path / "s.pt2")
    assert read(tmp_path / "s.pt2")[1]["check"] == "8 images of noise"
    assert check(tmp_path / "s.pt2").passes
