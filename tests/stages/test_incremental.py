"""Learning new classes: losses written out in float64, what may move and what not, and digits from end to end."""

import math

import pytest
import torch
from torch import Tensor, nn

from degan_search.data import proxies
from degan_search.data.images import normalise, to_input
from degan_search.networks.frozen import freeze
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.settings.trial import IncrementalConfig, TeacherConfig
from degan_search.stages import teacher as teachers
from degan_search.stages.incremental import IncrementalLearning, align, bank_logits, expand, logit_scale_loss
from degan_search.system.errors import UserError
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError, progress_of
from degan_search.training.measures import accuracy, balanced_soft_agreement, predict

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
        return -(targets * sure.log() + (1 - targets) * (1 - sure).log()).sum() / (COUNT * (OLD + NEW))
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


def small(name, classes=OLD):
    """A network of the table at a small width, its BatchNorms no longer at their first values."""
    network = CLASSIFIERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_classifier(name, classes, max(1, network.width // 16))
        with torch.no_grad():
            model(torch.rand(8, network.channels, 32, 32) * 2 - 1)
    return model.eval()


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


@pytest.fixture(scope="module")
def digits():
    """A LeNet that reads 0 to 4, its true images, and images of 5 to 9 with labels 0 to 4."""
    config = TeacherConfig(
        dataset="digits/[0-4]", network="lenet", fit={"steps": 200, "batch_size": 32, "lr": 3e-3, "steps_per_epoch": 50}
    )
    true = teachers.true_images(config, None)
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
        "lwf": {"rule": "sigmoid"},
    }
    length = {"batch_size": 32, "steps": 120, "epochs": 1000, "lr": 0.01, "momentum": 0.9, "distill_weight": 0.75}
    found = {}
    for name, changes in arms.items():
        student = expand(teacher, 5, 0)
        train(student, teacher, images, labels, **length, **changes)
        found[name] = read(student, digits)
    assert found["finetuning"][0] < 0.1
    assert found["finetuning"][1] > 0.9
    assert min(found[name][0] for name in ("proxy", "true", "joint", "lwf")) > 0.85
    assert found["joint"][1] > 0.9
    assert found["fixed"][1] < found["finetuning"][1] - 0.05
    both = {name: sum(accuracies) / 2 for name, accuracies in found.items()}
    assert both["finetuning"] + 0.15 < min(both["proxy"], both["true"])
    assert max(both["proxy"], both["true"]) + 0.05 < both["joint"]
