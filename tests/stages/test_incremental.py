"""Learning new classes: losses written out in float64, what may move and what not, and lengths."""

import math

import pytest
import torch
from torch import Tensor

from degan_search.data.images import normalise
from degan_search.networks.frozen import freeze
from degan_search.stages.incremental import expand, logit_scale_loss
from degan_search.system.errors import UserError
from degan_search.training.loop import DivergedError
from tests.stages.new_classes import (
    COUNT,
    DISTILL_WEIGHT,
    LABELS,
    LR,
    NEW,
    OLD,
    SCALE_WEIGHT,
    TEMPERATURE,
    linear_teacher,
    pixels,
    small,
    train,
)


def log_softmax(logits: Tensor) -> Tensor:
    return logits - logits.exp().sum(1, keepdim=True).log()


def written_out(rule: str, recalled: Tensor | None, scaling: str, weight: Tensor, bias: Tensor) -> Tensor:
    """The loss of a linear student on `pixels(1)`, from the formulas alone."""
    teacher = linear_teacher()[-1]
    x = (pixels(1).double() / 127.5 - 1).float().double().flatten(1)
    logits = x @ weight.T + bias
    if rule == "sigmoid":
        targets = torch.zeros(COUNT, OLD + NEW, dtype=torch.float64)
        targets[:, :OLD] = 1 / (1 + (-(x @ teacher.weight.T + teacher.bias)).exp())
        targets[range(COUNT), OLD + LABELS] = 1
        sure = 1 / (1 + (-logits).exp())
        return -(targets * sure.log() + (1 - targets) * (1 - sure).log()).sum() / (COUNT * 100)  # iCaRL's outputs
    loss = -log_softmax(logits)[range(COUNT), OLD + LABELS].sum() / COUNT
    if recalled is not None:
        if rule == "all":
            loss = -log_softmax(logits[:, OLD:])[range(COUNT), LABELS].sum() / COUNT
        r = normalise(recalled).double().flatten(1)
        soft = log_softmax((r @ teacher.weight.T + teacher.bias) / TEMPERATURE)
        mine = (r @ weight.T + bias) / TEMPERATURE
        mine = log_softmax(mine if rule == "joint" else mine[:, :OLD])[:, :OLD]
        loss = loss + DISTILL_WEIGHT * TEMPERATURE**2 * (soft.exp() * (soft - mine)).sum() / len(r)
        if scaling == "norms":
            norms = weight.square().sum(1).sqrt()
            loss = loss + SCALE_WEIGHT * (norms[:OLD].sum() / OLD - norms[OLD:].sum() / NEW) ** 2
    return loss


@pytest.mark.parametrize(
    ("rule", "recalled", "scaling"),
    [
        ("all", None, "norms"),
        ("all", pixels(1), "norms"),
        ("all", pixels(2), "norms"),
        ("all", pixels(2, count=4), "norms"),
        ("all", pixels(2), "none"),
        ("joint", pixels(2), "norms"),
        ("new_outputs", None, "norms"),
        ("sigmoid", None, "norms"),
    ],
    ids=["finetuning", "proxy", "others", "fewer", "unscaled", "joint", "new_outputs", "sigmoid"],
)
def test_one_step_follows_the_gradient_of_the_loss(rule, recalled, scaling):
    teacher = linear_teacher()
    student = expand(teacher, NEW, 0)
    with torch.no_grad():
        student[-1].weight.mul_(1.5)  # else the old outputs' distillation has no gradient
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in student[-1].parameters())
    expected = written_out(rule, recalled, scaling, weight, bias)
    gradients = torch.autograd.grad(expected, (weight, bias))
    recall = None if recalled is None else lambda _: (normalise(recalled), teacher(normalise(recalled)))
    joint = rule == "joint"
    (progress,) = train(student, teacher, rule="all" if joint else rule, recall=recall, scaling=scaling, joint=joint)
    assert progress.loss == pytest.approx(expected.item(), rel=1e-6)
    for before, gradient, after in zip((weight, bias), gradients, student[-1].parameters(), strict=True):
        assert gradient[OLD:].abs().min() > 1e-6
        moved = before - LR * gradient
        if rule == "new_outputs":
            moved[:OLD] = before[:OLD]
        torch.testing.assert_close(after, moved, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("recalls", [True, False])
def test_norms_are_aligned_after_training_where_something_is_recalled(recalls):
    teacher = linear_teacher()
    weights = []
    for scaling in ("none", "aligned"):
        student = expand(teacher, NEW, 0)
        train(student, teacher, recall=(lambda x: (x, teacher(x))) if recalls else None, scaling=scaling)
        weights.append(student[-1].weight.detach())
    assert torch.equal(weights[0][:OLD], weights[1][:OLD])
    assert torch.equal(weights[0], weights[1]) != recalls
    assert math.isclose(logit_scale_loss(weights[1], OLD).item(), 0, abs_tol=1e-15) == recalls


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": LABELS + 1}, "2 is no label of 2 new classes; they are 0 to 1"),
        ({"labels": LABELS - 1}, "-1 is no label"),
        ({"rule": "sigmoid", "recall": lambda x: (x, x)}, "'sigmoid' does not use recalled images"),
        ({"rule": "new_outputs", "recall": lambda x: (x, x)}, "'new_outputs' does not use"),
    ],
)
def test_what_cannot_be_learned_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        train(expand(linear_teacher(), NEW, 0), linear_teacher(), **changes)


def test_a_student_that_is_not_expanded_is_refused():
    with pytest.raises(UserError, match="3 outputs; it needs more than the teacher's 3"):
        train(linear_teacher(), linear_teacher())


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(DivergedError, match="incremental: loss is nan"):
        train(
            expand(linear_teacher(), NEW, 0), linear_teacher(), recall=lambda x: (x, x.flatten(1)[:, :OLD] * math.nan)
        )


@pytest.mark.parametrize("name", ["alexnet", "resnet32"])
def test_new_outputs_moves_the_new_rows_alone(name):
    teacher = small(name)
    student = expand(teacher, NEW, 0)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    train(
        student, teacher, pixels(1, channels=3, size=32), rule="new_outputs", epochs=3, weight_decay=0.1, augment=True
    )
    after = student.state_dict()
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert moved == list(before)[-2:]
    assert any(key.endswith("running_var") for key in before)
    for key in moved:
        assert torch.equal(before[key][:OLD], after[key][:OLD])
        assert not torch.isclose(before[key][OLD:], after[key][OLD:]).any()


@pytest.mark.parametrize("rule", ["all", "sigmoid"])
def test_the_other_rules_move_everything_but_the_teacher(rule):
    teacher = freeze(small("alexnet"))
    student = expand(teacher, NEW, 0)
    kept = {key: value.clone() for key, value in teacher.state_dict().items()}
    before = {key: value.clone() for key, value in student.state_dict().items()}
    recall = (lambda x: (x, teacher(x))) if rule == "all" else None
    train(student, teacher, pixels(1, channels=3, size=32), rule=rule, recall=recall)
    after = student.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in before)
    assert all(torch.equal(value, teacher.state_dict()[key]) for key, value in kept.items())
    assert not any(module.training for module in student.modules())


def test_the_batch_itself_is_one_pass_and_other_images_are_one_pass_with_it():
    teacher = linear_teacher()
    seen, weights = [], []
    for recall in (lambda x: (x, teacher(x)), lambda x: (x.clone(), teacher(x))):
        student = expand(teacher, NEW, 0)
        student[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
        train(student, teacher, recall=recall, batch_size=4, epochs=2)
        weights.append(student[-1].weight)
    assert sorted(seen[:4]) == [2, 2, 4, 4]
    assert seen[4:] == [2 * count for count in seen[:4]]
    torch.testing.assert_close(weights[0], weights[1])


def test_recall_gets_the_batch_without_gradients_augmented_if_asked():
    teacher, images = linear_teacher(), pixels(1)
    for augmented in (False, True):
        got = []

        def recall(batch, got=got):
            got.append(batch)
            assert not torch.is_grad_enabled()
            return batch, teacher(batch)

        train(expand(teacher, NEW, 0), teacher, images, recall=recall, augment=augmented)
        same = {image.numpy().tobytes() for image in got[0]} == {image.numpy().tobytes() for image in normalise(images)}
        assert same != augmented


def test_the_same_seed_gives_the_same_bits():
    teacher = small("alexnet")
    states = []
    for seed, globally in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(globally)
        student = expand(teacher, NEW, 0)
        train(student, teacher, pixels(1, channels=3, size=32), seed=seed, batch_size=2, augment=True)
        states.append(torch.cat([value.flatten().double() for value in student.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("rule", ["all", "new_outputs", "sigmoid"])
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"steps": 7, "steps_per_epoch": 3, "epochs": 9}, [3, 6, 7]),
        ({"batch_size": 4, "epochs": 3}, [2, 4, 6]),
        ({"batch_size": 4, "epochs": 3, "steps": 5}, [2, 4, 5]),
    ],
)
def test_steps_and_epochs_are_obeyed(rule, changes, steps):
    progress = train(expand(linear_teacher(), NEW, 0), linear_teacher(), rule=rule, **changes)
    assert [(p.stage, p.step) for p in progress] == [("incremental", step) for step in steps]
