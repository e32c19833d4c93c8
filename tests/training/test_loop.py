"""The shared loop on one weight with known gradients: Adam moves it by the learning rate at each step."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from degan_search.settings.trial import FitConfig
from degan_search.training.loop import DivergedError, Fitting, progress_of

LR = 0.5


class Scripted:
    """A weight that starts at 0, gradients and scores from lists; records what it sees."""

    def __init__(self, scores, gradients=None):
        self.model = nn.Sequential(nn.Linear(1, 1, bias=False))
        nn.init.zeros_(self.model[0].weight)
        self.scores, self.gradients = iter(scores), iter(gradients or itertools.repeat(-1.0))
        self.modes, self.scored, self.losses = [], [], 0

    @property
    def weight(self):
        return self.model[0].weight.item()

    def loss(self):
        self.losses += 1
        self.modes.append(("loss", self.model.training))
        return next(self.gradients) * self.model[0].weight.sum()

    def score(self):
        self.modes.append(("score", self.model.training))
        self.scored.append(round(self.weight, 4))
        return next(self.scores)

    def run(self, steps_per_epoch=1, **config):
        return list(
            progress_of(
                Fitting(self.model, self.loss, self.score, FitConfig(lr=LR, **config), steps_per_epoch, "stage")
            )
        )


def test_patience_and_best_weights_in_both_phases():
    # Phase 1: best at the 2nd epoch, then two without. Phase 2 starts there at lr / 10: best at its 1st.
    it = Scripted([0.1, 0.3, 0.2, 0.3, 0.4, 0.4, 0.0])
    progress = it.run(patience=2)
    assert it.scored == [0.5, 1.0, 1.5, 2.0, 1.05, 1.1, 1.15]
    assert it.weight == pytest.approx(1.05, abs=1e-5)
    assert [p.score for p in progress] == [0.1, 0.3, 0.3, 0.3, 0.4, 0.4, 0.4]
    assert [p.step for p in progress] == [1, 2, 3, 4, 5, 6, 7]
    assert {(p.stage, p.of) for p in progress} == {("stage", None)}
    assert it.losses == 7


def test_the_papers_patience_ends_a_phase_after_101_epochs_without_a_better_score():
    it = Scripted(itertools.chain([1.0], itertools.repeat(0.0)))
    it.run()
    assert it.losses == 1 + 2 * 101  # `cnt > 100` in the released code
    assert it.weight == pytest.approx(0.5, abs=1e-5)


def test_nothing_better_in_the_second_phase_leaves_the_first_ones_best():
    it = Scripted([0.5, 0.1, 0.1, 0.1, 0.1])
    it.run(patience=2)
    assert it.scored[0] == 0.5
    assert it.weight == pytest.approx(0.5, abs=1e-5)


def test_the_second_phase_has_a_fresh_adam():
    # The gradient turns: with the first phase's moments the weight would go on upwards.
    it = Scripted([0.1, 0.2, 0.3, 0.4], gradients=[-1.0, -1.0, 1.0, 1.0])
    it.run(epochs=2)
    assert it.scored == [0.5, 1.0, 0.95, 0.9]


def test_epochs_limit_each_phase():
    it = Scripted(itertools.count())
    assert len(it.run(epochs=3)) == 6
    assert it.scored == [0.5, 1.0, 1.5, 1.55, 1.6, 1.65]


@pytest.mark.parametrize(
    ("steps", "per_epoch", "ends"),
    [(10, 3, [3, 6, 8, 10]), (1, 5, [1]), (4, 3, [3, 4]), (100, 30, [30, 60, 75, 100]), (2, 1, [1, 2])],
)
def test_steps_limit_both_phases_together(steps, per_epoch, ends):
    it = Scripted(itertools.count())
    progress = it.run(per_epoch, steps=steps)
    assert [p.step for p in progress] == ends
    assert it.losses == steps
    assert {p.of for p in progress} == {steps}


def test_patience_in_the_first_phase_leaves_its_steps_to_the_second():
    it = Scripted(itertools.chain([1.0, 0.0], itertools.count(2)))
    assert [p.step for p in it.run(2, steps=20, patience=1)][:3] == [2, 4, 6]
    assert it.losses == 20
    assert it.scored[1] - it.scored[0] == pytest.approx(2 * LR)
    assert it.scored[2] - it.scored[0] == pytest.approx(2 * LR / 10)


def test_train_mode_in_steps_and_eval_mode_in_scores_and_at_the_end():
    it = Scripted(itertools.count())
    it.run(2, steps=6)
    assert {mode for what, mode in it.modes if what == "loss"} == {True}
    assert {mode for what, mode in it.modes if what == "score"} == {False}
    assert not any(module.training for module in it.model.modules())


# SGD: with a gradient of -1 and no momentum the weight moves by the learning rate at each step.


def sgd(it, per_epoch=1, **config):
    return it.run(per_epoch, **{"optimiser": "sgd", "momentum": 0.0, "epochs": 10_000} | config)


def rates(it):
    return torch.tensor([0.0, *it.scored]).diff().tolist()


def test_the_learning_rate_rises_and_falls_at_shares_of_the_whole_length():
    it = Scripted(itertools.count())
    sgd(it, steps=20, warm_up=0.2, milestones=(0.5, 0.75), lr_factor=0.2)
    rising = [LR * part / 5 for part in (1, 2, 3, 4)]
    expected = [*rising, *[LR] * 6, *[LR * 0.2] * 5, *[LR * 0.04] * 5]
    assert rates(it) == pytest.approx(expected, abs=2e-4)


def test_a_milestone_in_the_warm_up_counts_too():
    it = Scripted(itertools.count())
    sgd(it, steps=10, warm_up=0.4, milestones=(0.2,), lr_factor=0.5)
    assert rates(it) == pytest.approx([0.1, 0.2, 0.15, 0.2, *[0.25] * 6], abs=2e-4)


def test_the_milestones_are_shares_of_epochs_where_steps_are_not_given():
    it = Scripted(itertools.count())
    sgd(it, 2, epochs=5, milestones=(0.6,))
    # 10 steps: six at the full rate, scored every second one.
    assert it.scored == pytest.approx([1.0, 2.0, 3.0, 3.1, 3.2])


def test_without_milestones_the_learning_rate_stays():
    it = Scripted(itertools.count())
    sgd(it, steps=6)
    assert rates(it) == pytest.approx([LR] * 6)


@pytest.mark.parametrize(
    ("steps", "epochs", "per_epoch", "ends"),
    [
        (10, 100, 4, [4, 8, 10]),
        (10, 2, 4, [4, 8]),
        (None, 3, 4, [4, 8, 12]),
        (12, 3, 4, [4, 8, 12]),
        (1, 9, 4, [1]),
        (None, 1, 1, [1]),
    ],
)
def test_sgd_ends_at_its_steps_or_epochs_whichever_is_first(steps, epochs, per_epoch, ends):
    it = Scripted(itertools.repeat(0.0))  # nothing ever gets better, and patience does not end it
    progress = sgd(it, per_epoch, steps=steps, epochs=epochs, patience=1)
    assert [p.step for p in progress] == ends
    assert it.losses == ends[-1]
    assert {p.of for p in progress} == {ends[-1]}


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_scores_choose_the_weights_and_without_them_the_last_stay(optimiser):
    settings = {"optimiser": optimiser, "momentum": 0.0, "epochs": 4, "milestones": ()}
    it = Scripted([0.1, 0.9, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0])
    it.run(**settings)
    assert it.weight == pytest.approx(1.0, abs=1e-5)
    last = Scripted([])
    progress = list(progress_of(Fitting(last.model, last.loss, None, FitConfig(lr=LR, **settings), 1, "stage")))
    end = 4 * LR * (1.1 if optimiser == "adam" else 1)
    assert last.weight == pytest.approx(end, abs=1e-5)
    assert len(progress) == last.losses == (8 if optimiser == "adam" else 4)
    assert not last.model.training
    assert {mode for _, mode in last.modes} == {True}


def test_momentum_and_decay_are_torchs():
    gradients, expected, weight, speed = [-1.0, 0.5, -2.0, -0.3, 1.0, -1.0], [], 0.0, 0.0
    for step, gradient in enumerate(gradients):
        speed = 0.9 * speed + gradient + 0.2 * weight
        weight -= LR * (0.1 if step >= 3 else 1) * speed
        expected.append(weight)
    it = Scripted(itertools.count(), gradients)
    sgd(it, steps=6, momentum=0.9, weight_decay=0.2, milestones=(0.5,))
    assert it.scored == pytest.approx(expected, abs=1e-4)

    network = nn.Linear(3, 2)
    twin = copy.deepcopy(network)
    images = torch.randn(4, 3)
    config = FitConfig(optimiser="sgd", lr=0.1, momentum=0.8, weight_decay=0.01, epochs=5)
    list(progress_of(Fitting(network, lambda: network(images).square().mean(), None, config, 1, "stage")))
    theirs = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.8, weight_decay=0.01)
    for _ in range(5):
        theirs.zero_grad()
        twin(images).square().mean().backward()
        theirs.step()
    for ours, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, other)


def test_adams_weight_decay_is_torchs():
    it, weight = Scripted(itertools.count()), torch.nn.Parameter(torch.zeros(1))
    it.run(epochs=3, weight_decay=5.0)
    theirs = torch.optim.Adam([weight], lr=LR, weight_decay=5.0)
    for step in range(3):
        weight.grad = torch.tensor([-1.0])
        theirs.step()
        assert it.scored[step] == pytest.approx(weight.item(), abs=1e-4)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_frozen_parameters_stay(optimiser):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    config = FitConfig(optimiser=optimiser, lr=0.1, weight_decay=0.5, steps=4, epochs=4)
    images = torch.ones(3, 2)
    list(progress_of(Fitting(model, lambda: model(images).square().sum(), None, config, 2, "stage")))
    assert all(torch.equal(model[0].state_dict()[name], before[f"0.{name}"]) for name in ("weight", "bias"))
    assert not torch.equal(model[1].weight, before["1.weight"])
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training(bad):
    it = Scripted(itertools.count(), gradients=[-1.0, -1.0, bad, -1.0, -1.0])
    with pytest.raises(DivergedError, match=r"stage: loss is (nan|inf) at step 4"):
        it.run(2, steps=10)
    assert it.losses == 4


def test_progress_carries_the_last_loss():
    it = Scripted([1.0, 2.0], gradients=[-1.0, -3.0])
    first, second = it.run(steps=2, first_phase=0.5)
    assert first.loss == 0
    assert second.loss == pytest.approx(-3 * 0.5, abs=1e-5)


def test_buffers_are_kept_with_the_best_weights():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    images = torch.arange(8.0)[:, None]
    scores, means = iter([1.0, 0.0, 0.0, 0.0]), []

    def score():
        means.append(model[1].running_mean.item())
        return next(scores)

    list(progress_of(Fitting(model, lambda: model(images).square().mean(), score, FitConfig(epochs=2), 1, "stage")))
    assert model[1].running_mean.item() == means[0] != means[1]
