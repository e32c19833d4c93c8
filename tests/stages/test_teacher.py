"""The teacher: what it is trained on, trained once and cached, and the same again."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from degan_search.data import proxies
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.stages import teacher as teachers
from degan_search.stages.true_images import true_images
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.measures import accuracy, predict
from degan_search.training.resumable import snapshot

SHORT = {"teacher.fit.steps": 8, "teacher.count": 100}


@pytest.fixture
def short(tiny):
    """A teacher of eight steps."""
    return tiny(SHORT).teacher


@pytest.fixture(scope="module")
def short_true(tiny):
    return true_images(tiny(SHORT).teacher, None)


def test_true_images_are_split_and_fit_the_network(tiny):
    true = true_images(tiny().teacher, None)
    assert true.images.shape == (400, 1, 32, 32)
    assert sorted([*true.train, *true.held_out]) == list(range(400))
    assert len(true.held_out) == 80
    assert np.bincount(true.labels).tolist() == [40] * 10
    colour = true_images(tiny({"teacher.network": "alexnet"}).teacher, None)
    assert colour.images.shape == (400, 3, 32, 32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher.dataset": "noise/uniform"}, "'noise/uniform' must be labelled"),
        ({"teacher.dataset": "glyphs/[A]"}, "at least two classes"),
        ({"teacher.count": 10}, "leaves 8 training images, fewer than teacher.fit.batch_size = 16"),
        ({"teacher.count": 9999}, "digits has 1437 images"),
        ({"teacher.network": "lenett"}, "unknown classifier 'lenett'; did you mean lenet"),
    ],
)
def test_true_images_that_cannot_serve_are_refused(tiny, change, said):
    with pytest.raises(UserError) as error:
        true_images(tiny(change).teacher, None)
    assert said in str(error.value)


def test_a_trained_teacher_knows_its_classes(teacher, true):
    held_out = torch.from_numpy(true.images[true.held_out]), torch.from_numpy(true.labels[true.held_out])
    assert teacher.holdout_accuracy == accuracy(predict(teacher.model(), held_out[0]), held_out[1]) > 0.5
    assert (teacher.classes, teacher.takes.channels) == (10, 1)
    model = teacher.model()
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not any(module.training for module in model.modules())


def test_the_cached_teacher_is_not_trained_again(short, short_true, tmp_path):
    heard = []
    first = teachers.obtain(short, short_true, tmp_path, heard.append)
    assert heard[-1].step == 8
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert sorted(path.suffix for path in files) == [".json", ".safetensors"]
    heard.clear()
    second = teachers.obtain(short, short_true, tmp_path, heard.append)
    assert not heard
    assert first == second
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_a_teacher_of_a_network_that_has_changed_since_is_trained_again(short, short_true, tmp_path, monkeypatch):
    before = teachers.obtain(short, short_true, tmp_path)
    monkeypatch.setitem(CLASSIFIERS, short.network, dataclasses.replace(CLASSIFIERS[short.network], revision=9))
    heard = []
    now = teachers.obtain(short, short_true, tmp_path, heard.append)
    assert heard and now.hash != before.hash


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"held_out_accuracy": null}'])
def test_a_broken_cache_says_what_to_remove(content, short, short_true, tmp_path):
    teachers.obtain(short, short_true, tmp_path)
    facts = next(tmp_path.glob("*.json"))
    facts.write_text(content)
    with pytest.raises(UserError, match=f"{facts.name} is broken; remove it"):
        teachers.obtain(short, short_true, tmp_path)


def test_training_again_gives_the_same_teacher(short, short_true, tmp_path):
    torch.manual_seed(1)
    one = teachers.obtain(short, short_true, tmp_path / "one")
    torch.manual_seed(2)
    assert teachers.obtain(short, short_true, tmp_path / "two") == one


def first_loss(tiny, **changes):
    """The loss of a teacher's first step, on all of its training images as one batch."""
    step = {"teacher.fit.batch_size": 80, "teacher.fit.steps": 1, "teacher.fit.epochs": 1, "teacher.count": 100}
    config, heard = tiny(step, changes).teacher, []
    true = true_images(config, None)
    teachers.train(config, true, heard.append)
    return heard[0].loss, true, config


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_either_loss_has_its_value(loss, tiny):
    value, true, config = first_loss(tiny, **{"teacher.loss": loss})
    with seeds.seeded(config.seed, "teacher", "weights"):
        model = build_classifier("lenet", 10, 4)
    outputs = predict(model, torch.from_numpy(true.images[true.train])).double().numpy()
    right = np.eye(10)[true.labels[true.train]]
    if loss == "cross_entropy":
        expected = -(right * (outputs - np.log(np.exp(outputs).sum(1, keepdims=True)))).sum(1).mean()
    else:
        sure = 1 / (1 + np.exp(-outputs))
        expected = -(right * np.log(sure) + (1 - right) * np.log(1 - sure)).sum(1).mean() / 100  # iCaRL's outputs
    assert value == pytest.approx(expected, rel=1e-5)


def test_training_goes_on_from_any_step(tiny):
    fit = {"steps": 8, "steps_per_epoch": 3, "batch_size": 8, "augment": True}
    config = tiny({"teacher": {"network": "alexnet", "width": 2, "count": 40, "fit": fit}}).teacher
    true = true_images(config, None)
    training, reports, states = teachers.TeacherTraining(config, true), [], []
    while not training.done:
        reports.append(training.step())
        states.append(snapshot(training.state_dict()))
    assert [report.step for report in reports if report] == [3, 6, 8]
    for cut, state in enumerate(states):
        rest, left = teachers.TeacherTraining(config, true), reports[cut + 1 :]
        rest.load_state_dict(state)
        assert [rest.step() for _ in left] == left
        assert rest.done
        assert all(map(torch.equal, rest.network.state_dict().values(), training.network.state_dict().values()))


class CutError(Exception):
    """What ends a training."""


@pytest.mark.parametrize(("spoil", "begins"), [(b"", 2), (b"broken", 0)])
def test_a_training_that_was_cut_goes_on(spoil, begins, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "CHECKPOINT_SECONDS", 0.0)
    config = tiny({**SHORT, "teacher.fit.steps_per_epoch": 2}).teacher
    true, whole = true_images(config, None), []
    uncut = teachers.obtain(config, true, tmp_path / "uncut", whole.append)
    assert [progress.step for progress in whole] == [2, 4, 6, 8]

    def cut_at_four(progress):
        if progress.step == 4:
            raise CutError

    with pytest.raises(CutError):
        teachers.obtain(config, true, tmp_path / "cut", cut_at_four)
    (saved,) = (tmp_path / "cut").glob("*.training")
    if spoil:
        saved.write_bytes(spoil)
    heard = []
    assert teachers.obtain(config, true, tmp_path / "cut", heard.append) == uncut
    assert heard == [progress for progress in whole if progress.step > begins]
    assert not saved.exists()


def test_images_are_augmented_if_asked_from_the_teachers_seed(tiny):
    torch.manual_seed(1)
    value, *_ = first_loss(tiny, **{"teacher.fit.augment": True})
    torch.manual_seed(2)
    assert first_loss(tiny, **{"teacher.fit.augment": True})[0] == value
    assert first_loss(tiny)[0] != value


def test_other_images_labels_or_settings_make_another_teacher(short, short_true, tmp_path):
    image, label = short_true.images.copy(), short_true.labels.copy()
    image[0, 0, 0, 0] ^= 1
    label[0] = (label[0] + 1) % 10
    cases = [
        (short, short_true),
        (short, dataclasses.replace(short_true, images=image)),
        (short, dataclasses.replace(short_true, labels=label)),
        (short.model_copy(update={"seed": 1}), short_true),
        (short.model_copy(update={"width": 2}), short_true),
    ]
    made = [teachers.obtain(config, true, tmp_path) for config, true in cases]
    assert len({teacher.hash for teacher in made}) == len(cases)
    assert len({teacher.data for teacher in made[2:]} | {made[0].data}) == len(cases) - 1
    assert len(list(tmp_path.glob("*.safetensors"))) == len(cases)


MEET = """
import sys, time
from pathlib import Path
import torch
from degan_search.settings.trial import TeacherConfig
from degan_search.stages import teacher as teachers
from degan_search.stages.true_images import true_images
torch.set_num_threads(1)
config = TeacherConfig.model_validate_json(sys.argv[1])
true = true_images(config, None)
here = Path(sys.argv[2])
(here / f"ready-{sys.argv[3]}").touch()
while not (here / "go").exists():
    time.sleep(0.005)
heard = []
made = teachers.obtain(config, true, here / "cache", lambda progress: (heard.append(progress), time.sleep(0.05)))
print(made.hash, len(made.data), len(heard))
"""


def test_two_processes_train_it_once(short, tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MEET, short.model_dump_json(), str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    until = time.monotonic() + 200
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < until:
        assert all(process.poll() is None for process in both)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=100)[0].split() for process in both]
    assert said[0][:2] == said[1][:2]
    heard = sorted(int(count) for *_, count in said)
    assert heard[0] == 0 < heard[1]


def test_the_test_split_is_never_asked_for(short, short_true, tmp_path, monkeypatch):
    asked = []
    real = proxies.load

    def recording(name, split="train", *rest, **named):
        asked.append(split)
        return real(name, split, *rest, **named)

    monkeypatch.setattr(proxies, "load", recording)
    true = true_images(short, None)
    teachers.obtain(short, true, tmp_path)
    assert asked == ["train"]
    true_images(short, None, "test")  # the final evaluation's way
    assert asked == ["train", "test"]
