"""Measures of relatedness: known values, which way they point, and what they may see."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from degan_search.data import proxies as proxy_sets
from degan_search.evaluation import relatedness
from degan_search.evaluation.relatedness import DISTANCES, FEWEST, MEASURES, ORDER, random_network, view_of
from degan_search.evaluation.some_images import some_images
from degan_search.networks.image_input import ImageInput
from degan_search.networks.table import build_classifier
from degan_search.stages import teacher as teachers
from degan_search.stages.true_images import TrueImages
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.trial.images import load_proxy

PROXIES = [("noise/gaussian", None), ("digits", 300)]
BLIND = [name for name, measure in MEASURES.items() if not measure.true]


def normal(count, width, seed=0, mean=0.0):
    return torch.randn(count, width, generator=seeds.generator(seed), dtype=torch.float64) + mean


@pytest.fixture(scope="module")
def measure(tiny, teacher, store):
    """Measure PROXIES with the tiny trial's teacher."""

    def measured(proxies=PROXIES, images=200, **settings):
        return relatedness.relatedness(tiny().teacher, proxies, store, images=images, **settings)

    return measured


@pytest.fixture(scope="module")
def measured(measure):
    return measure(true=True).set_index("proxy")


class TestDistances:
    """What is measured between two sets of features."""

    @pytest.mark.parametrize("count", [40, 400])  # fewer and more than features
    def test_frechet_of_a_shift_is_its_square(self, count):
        features = normal(count, 64)
        assert relatedness.frechet(features + 0.5, features) == pytest.approx(64 * 0.25, rel=1e-3)

    def test_frechet_of_normal_distributions(self):
        # (sigma_1 - sigma_2)^2 in each dimension
        assert relatedness.frechet(3 * normal(20_000, 4, seed=1), normal(20_000, 4)) == pytest.approx(16, rel=0.05)

    def test_kid_is_the_unbiased_formula(self):
        first, second = normal(60, 5, seed=1).numpy(), normal(60, 5, mean=0.4).numpy()
        kernel = lambda a, b: (a @ b.T / 5 + 1) ** 3  # noqa: E731
        within = [(kernel(x, x).sum() - np.trace(kernel(x, x))) / (60 * 59) for x in (first, second)]
        expected = sum(within) - 2 * kernel(first, second).mean()
        assert relatedness.kid(torch.tensor(first), torch.tensor(second)) == pytest.approx(expected)

    def test_mmd_is_the_unbiased_formula(self):
        first, second = normal(30, 3, seed=1, mean=0.7), normal(40, 3)
        width = torch.pdist(second).quantile(0.5)
        kernel = lambda a, b: torch.exp(-(torch.cdist(a, b) ** 2) / (2 * width**2))  # noqa: E731
        within = [(kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1)) for x in (first, second)]
        expected = sum(within) - 2 * kernel(first, second).mean()
        assert relatedness.mmd(first, second) == pytest.approx(expected.item())

    def test_recall_is_the_share_within_the_fifth_neighbour(self):
        proxy = torch.arange(20, dtype=torch.float64)[:, None]  # the radius in the middle is 3: 1, 1, 2, 2, 3
        true = torch.tensor([[10.0], [9.5], [23.9], [40.0]], dtype=torch.float64)  # the last one's radius is 5
        assert relatedness.recall(proxy, true) == 0.75
        assert relatedness.recall(proxy, proxy) == 1

    def test_a_distance_runs_from_0_to_2(self):
        first, second = normal(300, 6), normal(300, 6, seed=1)
        assert abs(relatedness.a_distance(first, second)) < 0.3
        assert relatedness.a_distance(first + 9, second) == 2
        # Two normal distributions 2 apart in one dimension: the best line errs on 15.9%.
        shifted = first + torch.tensor([2.0, 0, 0, 0, 0, 0])
        assert relatedness.a_distance(shifted, second) == pytest.approx(2 * (1 - 2 * 0.159), abs=0.2)

    @pytest.mark.parametrize("name", DISTANCES)
    def test_far_is_farther_than_near(self, name):
        distance, direction = DISTANCES[name]
        values = [distance(normal(80, 8, seed=1, mean=mean), normal(80, 8)) for mean in (0, 1, 3)]
        assert values == sorted(values, reverse=direction == "max")
        assert values[0] != values[2]

    @pytest.mark.parametrize("name", DISTANCES)
    def test_same_bits_again_and_no_trace_in_the_global_generator(self, name):
        distance, _ = DISTANCES[name]
        before = torch.random.get_rng_state()
        values = {distance(normal(50, 8, seed=1), normal(50, 8)) for _ in range(2)}
        assert len(values) == 1
        assert (torch.random.get_rng_state() == before).all()

    @pytest.mark.parametrize("name", DISTANCES)
    def test_images_all_alike_give_a_number(self, name):
        distance, _ = DISTANCES[name]
        assert math.isfinite(distance(torch.zeros(FEWEST, 4).double(), torch.zeros(FEWEST, 4).double()))


class TestViews:
    """What the measures see."""

    def test_teacher_features_are_the_last_layer_s_input(self, true, teacher):
        model = teacher.model()
        images = np.concatenate([true.images, true.images])[:600]  # more than one batch
        view = view_of(model, random_network(1), images)
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        assert torch.allclose(last(view.teacher.float()), view.logits, atol=1e-5)
        assert view.random.shape == (600, 128)
        assert not last._forward_pre_hooks

    def test_random_network_is_always_the_same_and_leaves_the_generator(self):
        before = torch.random.get_rng_state()
        first, second = random_network(3), random_network(3)
        assert (torch.random.get_rng_state() == before).all()
        assert all((a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True))

    @pytest.mark.filterwarnings("ignore:.*torch.jit")
    def test_torchscript_and_no_norms_give_nan(self, true, teacher):
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(teacher.model().network), buffer)
        buffer.seek(0)
        model = torch.jit.load(buffer)
        views = [view_of(model, random_network(1), true.images[start:][:50]) for start in (0, 50)]
        blind = {name for name, measure in MEASURES.items() if math.isnan(measure.of(*views))}
        assert blind == {name for name in MEASURES if name.endswith("_teacher")} | {"bn_distance"}

    def test_bn_distance_of_the_images_that_made_the_statistics(self, true):
        model = build_classifier("alexnet_half", 10, 2, channels=1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = None  # the mean of all batches
        with torch.no_grad():
            for _ in range(3):
                model.train()(torch.from_numpy(true.images[:300]) / 127.5 - 1)
        model.eval()
        noise = np.random.default_rng(0).integers(0, 256, (300, 1, 32, 32), np.uint8)
        near, far = (
            MEASURES["bn_distance"].of(view_of(model, random_network(1), images), None)
            for images in (true.images[:300], noise)
        )
        assert near < far / 2


class TestRelatedness:
    """The whole of it, with a real teacher."""

    @pytest.mark.parametrize("name", [name for name in MEASURES if name != "bn_distance"])
    def test_true_images_are_more_related_than_noise(self, name, measured):
        values = measured[name]
        assert values.notna().all()
        assert (values["digits"] > values["noise/gaussian"]) == (MEASURES[name].direction == "max")

    def test_best_first_with_what_was_measured(self, measure):
        frame = measure()
        assert list(frame) == ["proxy", "count", "images", *BLIND]
        assert frame["proxy"].tolist() == ["digits", "noise/gaussian"]
        assert frame["images"].tolist() == [200, 200]
        assert frame["count"].fillna(0).tolist() == [300, 0]
        assert frame[ORDER[0]].is_monotonic_decreasing

    def test_images_are_those_of_a_trial_with_this_count(self, tiny):
        config = tiny({"proxy": "digits", "count": 300})
        expected = load_proxy(config, None).images
        assert (some_images("digits", 300, None, ImageInput(channels=1)).images == expected).all()

    def test_ranking_sees_no_true_image(self, measure, measured, true, teacher, monkeypatch):
        expected = measured[["count", "images", *BLIND]]
        blank = TrueImages(true.images * 0, true.labels * 0, true.classes, true.train, true.held_out)
        monkeypatch.setattr(relatedness, "true_images", lambda *_: blank)
        monkeypatch.setattr(teachers, "obtain", lambda *_: teacher)
        pd.testing.assert_frame_equal(measure().set_index("proxy"), expected)

    def test_only_images_that_the_teacher_learned_from_are_compared(self, measure, true, monkeypatch):
        parts, seen = [], []
        real_load, real_view = proxy_sets.load, relatedness.view_of
        monkeypatch.setattr(
            proxy_sets,
            "load",
            lambda name, part, *rest, **more: parts.append(part) or real_load(name, part, *rest, **more),
        )
        monkeypatch.setattr(relatedness, "view_of", lambda a, b, images: seen.append(images) or real_view(a, b, images))
        measure([("noise/uniform", None)], true=True)
        learned = {image.tobytes() for image in true.images[true.train]}
        compared = {image.tobytes() for image in seen[1]}
        assert len(seen[1]) == 200
        assert compared <= learned
        assert set(parts) == {"train"}

    @pytest.mark.parametrize(
        ("proxies", "settings", "message"),
        [
            ([("digits", None), ("digit", None)], {}, "did you mean digits"),
            ([], {}, "no proxy"),
            ([("digits", None)], {"images": 5}, f"images = 5: {FEWEST}"),
            ([("digits", 6)], {}, "6 images are too few"),
        ],
    )
    def test_bad_input_is_told_before_any_training(self, proxies, settings, message, measure, monkeypatch):
        monkeypatch.setattr(teachers, "obtain", lambda *_: pytest.fail("trained a teacher"))
        with pytest.raises(UserError, match=message):
            measure(proxies, **settings)
