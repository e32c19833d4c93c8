"""What the tests of sources and of distillation share: a teacher, a generator and true images."""

import pytest
import torch

from tests.stages.sources import make_generator


@pytest.fixture(scope="module")
def model(teacher):
    return teacher.model()


@pytest.fixture(scope="module")
def maker():
    return make_generator()


@pytest.fixture(scope="module")
def images(true):
    return torch.from_numpy(true.images[true.train[:60]]), torch.from_numpy(true.images[true.held_out[:40]])
