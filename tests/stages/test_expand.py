"""A network widened by new classes: its old outputs stay, its weights follow the seed, and what is refused."""

import pytest
import torch
from torch import nn

from degan_search.networks.frozen import freeze
from degan_search.networks.table import CLASSIFIERS
from degan_search.stages.incremental import align, bank_logits, expand, logit_scale_loss
from degan_search.system.errors import UserError
from degan_search.training.measures import balanced_soft_agreement, predict
from tests.stages.new_classes import COUNT, NEW, OLD, linear_teacher, pixels, small, train


def test_logit_scale_loss():
    weights = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])
    assert logit_scale_loss(weights, 2).item() == pytest.approx((3 - 10) ** 2)
    assert logit_scale_loss(weights, 1).item() == pytest.approx((5 - 5.5) ** 2)


def test_align_scales_the_new_rows_alone():
    student = expand(linear_teacher(), NEW, 0)
    before = student[-1].weight.detach().clone()
    align(student, OLD)
    weight = student[-1].weight
    assert torch.equal(weight[:OLD], before[:OLD])
    factors = weight[OLD:] / before[OLD:]
    torch.testing.assert_close(factors, factors[:1, :1].expand_as(factors))
    assert logit_scale_loss(weight, OLD).item() == pytest.approx(0, abs=1e-20)
    assert logit_scale_loss(before, OLD).item() > 1e-5


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_expanded_network_keeps_its_old_outputs(name):
    teacher = freeze(small(name))
    student = expand(teacher, NEW, 0)
    assert all(module.training for module in student.modules())
    assert all(weights.requires_grad for weights in student.parameters())
    assert not any(weights.requires_grad for weights in teacher.parameters())
    images = pixels(3, channels=CLASSIFIERS[name].channels, size=32)
    logits = predict(student, images)
    assert logits.shape == (COUNT, OLD + NEW)
    torch.testing.assert_close(logits[:, :OLD], predict(teacher, images))  # a wider product may round otherwise
    for mine, known in zip(student.state_dict().values(), teacher.state_dict().values(), strict=True):
        assert torch.equal(mine[: len(known)] if known.dim() else mine, known)
    again, other = expand(teacher, NEW, 0), expand(teacher, NEW, 1)
    for one, same in zip(student.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, same)
        assert one.dim() != 4 or one.is_contiguous(memory_format=torch.channels_last)
    for one, another in list(zip(student.parameters(), other.parameters(), strict=True))[-2:]:
        assert torch.equal(one[:OLD], another[:OLD])
        assert not torch.equal(one[OLD:], another[OLD:])
    student(torch.rand(2, CLASSIFIERS[name].channels, 32, 32)).sum().backward()
    assert all(weights.grad is not None for weights in student.parameters())


def test_expanding_draws_from_no_global_generator():
    before = torch.get_rng_state()
    student = expand(linear_teacher(), NEW, 0)
    train(student, linear_teacher(), rule="new_outputs")
    assert torch.equal(torch.get_rng_state(), before)


class Named(nn.Module):
    """The last linear layer is an attribute of an attribute."""

    def __init__(self):
        super().__init__()
        self.head = nn.ModuleDict({"logits": nn.Linear(16, OLD, bias=False)})

    def forward(self, x):
        return self.head["logits"](x.flatten(1))


def test_the_last_layer_may_be_an_attribute_without_a_bias():
    teacher = Named().eval()
    student = expand(teacher, NEW, 0)
    images = pixels(3)
    torch.testing.assert_close(predict(student, images)[:, :OLD], predict(teacher, images))
    train(student, teacher, rule="new_outputs")
    torch.testing.assert_close(predict(student, images)[:, :OLD], predict(teacher, images))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("network", "new", "said"),
    [
        (lambda: torch.jit.script(nn.Sequential(nn.Linear(2, 2))), 1, "TorchScript"),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, 1)), 1, "Sequential has no linear layer"),
        (linear_teacher, 0, "0 new classes"),
    ],
)
def test_what_cannot_be_expanded_is_refused(network, new, said):
    with pytest.raises(UserError, match=said):
        expand(network(), new, 0)


def test_bank_logits_weigh_old_and_new_classes_alike():
    known = torch.tensor([[9.0, 9.0], [9.0, 9.0], [9.0, 9.0], [5.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    bank = bank_logits(known, torch.tensor([1, 0, 1]), new=2)
    probabilities = bank.softmax(1)
    assert probabilities[:3].tolist() == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert torch.equal(probabilities[3:, :2], known[3:].softmax(1))
    assert probabilities[3:, 2:].eq(0).all()
    assert balanced_soft_agreement(bank, bank) == 1
    forgetful = bank.clone()
    forgetful[3:] = torch.tensor([-1e4, -1e4, 0.0, -1e4])  # every old image is the first new class
    assert balanced_soft_agreement(forgetful, bank) == pytest.approx(0.5)
    stubborn = bank.clone()
    stubborn[0] = torch.tensor([0.0, -1e4, -1e4, -1e4])  # one of two images of the last of four classes is lost
    assert balanced_soft_agreement(stubborn, bank) == pytest.approx(1 - 0.5 / 4)


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 2], "2 is no label of 2"), ([-1], "-1 is no label"), ([0] * 4, "4 labels for a bank of 3")],
)
def test_bank_labels_that_do_not_fit_are_refused(labels, said):
    with pytest.raises(UserError, match=said):
        bank_logits(torch.zeros(3, OLD), torch.tensor(labels), 2)


def test_bank_without_new_images_and_of_new_images_alone():
    known = torch.randn(3, OLD)
    assert torch.equal(bank_logits(known, torch.empty(0, dtype=torch.int64), 2)[:, :OLD], known)
    assert bank_logits(known, torch.tensor([0, 1, 1]), 2).argmax(1).tolist() == [OLD, OLD + 1, OLD + 1]
