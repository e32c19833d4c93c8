"""A teacher whose classes are in another order than the set's: an error that names the cause, and no false alarm."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import save_file

from degan_search.networks.table import build_classifier
from degan_search.stages import teacher as teachers
from degan_search.stages.class_order import check_class_order
from degan_search.system.errors import UserError


def natural(classes):
    """Class numbers 1 to `classes` as text, as folders sort them, and the teacher's output for each of them."""
    names = sorted(map(str, range(1, classes + 1)))
    return tuple(names), np.array([int(name) - 1 for name in names])


def answers(classes, count, right, seed=0):
    """Labels in the order of folders, and a teacher's answers in natural order, of which a share is right."""
    rng = np.random.default_rng(seed)
    names, outputs = natural(classes)
    labels = rng.integers(0, classes, count)
    predicted = np.where(rng.random(count) < right, outputs[labels], rng.integers(0, classes, count))
    return names, labels, predicted


@pytest.mark.parametrize(("classes", "count"), [(10, 60), (11, 200), (12, 200), (100, 1000), (1000, 5000)])
def test_folders_that_sort_1_10_2_are_found_out(classes, count):
    names, labels, predicted = answers(classes, count, 0.9)
    with pytest.raises(UserError, match=r"in another order it would be on [89]\d\.\d%.*\(1, 10, .*\(01, 02, 10\)"):
        check_class_order("teacher", "folder:x", predicted, labels, names)


def test_below_chance_names_the_likely_cause():
    labels = np.arange(1000) % 4
    predicted = np.where(np.arange(1000) % 16 < 12, (labels + 1 + np.arange(1000) // 4 % 3) % 4, labels)
    predicted[np.arange(1000) % 16 == 12] = 1
    with pytest.raises(UserError, match=r"guessing on 25\.0%: its classes are likely in another order"):
        check_class_order("teacher", "folder:x", predicted, labels, tuple("abcd"))


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("count", [2, 20, 2000])
def test_what_guesses_or_is_right_is_left_alone(classes, count):
    names = tuple(map(str, range(classes)))
    for seed in range(50):
        rng = np.random.default_rng(seed)
        labels, guessed = rng.integers(0, classes, (2, count))
        for predicted in (labels, np.where(rng.random(count) < 0.4, labels, guessed), np.zeros_like(labels)):
            check_class_order("teacher", "folder:x", predicted, labels, names)
    # At most one in a thousand is below chance by the limit of BELOW.
    check_class_order("teacher", "folder:x", guessed, labels, names)


def test_a_teacher_file_is_refused_before_anything_is_trained(tiny, teacher, true, tmp_path):
    model = build_classifier("lenet", 10, 4)
    model.load_state_dict(teacher.model().state_dict())
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    config = tiny({"teacher": {"path": str(tmp_path / "own.safetensors")}}).teacher
    assert teachers.obtain(config, true, tmp_path / "cache").holdout_accuracy == teacher.holdout_accuracy
    names, outputs = natural(10)
    in_text_order = np.argsort(outputs)  # the label of each class that was in natural order
    folders = replace(true, labels=in_text_order[true.labels], classes=names)
    with pytest.raises(UserError, match=r"own\.safetensors' is right on .* guessing on 10\.0%; with its classes"):
        teachers.obtain(config, folders, tmp_path / "cache")
