"""The metrics on small cases worked by hand, their ranges, and that `predict` leaves the model alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.system.errors import UserError
from degan_search.training import measures


def sure(*classes: int, of: int = 4) -> Tensor:
    """Logits that put (nearly) all probability on the given classes."""
    return 50 * torch.eye(of)[list(classes)]


def test_accuracy():
    assert measures.accuracy(sure(0, 1, 2, 3), torch.tensor([0, 1, 2, 0])) == 0.75
    assert measures.accuracy(sure(0, 1), torch.tensor([1, 0])) == 0


def test_agreement_and_its_balanced_form():
    teacher, student = sure(0, 0, 0, 1), sure(0, 0, 0, 2)
    assert measures.agreement(student, teacher) == 0.75
    assert measures.balanced_agreement(student, teacher) == 0.5  # class 0 all, class 1 none; 2 and 3 do not count
    assert measures.balanced_agreement(teacher, student) == 0.5
    assert measures.balanced_agreement(sure(0, 1, 1, 1), sure(0, 0, 1, 1)) == 0.75


def test_balanced_soft_agreement_is_the_mean_over_the_classes_that_the_teacher_predicts():
    teacher = torch.tensor([[0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.1, 0.9, 0.0]]).log()
    student = torch.tensor([[0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.6, 0.4, 0.0]]).log()
    expected = ((1 + 1 + 0.7) / 3 + 0.5) / 2  # class 0 thrice, class 1 once, class 2 never
    assert measures.balanced_soft_agreement(student, teacher) == pytest.approx(expected, abs=1e-6)


def test_sure_agreement_is_that_on_the_images_of_which_the_teacher_is_sure():
    teacher = torch.tensor([[0.9, 0.1, 0.0], [0.3, 0.45, 0.25], [0.15, 0.85, 0.0], [0.05, 0.95, 0.0]]).log()
    student = torch.tensor([[0.8, 0.2, 0.0], [0.9, 0.1, 0.0], [0.15, 0.85, 0.0], [0.25, 0.75, 0.0]]).log()
    assert measures.sure_agreement(student, teacher) == pytest.approx((0.9 + (1 + 0.8) / 2) / 2, abs=1e-6)
    unsure = teacher[1:2]
    assert measures.sure_agreement(student[1:2], unsure) == pytest.approx(0.4, abs=1e-6)  # of all: it is sure of none


def test_soft_agreement():
    teacher = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
    student = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]]).log()
    assert measures.soft_agreement(student, teacher) == pytest.approx(0.85)
    assert measures.soft_agreement(teacher, teacher) == 1
    assert measures.soft_agreement(sure(0), sure(1)) == pytest.approx(0)


def test_effective_classes_and_entropy():
    assert measures.effective_classes(torch.zeros(3, 10)) == pytest.approx(10)
    assert measures.effective_classes(sure(0, 0, 1, 1)) == pytest.approx(2)
    assert measures.effective_classes(sure(2, 2)) == pytest.approx(1)
    assert measures.mean_entropy(torch.zeros(3, 10)) == pytest.approx(math.log(10))
    assert measures.mean_entropy(sure(0, 1)) == pytest.approx(0, abs=1e-12)


def test_coverage():
    logits = sure(*[0] * 693, *[1] * 7)  # 1% of 700 exactly: counts as covered
    assert measures.coverage(logits) == 0.5
    assert measures.coverage(logits, share=0.0101) == 0.25
    assert measures.coverage(sure(0, 1, 2, 3), share=0.25) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.floats(0, 100), st.integers(0, 9))
def test_ranges_hold_for_any_logits(images, classes, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(images, classes, generator=generator) for _ in range(2))
    for metric in (
        measures.agreement,
        measures.balanced_agreement,
        measures.soft_agreement,
        measures.balanced_soft_agreement,
    ):
        assert 0 <= metric(student, teacher) <= 1
        assert metric(student, student) == 1
    assert measures.agreement(student, teacher) == measures.accuracy(student, teacher.argmax(dim=1))
    assert 1 - 1e-9 <= measures.effective_classes(student) <= classes + 1e-9
    assert -1e-9 <= measures.mean_entropy(student) <= math.log(measures.effective_classes(student)) + 1e-9
    assert 1 / classes <= measures.coverage(student) <= 1


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def some_images(count: int, channels: int, random: torch.Generator) -> Tensor:
    return torch.randint(256, (count, channels, 32, 32), dtype=torch.uint8, generator=random)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predict_does_not_depend_on_the_batch_size_nor_moves_the_model(name, random):
    model = build_classifier(name, 10, 6)
    model[0].eval()  # one module in another mode than the rest
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = some_images(11, CLASSIFIERS[name].channels, random)
    logits = measures.predict(model, images)
    assert logits.shape == (11, 10)
    assert not logits.requires_grad
    for batch_size in (1, 4, 11):
        torch.testing.assert_close(measures.predict(model, images, batch_size), logits, rtol=1e-5, atol=2e-5)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model.eval()
    torch.testing.assert_close(model(images / 127.5 - 1), logits, rtol=1e-5, atol=1e-5)


def test_predict_puts_the_mode_back_after_an_error(random):
    model = build_classifier("lenet", 10)
    with pytest.raises(RuntimeError):
        measures.predict(model, some_images(2, 3, random))
    assert all(module.training for module in model.modules())


def test_predict_of_nothing_is_nothing(random):
    assert measures.predict(build_classifier("alexnet", 10, 6), some_images(0, 3, random)).shape == (0, 10)


@pytest.mark.parametrize(
    "call",
    [
        lambda: measures.accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        lambda: measures.accuracy(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)),
        lambda: measures.agreement(torch.zeros(2, 3), torch.zeros(2, 4)),
        lambda: measures.balanced_agreement(torch.zeros(2, 3), torch.zeros(1, 3)),
        lambda: measures.soft_agreement(torch.zeros(2, 3), torch.zeros(2, 1)),
        lambda: measures.effective_classes(torch.zeros(0, 3)),
        lambda: measures.mean_entropy(torch.zeros(3)),
        lambda: measures.coverage(torch.zeros(2, 3), share=0.0),
        lambda: measures.coverage(torch.zeros(2, 3), share=1.5),
        lambda: measures.predict(build_classifier("lenet", 10), torch.zeros(1, 1, 32, 32, dtype=torch.uint8), 0),
    ],
)
def test_unusable_arguments_are_refused(call):
    with pytest.raises(UserError):
        call()


def test_infomax_is_the_mutual_information_of_image_and_class():
    assert measures.infomax(sure(0, 1, 2, 3)) == pytest.approx(math.log(4))
    assert measures.infomax(sure(0, 1, 0, 1)) == pytest.approx(math.log(2))
    assert measures.infomax(sure(2, 2)) == pytest.approx(0, abs=1e-12)
    assert measures.infomax(torch.zeros(3, 4)) == 0
    half = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    assert measures.infomax(half) == pytest.approx(math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1), abs=1e-6)


def test_soft_neighbourhood_density_counts_the_neighbours_that_are_alike():
    # Each image has one neighbour like it and two of another class, which weigh exp(-20) each.
    far = math.exp(-20)
    shares = torch.tensor([1, far, far], dtype=torch.float64)
    shares /= shares.sum()
    expected = -(shares * shares.log()).sum().item()
    assert measures.soft_neighbourhood_density(sure(0, 0, 1, 1)) == pytest.approx(expected, rel=1e-6)
    assert measures.soft_neighbourhood_density(sure(0, 0, 0, 0)) == pytest.approx(math.log(3))
    assert measures.soft_neighbourhood_density(sure(0)) == 0
    assert measures.soft_neighbourhood_density(sure(0, 1), temperature=1.0) == 0  # one neighbour each, however far


def test_class_certainty_is_one_minus_the_minimum_class_confusion():
    assert measures.class_certainty(sure(0, 1, 2, 3)) == pytest.approx(1)
    assert measures.class_certainty(torch.zeros(5, 4)) == pytest.approx(1 / 4)
    # Two images at T = 1, all by hand: equal weights, as their entropies are equal.
    outputs = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    together = (0.64 + 0.04) / (0.64 + 0.04 + 0.32)
    assert measures.class_certainty(outputs.log(), temperature=1.0) == pytest.approx(together, abs=1e-6)
    # A sure image weighs more than an unsure one.
    mixed = torch.tensor([[0.99, 0.01], [0.01, 0.99], [0.5, 0.5]]).log()
    unweighted = torch.tensor([[0.99, 0.01], [0.01, 0.99], [0.5, 0.5]])
    plain = (unweighted.T @ unweighted).double()
    assert measures.class_certainty(mixed, temperature=1.0) > (plain.diagonal() / plain.sum(1)).mean().item()


@pytest.mark.parametrize("measure", [measures.infomax, measures.soft_neighbourhood_density, measures.class_certainty])
def test_label_free_criteria_take_any_finite_logits(measure):
    for logits in (torch.full((3, 2), 1e4), torch.tensor([[1e4, -1e4], [-1e4, 1e4]]), torch.randn(50, 7) * 1e3):
        assert math.isfinite(measure(logits)) and measure(logits) >= 0
    with pytest.raises(UserError):
        measure(torch.zeros(0, 4))


def test_agreement_by_class_is_none_for_a_class_that_the_teacher_never_predicts():
    teacher, student = (torch.eye(4)[torch.tensor(classes)] for classes in ([0, 0, 1, 3], [0, 1, 1, 2]))
    assert measures.class_agreement(student, teacher) == (0.5, 1.0, None, 0.0)
