"""Accuracies of finished students, of distillation and of learned classes: known values, and what may be read."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from degan_search import ledger
from degan_search.data import proxies
from degan_search.data.images import denormalise
from degan_search.evaluation import accuracy, across_trials, judges
from degan_search.ledger.columns import config_columns
from degan_search.networks.table import build_classifier
from degan_search.settings.methods import normalised
from degan_search.stages import teacher as teachers
from degan_search.stages.true_images import true_images
from degan_search.training import measures
from degan_search.training.measures import predict
from degan_search.trial import outcome as outcomes
from degan_search.trial.images import banked, load_proxy
from degan_search.trial.outcome import Outcome
from degan_search.trial.trial import run as run_trial

NEW = {
    "task": "incremental",
    "method": "finetuning",
    "teacher.dataset": "digits/[0-4]",
    "proxy": "digits/[5-9]",
    "count": 60,
}
DIGIT = 7


def sure_student(network="lenet", width=4, digit=DIGIT):
    """A student that says one class of ten of every image."""
    with torch.random.fork_rng(devices=[]):
        model = build_classifier(network, 10, width)
    nn.init.zeros_(model[-1].weight)
    model[-1].bias.data = 9.0 * torch.eye(10)[digit]
    return model.eval()


def row(run, teacher_hash, trial_id, config, student):
    """Write a finished trial."""
    about = {"trial_id": trial_id, "attempt": 1, "phase": trial_id.split("-")[0], "state": "COMPLETE", "score": 0.5}
    ledger.write_row(run, about | {"teacher_hash": teacher_hash} | config_columns(normalised(config)))
    outcomes.save(Outcome({}, student), run / "trials" / trial_id)


@pytest.fixture
def asked(monkeypatch):
    """Which images are read: (name, split)."""
    seen, load = [], proxies.load

    def spy(name, split="train", *rest, **named):
        seen.append((name, split))
        return load(name, split, *rest, **named)

    monkeypatch.setattr(proxies, "load", spy)
    return seen


@pytest.fixture(scope="module")
def learned(tiny, store):
    """The configuration of a trial that learned new digits, and its teacher."""
    config = normalised(tiny(NEW))
    true = true_images(config.teacher, None)
    return config, true, teachers.obtain(config.teacher, true, store)


def scores(run):
    return ledger.load(run).set_index("trial_id")


def share(labels, digit):
    return (np.asarray(labels) == digit).mean()


def test_a_final_student_of_new_classes_is_scored_on_both_kinds(learned, store, tmp_path, asked):
    config, true, teacher = learned
    row(tmp_path, teacher.hash, "final-0000", config, sure_student())
    row(tmp_path, teacher.hash, "final-0001", config, sure_student(digit=2))
    assert accuracy.evaluate(tmp_path, None, store) == 2
    assert ("digits/[0-4]", "test") in asked
    assert ("digits/[5-9]", "test") in asked
    old, new = proxies.load("digits/[0-4]", "test").labels, proxies.load("digits/[5-9]", "test").labels + 5
    both = np.concatenate([old, new])
    proxy = load_proxy(config, None)
    unseen = proxy.held_out[len(banked(config, proxy)) :]  # the score was measured on the others
    assert 0 < len(unseen) < len(proxy.held_out)
    kept = np.concatenate([true.labels[true.held_out], 5 + proxy.labels[unseen]])
    for trial_id, digit in (("final-0000", DIGIT), ("final-0001", 2)):
        found = scores(tmp_path).loc[trial_id]
        assert found["old_accuracy"] == pytest.approx(share(old, digit))
        assert found["new_accuracy"] == pytest.approx(share(new, digit))
        assert found["test_accuracy"] == pytest.approx(share(both, digit))
        assert found["oracle_accuracy"] == pytest.approx(share(kept, digit))
        assert found["oracle_half_1"] == pytest.approx(share(kept[::2], digit))
        assert found["oracle_half_2"] == pytest.approx(share(kept[1::2], digit))
        assert (found["n_test"], found["n_oracle"]) == (len(both), len(kept))
    found = scores(tmp_path).loc["final-0000"]
    assert found["old_accuracy"] == 0 < found["new_accuracy"] < 0.5
    # The teacher knows the old classes alone.
    test = true_images(config.teacher, None, "test")
    expected = measures.accuracy(predict(teacher.model(), torch.from_numpy(test.images)), torch.from_numpy(test.labels))
    assert found["teacher_test_accuracy"] == pytest.approx(expected)
    assert found["teacher_oracle_accuracy"] == pytest.approx(teacher.holdout_accuracy)


def test_where_nothing_is_held_out_a_final_student_has_a_test_accuracy_alone(learned, store, tmp_path, asked):
    config, *_ = learned
    config = config.model_copy(update={"teacher": config.teacher.model_copy(update={"holdout": 0.0})})
    teacher = teachers.obtain(config.teacher, true_images(config.teacher, None), store)
    for trial_id in ("search-0000", "final-0000"):
        row(tmp_path, teacher.hash, trial_id, config, sure_student())
    assert accuracy.evaluate(tmp_path, None, store) == 1
    found = scores(tmp_path)
    assert found.loc["final-0000", "n_test"] == len(proxies.load("digits", "test"))
    assert found.loc["final-0000", "new_accuracy"] > 0 == found.loc["final-0000", "old_accuracy"]
    assert found[["oracle_accuracy", "oracle_half_1", "n_oracle"]].isna().all(axis=None)
    assert found.loc[["search-0000"], ["test_accuracy", "old_accuracy"]].isna().all(axis=None)
    assert accuracy.evaluate(tmp_path, None, store) == 0  # and nothing is left to do


def test_a_search_student_of_new_classes_never_sees_test_images(learned, store, tmp_path, asked):
    config, true, teacher = learned
    row(tmp_path, teacher.hash, "search-0000", config, sure_student())
    row(tmp_path, teacher.hash, "search-0001", config, sure_student(digit=2))
    assert accuracy.evaluate(tmp_path, None, store) == 2
    assert {split for _, split in asked} == {"train"}
    proxy = load_proxy(config, None)
    unseen = proxy.held_out[len(banked(config, proxy)) :]
    old, new = true.labels[true.held_out], 5 + proxy.labels[unseen]
    for trial_id, digit in (("search-0000", DIGIT), ("search-0001", 2)):
        found = scores(tmp_path).loc[trial_id]
        assert found["old_accuracy"] == pytest.approx(share(old, digit))
        assert found["new_accuracy"] == pytest.approx(share(new, digit))
        assert found["oracle_accuracy"] == pytest.approx(share(np.concatenate([old, new]), digit))
        assert found[["test_accuracy", "teacher_test_accuracy", "n_test", "cross_agreement"]].isna().all()
    assert accuracy.evaluate(tmp_path, None, store) == 0  # and nothing is left to do


def test_a_distilled_student_is_scored_on_the_true_classes(tiny, true, teacher, store, tmp_path, asked):
    config = tiny({"method": "proxy"})
    student = sure_student("lenet_half", 2)
    for trial_id in ("search-0000", "final-0000"):
        row(tmp_path, teacher.hash, trial_id, config, student)
    assert accuracy.evaluate(tmp_path, None, store) == 2
    frame, test = scores(tmp_path), proxies.load("digits", "test")
    assert frame["oracle_accuracy"].to_list() == pytest.approx([share(true.labels[true.held_out], DIGIT)] * 2)
    assert frame["teacher_oracle_accuracy"].to_list() == pytest.approx([teacher.holdout_accuracy] * 2)
    assert frame.loc["final-0000", "test_accuracy"] == pytest.approx(share(test.labels, DIGIT))
    assert frame.loc["final-0000", "n_test"] == len(test.labels)
    assert np.isnan(frame.loc["search-0000", "test_accuracy"])
    assert frame[["old_accuracy", "new_accuracy"]].isna().all(axis=None)


def test_without_finals_no_test_image_is_read(tiny, teacher, store, tmp_path, asked):
    row(tmp_path, teacher.hash, "search-0000", tiny({"method": "proxy"}), sure_student("lenet_half", 2))
    assert accuracy.evaluate(tmp_path, None, store) == 1
    assert {split for _, split in asked} == {"train"}
    assert scores(tmp_path)["test_accuracy"].isna().all()


def test_students_of_both_tasks_are_compared_with_their_own_kind(learned, tiny, store, tmp_path):
    config, _, teacher = learned
    distilling = {"teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]", "method": "proxy"}
    row(tmp_path, teacher.hash, "search-0000", config, sure_student())
    for number in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            student = build_classifier("lenet_half", 5, 2)
        row(tmp_path, teacher.hash, f"search-000{number}", tiny(distilling), student)
    assert accuracy.evaluate(tmp_path, None, store) == 3
    frame = scores(tmp_path)
    assert np.isnan(frame.loc["search-0000", "cross_agreement"])
    assert frame["oracle_accuracy"].notna().all()


@pytest.fixture
def passed_forward(monkeypatch):
    """The images, as bytes, that networks were trained on, and those on which agreement across trials was measured."""
    trained, measured, plain = set(), set(), across_trials.predict

    def forward(module, given):
        first = given[0] if given else None
        if module.training and isinstance(first, torch.Tensor) and first.shape[1:] == (1, 32, 32):
            trained.update(image.tobytes() for image in denormalise(first).contiguous().numpy())

    def measure(model, images, *rest):
        measured.update(image.tobytes() for image in images.contiguous().numpy())
        return plain(model, images, *rest)

    monkeypatch.setattr(across_trials, "predict", measure)
    handle = register_module_forward_pre_hook(forward)
    yield trained, measured
    handle.remove()


def test_agreement_across_trials_is_measured_on_no_image_that_a_student_learned(
    tiny, prepare, teacher, store, tmp_path, passed_forward
):
    """From the training of the students to the comparison of their networks, through all that lies between."""
    (trained, measured), learned_from = passed_forward, set()
    for number, method in enumerate(("proxy", "proxy_matched")):
        config = tiny({"method": method, "seed": number, "bank.proxy_images": 2000})
        inputs = prepare(config)
        trained.clear()  # the bank's generators are trained on the whole proxy, and they teach no student
        row(tmp_path, teacher.hash, f"search-000{number}", config, run_trial(config, inputs).student)
        learned_from |= trained
    proxy = inputs.proxy
    assert learned_from == {image.tobytes() for image in proxy.images[proxy.train]}
    out = io.StringIO()
    assert accuracy.evaluate(tmp_path, None, store, Console(file=out)) == 2
    told = [f"{what}: {done} of 2 trials" for what in ("Accuracies", "Agreement across trials") for done in (1, 2)]
    assert out.getvalue().splitlines() == told
    assert measured == {image.tobytes() for image in proxy.images[proxy.held_out]}
    assert not measured & learned_from
    # Nor is the bank, on which the search compares them.
    assert not {image.tobytes() for image in inputs.bank} & learned_from
    assert scores(tmp_path)["cross_agreement"].notna().all()


def test_the_teacher_is_scored_once_however_many_students_there_are(tiny, teacher, store, tmp_path, monkeypatch):
    for number in range(3):
        row(tmp_path, teacher.hash, f"final-000{number}", tiny({"method": "proxy"}), sure_student("lenet_half", 2))
    models, plain = [], judges.predict
    monkeypatch.setattr(judges, "predict", lambda model, images: models.append(id(model)) or plain(model, images))
    accuracy.evaluate(tmp_path, None, store)
    assert len(models) == 2 * 3 + 2  # held-out and test images of each student, and of the teacher
