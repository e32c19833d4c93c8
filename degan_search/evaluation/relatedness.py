"""How related a proxy is to the images a teacher was trained on, measured before anything is trained on the proxy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from degan_search.data import proxies as proxy_sets
from degan_search.data.images import ImageSet, normalise
from degan_search.evaluation.some_images import FEWEST, some_images
from degan_search.networks.batch_statistics import statistics_distance
from degan_search.networks.own import scripted
from degan_search.networks.takes import teacher_input
from degan_search.settings.criteria import Direction
from degan_search.settings.trial import TeacherConfig
from degan_search.stages import teacher as teachers
from degan_search.stages.true_images import true_images
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.measures import coverage, effective_classes, mean_entropy, predict

Features = Float[Tensor, "n d"]

SOME = 2000
"""Images, at most, for `bn_distance`, which needs no more, and for `mmd`, whose cost grows with their square."""
NEIGHBOURS = 5
ORDER = ("effective_classes", "coverage")
"""Measures by which proxies are ranked, the second where the first is equal. Neither needs true data."""


@dataclass(frozen=True, eq=False)
class View:
    """A set of images as the measures see it: the images, the teacher's outputs for them, and two feature spaces."""

    model: nn.Module
    images: UInt8[Tensor, "n c h w"]
    logits: Float[Tensor, "n k"]
    teacher: Features | None
    """The input of the teacher's last linear layer; None where there is none to look into, as in TorchScript."""
    random: Features
    """Of `random_network`, which knows neither the teacher nor any image."""


@dataclass(frozen=True)
class Measure:
    """How a measure is computed from the proxy's view and the true images', and which way means more related."""

    of: Callable[[View, View | None], float]
    direction: Direction
    space: str | None = None
    """The features, `teacher` or `random`, in which it compares with true images; None: it needs none. For
    analysis alone: there are no true images where a teacher comes without its data."""

    @property
    def true(self) -> bool:
        """Whether it needs true images."""
        return self.space is not None


def frechet(proxy: Features, true: Features) -> float:
    """Fréchet distance of two normal distributions fitted to the features, >= 0 (Heusel et al. 2017, equation 6).

    Too high for few images, so comparable between equal numbers alone.
    """
    metric = FrechetInceptionDistance(feature=_as_they_are(true))
    metric.update(true, real=True)
    metric.update(proxy, real=False)
    return max(0.0, float(metric.compute()))  # rounding may go below


def kid(proxy: Features, true: Features) -> float:
    """Kernel distance: unbiased squared MMD with a cubic kernel, mean over subsets (Bińkowski et al. 2018).

    About 0 for sets of one distribution, sometimes below it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it keeps all features, as it says: they are few here
        metric = KernelInceptionDistance(
            feature=_as_they_are(true), subsets=20, subset_size=min(1000, len(true), len(proxy))
        )
    metric.update(true, real=True)
    metric.update(proxy, real=False)
    with seeds.seeded(0, "relatedness", "kid"):
        return float(metric.compute()[0])


def mmd(proxy: Features, true: Features) -> float:
    """Unbiased squared MMD with a Gaussian kernel, about 0 to 2 (Gretton et al. 2012, equation 3).

    Its width is the median distance between true images, so that it is the same for every proxy.
    """
    first, second = _some(proxy).numpy(), _some(true).numpy()
    between = pairwise_distances(second)
    width = float(np.median(between[np.triu_indices_from(between, 1)]))
    gamma = 1 / max(2 * width**2, 1e-12)  # images all alike have no width

    def without_diagonal(values: np.ndarray) -> float:
        count = len(values)
        return float((rbf_kernel(values, gamma=gamma).sum() - count) / (count * (count - 1)))

    return without_diagonal(first) + without_diagonal(second) - 2 * float(rbf_kernel(first, second, gamma).mean())


def a_distance(proxy: Features, true: Features) -> float:
    """Proxy A-distance 2 (1 - 2 error) of a linear classifier of the two sets (Ben-David et al. 2007).

    0 where it cannot tell them apart (somewhat below by chance), 2 where it never errs; error by 5-fold
    cross-validation of a logistic regression, each set counting half.
    """
    features = torch.cat([proxy, true]).numpy()
    which = np.repeat([0, 1], [len(proxy), len(true)])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=200, tol=1e-3))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # far before it has converged, its errors no longer change
        right = cross_val_score(classifier, features, which, cv=folds, scoring="balanced_accuracy").mean()
    return float(2 * (1 - 2 * (1 - right)))


def recall(proxy: Features, true: Features) -> float:
    """Share of true images nearer to some proxy image than its fifth neighbour, in [0, 1] (Kynkäänniemi et al. 2019).

    Comparable between equal numbers of images alone.
    """
    given = proxy.numpy()
    radii = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(given).kneighbors()[0][:, -1]
    return float((pairwise_distances(true.numpy(), given) <= radii).any(axis=1).mean())


DISTANCES: dict[str, tuple[Callable[[Features, Features], float], Direction]] = {
    "frechet": (frechet, "min"),
    "kid": (kid, "min"),
    "mmd": (mmd, "min"),
    "a_distance": (a_distance, "min"),
    "recall": (recall, "max"),
}
"""What is measured between proxy and true images in each feature space."""


def _between(space: str, distance: Callable[[Features, Features], float]) -> Callable[[View, View | None], float]:
    def of(proxy: View, true: View | None) -> float:
        first, second = getattr(proxy, space), getattr(true, space, None)
        return nan if first is None or second is None else distance(first, second)

    return of


MEASURES: dict[str, Measure] = {
    "effective_classes": Measure(lambda proxy, _: effective_classes(proxy.logits), "max"),
    "coverage": Measure(lambda proxy, _: coverage(proxy.logits), "max"),
    "mean_entropy": Measure(lambda proxy, _: mean_entropy(proxy.logits), "min"),
    "bn_distance": Measure(lambda proxy, _: statistics_distance(proxy.model, normalise(_some(proxy.images))), "min"),
    **{
        f"{name}_{space}": Measure(_between(space, distance), direction, space)
        for space in ("teacher", "random")
        for name, (distance, direction) in DISTANCES.items()
    },
}
"""Every measure; those of a teacher's features are NaN for TorchScript, `bn_distance` without BatchNorm."""


def relatedness(
    config: TeacherConfig,
    proxies: Sequence[tuple[str, int | None]],
    cache: Path,
    data_dir: Path | None = None,
    images: int = 5000,
    true: bool = False,
    device: str = "cpu",
    show: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Return one row a proxy, the most related first by `ORDER`: proxy, count, images, and MEASURES.

    Args:
        config: the teacher's; it is trained if it is not in the cache yet.
        proxies: (name, count) of each, the images that a trial with this `count` is given; None for all.
        cache: folder of trained teachers.
        data_dir: folder of the image sets.
        images: of each proxy, at most; balanced by class where there are classes.
        true: also measure what needs true images, against as many that the teacher was trained on; neither
            its held-out images nor the test split is used.
        device: where the networks run.
        show: is told what is being done.

    Raises:
        UserError: an unknown or too small proxy, before any training; data that are not there or do not fit.
    """
    tell = show or (lambda text: None)
    _check(proxies, images)
    given = []
    for name, count in proxies:
        tell(f"Loading {name}")
        most = images if count is None else min(images, count)
        given.append(some_images(name, most, data_dir, teacher_input(config)).images)
    if config.dataset:
        tell(f"Loading {config.dataset}")
    elif true:
        raise UserError("true images are asked for, and there are none: name them in teacher.dataset")
    truth = true_images(config, data_dir)
    teacher = teachers.obtain(config, truth, cache, lambda at: tell(f"Training the teacher, step {at.step}"), device)
    model, plain = teacher.model(device), random_network(teacher.takes.channels).to(device)
    learned = truth and ImageSet("true", truth.images, truth.labels, truth.classes).take(truth.train)
    known: dict[int, View] = {}
    rows = []
    for (name, count), loaded in zip(proxies, given, strict=True):
        tell(f"Measuring {name}")
        view = view_of(model, plain, loaded)
        size = min(len(loaded), len(learned)) if learned else len(loaded)
        if learned and true and size not in known:
            known[size] = view_of(model, plain, learned.sample(size, seed=0).images)
        values = {
            key: measure.of(view, known.get(size)) for key, measure in MEASURES.items() if true or not measure.true
        }
        rows.append({"proxy": name, "count": count, "images": len(loaded), **values})
    frame = pd.DataFrame(rows).astype({"count": "Int64"})
    upwards = [MEASURES[name].direction == "min" for name in ORDER]
    return frame.sort_values(list(ORDER), ascending=upwards, kind="stable", ignore_index=True)


def _check(proxies: Sequence[tuple[str, int | None]], images: int) -> None:
    if not proxies:
        raise UserError("no proxy given: at least one is needed")
    if images < FEWEST:
        raise UserError(f"images = {images}: {FEWEST} or more are needed")
    for name, _ in proxies:
        proxy_sets.check(name)


def view_of(model: nn.Module, plain: nn.Module, images: UInt8[np.ndarray, "n c h w"]) -> View:
    """Return what the measures see of images: `model` is the teacher, `plain` the random network."""
    on_device = torch.from_numpy(images).to(next(plain.parameters()).device)
    linear = [] if scripted(model) else [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    inputs: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in linear[-1:]]
    try:
        logits = predict(model, on_device)
    finally:
        for hook in hooks:
            hook.remove()
    features = torch.cat(inputs).double().cpu() if inputs else None
    return View(model, on_device, logits.cpu(), features, predict(plain, on_device).double().cpu())


def random_network(channels: int) -> nn.Module:
    """Return a small convolutional network with fixed random weights: images [N, channels, H, W] to [N, 128].

    A feature space that is the same for every proxy and every teacher and needs no download. Random networks
    compare sets of images that an ImageNet network was not made for better than that one does (Naeem et al.
    2020, section 3.3); pixels themselves would compare places in the image.
    """
    widths = (channels, 32, 64, 128)
    layers: list[nn.Module] = []
    with seeds.seeded(0, "relatedness", "random network"):
        for inputs, outputs in pairwise(widths):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
            nn.init.orthogonal_(convolution.weight, nn.init.calculate_gain("relu"))
            layers += [convolution, nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def _as_they_are(features: Features) -> nn.Module:
    """Return the network that torchmetrics asks for, which hands features through."""
    same = nn.Identity()
    same.register_buffer("num_features", torch.tensor(features.shape[1]))
    return same


def _some(rows: Tensor) -> Tensor:
    """Return at most SOME of the rows, whatever order they come in."""
    rng = seeds.generator(0, "relatedness", "some")
    return rows[torch.randperm(len(rows), generator=rng)[:SOME].to(rows.device)]
