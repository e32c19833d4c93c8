"""The bench for choosing, where the answer is known: what its criteria say, and how they are judged."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.choice import judge, together
from benchmarks.choice.criteria import AGAINST, STEPS, View, typical_weights, weighted, worst
from benchmarks.choice.probe import PUSH, against, feature_norms, norm_distances
from degan_search.system.errors import UserError

SURE_OF_0, SURE_OF_1, UNSURE = [5.0, 0.0], [0.0, 5.0], [0.1, 0.0]


def view(teacher, student, sources=None, **typicality):
    names = np.array(sources or ["photos"] * len(teacher))
    return View(torch.tensor(teacher), torch.tensor(student), names, typicality)


class TestTypicality:
    """How typical an image is for the teacher, and weights by it."""

    def test_what_is_said_of_typical_images_counts_more(self):
        teacher, student = [SURE_OF_0] * 3 + [SURE_OF_1], [SURE_OF_0, SURE_OF_1, SURE_OF_1, SURE_OF_1]
        good, bad = (torch.tensor(values) for values in ([9.0, 1, 1, 1], [1.0, 9, 9, 1]))
        seen = view(teacher, student, good=good, bad=bad)
        by = {name: weighted(seen, lambda v, name=name: typical_weights(name, v)) for name in ("good", "bad")}
        assert by["good"] > 0.85 and by["bad"] < 0.6

    def test_a_measure_that_the_teacher_does_not_give_is_refused(self):
        with pytest.raises(UserError, match="norm_distance"):
            typical_weights("norm_distance", view([SURE_OF_0], [SURE_OF_0], norm_distance=torch.tensor([torch.nan])))

    def test_the_feature_norm_is_of_what_the_last_linear_layer_takes(self):
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
        with torch.no_grad():
            network[1].weight.copy_(torch.eye(4))
        images = torch.tensor([[255] * 4, [255, 255, 0, 0], [0] * 4], dtype=torch.uint8).reshape(3, 1, 2, 2)
        assert feature_norms(network, images).tolist() == pytest.approx([2, 2**0.5, 0])
        assert norm_distances(network, images).isnan().all()

    def test_an_image_unlike_the_stored_statistics_is_far(self):
        network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 2)).eval()
        rng = torch.Generator().manual_seed(0)
        like = (127.5 + 60 * torch.randn(1, 1, 8, 8, generator=rng)).clamp(0, 255).to(torch.uint8)
        network[0].running_var.fill_(0.25)
        near, far = norm_distances(network, torch.cat([like, torch.full_like(like, 250)])).tolist()
        assert far > 4 * near


class TestPushedAgainst:
    """Images pushed towards a class on the teacher, away from it on the student."""

    def test_images_go_where_the_teacher_is_sure_and_the_student_disagrees(self):
        torch.manual_seed(0)
        teacher, student = (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval() for _ in range(2))
        images = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8)
        wanted = torch.arange(20) % 3
        first, *_, last = (made.float() / 127.5 - 1 for made in against(images, wanted, teacher, student))

        def said(network, pixels):
            return network(pixels).softmax(1)[torch.arange(20), wanted].mean()

        start = images.float() / 127.5 - 1
        assert said(teacher, start) < said(teacher, first) < said(teacher, last)
        assert said(student, start) > said(student, first) > said(student, last)
        assert (last - start).abs().max() <= max(STEPS) * (PUSH + 0.004)

    def test_of_each_image_the_worst_step_counts_of_which_the_teacher_is_sure(self):
        sources = [f"{AGAINST}own:{step}:photos" for step in (2, 8) for _ in range(2)]
        # The first image: sure at both steps, the student is wrong at the second. The other: sure at the first alone.
        teacher = [SURE_OF_0, SURE_OF_1, SURE_OF_0, [0.0, 0.0]]
        student = [SURE_OF_0, SURE_OF_1, SURE_OF_1, SURE_OF_0]
        assert worst(view(teacher, student, sources)) == pytest.approx(0.5, abs=0.01)
        with pytest.raises(UserError, match="no image was pushed"):
            worst(view([SURE_OF_0], [SURE_OF_0]).of(np.array([False])))


def trials(values, accuracies, seed=0, **more):
    names = [f"search-{place:04}" for place in range(len(values))]
    truth = {"accuracy": accuracies, "half_1": accuracies, "half_2": accuracies}
    return pd.DataFrame({"trial": names, "proxy": "photos", "seed": seed} | truth | more).assign(criterion=values)


TRUTH = np.linspace(0.2, 0.8, 8)
NOISE = np.array([0.06, -0.06] * 4)
"""Turns the two best round; half of it does not."""


class TestTogether:
    """Several students, and several criteria."""

    def test_two_students_whose_noise_cancels_choose_the_best(self):
        frame = pd.concat([trials(TRUTH + sign * NOISE, TRUTH, seed) for seed, sign in enumerate((1, -1, 0))])
        one, two = (together.of_students({"made": frame}, "criterion", number)[0] for number in (1, 2))
        assert two == pytest.approx(0) and one > 2
        assert not len(together.of_students({"made": frame[frame["seed"] == 0]}, "criterion", 1))

    def test_weights_go_to_the_criteria_that_tell_and_are_not_negative(self):
        frame = trials(TRUTH, TRUTH, against=-TRUTH, noise=NOISE)
        weights = together.fitted([frame, frame], ("noise", "against", "criterion"))
        assert max(weights, key=lambda name: weights[name]) == "criterion"
        assert "against" not in weights and min(weights.values()) > 0
        chosen = together.Judged("made", frame, weights)
        assert chosen.regret == pytest.approx(0) and chosen.rho > 0.9

    def test_a_task_is_judged_by_weights_that_never_saw_it(self):
        liar, honest = (trials(TRUTH, accuracies, noise=NOISE) for accuracies in (TRUTH[::-1], TRUTH))
        columns = dict.fromkeys((together.SINGLE, together.ACROSS_TRIALS), TRUTH)
        frames = {
            name: frame.assign(**columns)
            for name, frame in (("letters", honest), ("fashion_mnist", honest), ("numerals", liar), ("cifar10", honest))
        }
        table = together.ranks_table(frames, False, ("criterion", "noise")).set_index("judged on")
        assert table.loc["numerals", "mean regret"] == pytest.approx(60)  # the others' truth misleads here
        assert table.loc["numerals", "weights"].endswith("criterion")


class TestJudge:
    """What is judged, and where."""

    def test_a_criterion_is_judged_where_it_is_known(self, monkeypatch):
        monkeypatch.setattr(judge, "CANDIDATES", {"criterion": None})
        frames = {"a": trials(TRUTH, TRUTH), "b": trials([np.nan] * 8, TRUTH)}
        table = judge.judged(frames, across=False).set_index("chosen by")
        assert table.loc["criterion", "groups"] == 1 and table.loc["a random trial", "groups"] == 2
        assert table.loc["criterion", "rho"] == pytest.approx(1)

    def test_the_recorded_grids_are_judged_by_the_scores_that_they_have(self):
        table = judge.judged(judge.grids(), across=False)
        assert set(table["chosen by"]) == {"balanced_soft_agreement", "cross_soft_agreement", "a random trial"}
        assert (table["groups"] == 3).all()
