"""Learning digits 5 to 9 from end to end: what each method forgets and learns."""

import pytest
import torch

from degan_search.data import proxies
from degan_search.data.images import normalise, to_input
from degan_search.networks.frozen import freeze
from degan_search.settings.trial import TeacherConfig
from degan_search.stages import teacher as teachers
from degan_search.stages.incremental import expand
from degan_search.stages.true_images import true_images
from degan_search.training.measures import accuracy, predict
from tests.stages.new_classes import train


@pytest.fixture(scope="module")
def digits():
    """A LeNet that reads 0 to 4, its true images, and images of 5 to 9 with labels 0 to 4."""
    config = TeacherConfig(
        dataset="digits/[0-4]", network="lenet", fit={"steps": 200, "batch_size": 32, "lr": 3e-3, "steps_per_epoch": 50}
    )
    true = true_images(config, None)
    new = proxies.load("digits/[5-9]")
    images, labels = torch.from_numpy(to_input(new.images, 1)), torch.from_numpy(new.labels)
    return freeze(teachers.train(config, true)), true, images, labels


def read(student, digits):
    """Accuracy on held-out old digits and on new ones, over all ten."""
    _, true, images, labels = digits
    old, old_labels = (torch.from_numpy(part[true.held_out]) for part in (true.images, true.labels))
    return accuracy(predict(student, old), old_labels), accuracy(predict(student, images), labels + 5)


def test_finetuning_forgets_digits_that_the_other_methods_keep(digits):
    teacher, true, images, labels = digits
    old = normalise(torch.from_numpy(true.images[true.train]))
    rng = torch.Generator().manual_seed(0)

    def recall(batch):
        recalled = old[torch.randint(len(old), (len(batch),), generator=rng)]
        return recalled, teacher(recalled)

    itself, true_old = (lambda batch: (batch, teacher(batch))), recall
    arms = {
        "finetuning": {},
        "proxy": {"recall": itself},
        "true": {"recall": true_old},
        "joint": {"recall": true_old, "joint": True},
        "fixed": {"rule": "new_outputs"},
        "lwf": {"rule": "sigmoid", "lr": 0.1},  # its loss is a mean over 100 outputs, of which there are 10
    }
    length = {"batch_size": 32, "steps": 120, "epochs": 1000, "lr": 0.01, "momentum": 0.9, "distill_weight": 0.75}
    found = {}
    for name, changes in arms.items():
        student = expand(teacher, 5, 0)
        train(student, teacher, images, labels, **(length | changes))
        found[name] = read(student, digits)
    assert found["finetuning"][0] < 0.1
    assert found["finetuning"][1] > 0.9
    assert min(found[name][0] for name in ("proxy", "true", "joint", "lwf")) > 0.85
    assert found["joint"][1] > 0.9
    assert found["fixed"][1] < found["finetuning"][1] - 0.05
    both = {name: sum(accuracies) / 2 for name, accuracies in found.items()}
    assert both["finetuning"] + 0.15 < min(both["proxy"], both["true"])
    assert max(both["proxy"], both["true"]) + 0.05 < both["joint"]
