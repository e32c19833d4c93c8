"""Small teachers, images of new classes, and the training of a student on them."""

import torch
from torch import nn

from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.settings.trial import IncrementalConfig
from degan_search.stages.incremental import IncrementalLearning
from degan_search.training.context import Context
from degan_search.training.loop import progress_of

OLD, NEW, COUNT, LR = 3, 2, 6, 0.25
TEMPERATURE, DISTILL_WEIGHT, SCALE_WEIGHT = 2.0, 3.0, 0.7
LABELS = torch.tensor([0, 1, 1, 0, 1, 1])


def pixels(seed, count=COUNT, channels=1, size=4):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=rng)


class Double(nn.Module):
    """Turns images to float64, in which everything after it is computed."""

    def forward(self, x):
        return x.double()


def linear_teacher():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(Double(), nn.Flatten(), nn.Linear(16, OLD).double()).eval()


def settings(**changes):
    fixed = {
        "augment": False,
        "batch_size": COUNT,
        "epochs": 1,
        "lr": LR,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "milestones": (),
        "distill_weight": DISTILL_WEIGHT,
        "scale_weight": SCALE_WEIGHT,
    }
    return IncrementalConfig(**(fixed | changes))


class Recalling:
    """A recall that needs no state."""

    def __init__(self, recall):
        self.recall = recall

    def __call__(self, new):
        return self.recall(new)

    def state_dict(self):
        return {}


def train(student, teacher, images=None, labels=LABELS, rule="all", recall=None, seed=0, **changes):
    """Train a student and return its progress."""
    images = pixels(1) if images is None else images
    recall = recall and Recalling(recall)
    learning = IncrementalLearning(student, rule, images, labels, teacher, recall, settings(**changes), Context(seed))
    return list(progress_of(learning))


def small(name, classes=OLD):
    """A network of the table at a small width, its BatchNorms no longer at their first values."""
    network = CLASSIFIERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_classifier(name, classes, max(1, network.width // 16))
        with torch.no_grad():
            model(torch.rand(8, network.channels, 32, 32) * 2 - 1)
    return model.eval()
