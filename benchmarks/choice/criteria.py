"""Candidates for the score: each takes a student's logits for the bench's images, and says how good the student is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from degan_search.system.errors import UserError
from degan_search.training import measures

SURE = 0.8
AGAINST = "against:"
"""Begins the source of images that were pushed away from what the student says; aim, steps and origin follow."""
AIMS = ("own", "given")
"""The class that these images are pushed towards: the one that the teacher predicts, or all in turn."""
STEPS = (1, 2, 5)
"""After so many steps these images are recorded."""


@dataclass(frozen=True)
class View:
    """Images that a criterion may look at, with the teacher's and one student's logits for them."""

    teacher: Tensor
    student: Tensor
    sources: np.ndarray
    """Of each image: a proxy or judge, a kind of mixture, or the trial whose generator made it."""
    typicality: Mapping[str, Tensor] = field(default_factory=dict)
    """Measures of how typical each image is for the teacher, as `probe` took them of held-out ones; else NaN."""

    def of(self, keep: np.ndarray | Tensor) -> View:
        """Return the view of some images."""
        mask = torch.as_tensor(keep)
        return View(
            self.teacher[mask],
            self.student[mask],
            self.sources[mask.numpy()],
            {name: values[mask] for name, values in self.typicality.items()},
        )

    @property
    def made(self) -> np.ndarray:
        """Whether a trial's generator made the image."""
        return np.char.startswith(self.sources, "search-")

    @property
    def mixed(self) -> np.ndarray:
        """Whether the image was made from held-out ones."""
        return np.isin(self.sources, ("mixup", "cutmix", "pushed")) | np.char.startswith(self.sources, AGAINST)

    @property
    def held_out(self) -> View:
        """Held-out images of proxies and judges."""
        return self.of(~self.made & ~self.mixed)

    def sure(self, least: float = SURE) -> View:
        """Images whose largest teacher probability is above `least`; all where there is none."""
        keep = self.teacher.softmax(1).amax(1) > least
        return self.of(keep) if keep.any() else self


Function = Callable[[View], float]


def soft(view: View) -> float:
    """Balanced soft agreement, today's measure."""
    return measures.balanced_soft_agreement(view.student, view.teacher)


def hard(view: View) -> float:
    """Balanced agreement."""
    return measures.balanced_agreement(view.student, view.teacher)


def each_source(view: View, function: Function) -> float:
    """Return the mean over sources, each counted once; all generators of a proxy's trials are one."""
    kinds = np.where(view.made, np.char.ljust(view.sources, len("search-00")).astype("U9"), view.sources)
    return float(np.mean([function(view.of(kinds == kind)) for kind in np.unique(kinds)]))


def _labels(view: View) -> list[int]:
    """Return the classes that the teacher predicts."""
    return sorted(set(view.teacher.argmax(1).tolist()))


def surest(view: View, per_class: int) -> View:
    """Return the images of which the teacher is surest, so many of each class that it predicts."""
    largest, predicted = view.teacher.softmax(1).max(1)
    keep = torch.zeros(len(largest), dtype=torch.bool)
    for label in _labels(view):
        places = (predicted == label).nonzero()[:, 0]
        keep[places[largest[places].argsort(descending=True)[:per_class]]] = True
    return view.of(keep)


def typical(view: View, share: float = 0.5) -> View:
    """Return the share of each predicted class that is most typical for the teacher, by energy (log-sum-exp)."""
    energy, predicted = view.teacher.logsumexp(1), view.teacher.argmax(1)
    keep = torch.zeros(len(energy), dtype=torch.bool)
    for label in _labels(view):
        places = (predicted == label).nonzero()[:, 0]
        keep[places[energy[places].argsort(descending=True)[: max(1, int(share * len(places)))]]] = True
    return view.of(keep)


def correlation(view: View) -> float:
    """Return the mean correlation of centred logits, each class that the teacher predicts counted once."""
    student, teacher = (part.double() - part.double().mean(1, keepdim=True) for part in (view.student, view.teacher))
    each = torch.nn.functional.cosine_similarity(student, teacher)
    return float(np.mean([each[view.teacher.argmax(1) == label].mean() for label in _labels(view)]))


def sureness(view: View) -> Tensor:
    """Return how sure the teacher is of each image, its largest probability above chance."""
    return view.teacher.double().softmax(1).amax(1).sub(1 / view.teacher.shape[1]).clamp_min(1e-6)


def typical_weights(measure: str, view: View) -> Tensor:
    """Return weights by how typical each image is for the teacher: exp of the measure, standardised.

    Raises:
        UserError: the teacher does not give the measure.
    """
    values = view.teacher.logsumexp(1) if measure == "energy" else view.typicality.get(measure)
    if values is None or values.isnan().any():
        raise UserError(f"no {measure} was taken of these images")
    values = values.double()
    return torch.exp((values - values.mean()) / values.std())


def weighted(view: View, weigh: Callable[[View], Tensor]) -> float:
    """Soft agreement weighted by image, in each class that the teacher predicts."""
    distance = (view.student.double().softmax(1) - view.teacher.double().softmax(1)).abs().sum(1) / 2
    weights, predicted = weigh(view), view.teacher.argmax(1)
    return 1 - float(
        np.mean([(distance * weights)[predicted == k].sum() / weights[predicted == k].sum() for k in _labels(view)])
    )


def worst(view: View) -> float:
    """Soft agreement on images pushed against the student, of each the worst step of which the teacher is sure.

    Raises:
        UserError: there are none.
    """
    steps = np.array([source.split(":")[2] for source in view.sources])
    paths = [view.of(steps == step) for step in np.unique(steps)]
    if not paths:
        raise UserError("no image was pushed against the student")
    sure = torch.stack([path.teacher.softmax(1).amax(1) > measures.SURE for path in paths])
    distance = torch.stack([(path.student.softmax(1) - path.teacher.softmax(1)).abs().sum(1) / 2 for path in paths])
    worst_step = distance.where(sure, -1).argmax(0)
    images = torch.arange(len(worst_step))
    student, teacher = (
        torch.stack([getattr(p, who) for p in paths])[worst_step, images] for who in ("student", "teacher")
    )
    kept = sure.any(0)
    return measures.balanced_soft_agreement(student[kept], teacher[kept])


def nuclear(view: View) -> float:
    """Return the nuclear norm of the student's probabilities (Deng et al. 2023), over its largest possible value."""
    outputs = view.student.double().softmax(1)
    return float(
        torch.linalg.matrix_norm(outputs, "nuc") / np.sqrt(outputs.numel() / outputs.shape[1] * min(outputs.shape))
    )


def mano(view: View) -> float:
    """Return MaNo's score (Xie et al. 2024): the normalised 4-norm of the student's softmax outputs."""
    return float(view.student.double().softmax(1).pow(4).mean() ** 0.25)


def transport(view: View) -> float:
    """Return minus COT's estimate with a uniform prior (Lu et al. 2023): cost of moving outputs to balanced classes."""
    from scipy.optimize import linear_sum_assignment

    outputs = view.student.double().softmax(1).numpy()
    outputs = outputs[:: -(-len(outputs) // 400)]  # exact transport grows with the cube of their number
    targets = np.arange(len(outputs)) % outputs.shape[1]
    cost = 1 - outputs[:, targets]
    rows, columns = linear_sum_assignment(cost)
    return -float(cost[rows, columns].mean())


def infomax(view: View) -> float:
    """InfoMax of the student."""
    return measures.infomax(view.student)


def on(part: Callable[[View], View], function: Function) -> Function:
    """Return a criterion on a part of the images."""
    return lambda view: function(part(view))


def _held(view: View) -> View:
    return view.held_out


def _sure(least: float, view: View) -> View:
    return view.held_out.sure(least)


def _surest(per_class: int, view: View) -> View:
    return surest(view.held_out, per_class)


def _pool(view: View) -> View:
    return view.of(~view.mixed)


def _kind(kind: str, view: View) -> View:
    return view.of(view.sources == kind)


def _against(kind: str, view: View) -> View:
    return view.of(np.char.startswith(view.sources, f"{AGAINST}{kind}:"))


def _sure_against(kind: str, view: View) -> View:
    return _against(kind, view).sure(measures.SURE)


CANDIDATES: Mapping[str, Function] = {
    "soft, held-out": on(_held, soft),
    **{f"soft, held-out, sure {least}": on(partial(_sure, least), soft) for least in (0.5, 0.7, 0.8, 0.9, 0.95)},
    "hard, held-out, sure 0.8": on(lambda view: view.held_out.sure(), hard),
    **{f"soft, held-out, surest {some} a class": on(partial(_surest, some), soft) for some in (10, 25, 50)},
    "soft, held-out, weighted by sureness": on(_held, partial(weighted, weigh=sureness)),
    **{
        f"soft, held-out, weighted by {measure.replace('_', ' ')}": on(
            _held, partial(weighted, weigh=partial(typical_weights, measure))
        )
        for measure in ("energy", "feature_norm", "norm_distance")
    },
    **{
        f"soft, held-out sure 0.5, weighted by {measure.replace('_', ' ')}": on(
            partial(_sure, 0.5), partial(weighted, weigh=partial(typical_weights, measure))
        )
        for measure in ("energy", "feature_norm", "norm_distance")
    },
    "soft, held-out, typical half": on(lambda view: typical(view.held_out), soft),
    "soft, held-out, typical quarter": on(lambda view: typical(view.held_out, 0.25), soft),
    "soft, held-out, each source once": on(_held, partial(each_source, function=soft)),
    "soft, held-out and generated": on(_pool, soft),
    "soft, held-out and generated, sure 0.8": on(lambda view: _pool(view).sure(), soft),
    "soft, held-out and generated, each source once": on(_pool, partial(each_source, function=soft)),
    "soft, held-out and generated, each source once, sure 0.8": on(
        lambda view: _pool(view).sure(), partial(each_source, function=soft)
    ),
    "soft, generated": on(lambda view: view.of(view.made), soft),
    "soft, generated, sure 0.8": on(lambda view: view.of(view.made).sure(), soft),
    "soft, mixup": on(partial(_kind, "mixup"), soft),
    "soft, cutmix": on(partial(_kind, "cutmix"), soft),
    "soft, cutmix, sure 0.8": on(lambda view: _kind("cutmix", view).sure(), soft),
    "soft, pushed": on(partial(_kind, "pushed"), soft),
    "soft, held-out and pushed, sure 0.8": on(
        lambda view: view.of(~view.made & (~view.mixed | (view.sources == "pushed"))).sure(), soft
    ),
    **{
        f"soft, pushed against the student, {aim} class, step {step}, sure 0.5": on(
            partial(_sure_against, f"{aim}:{step}"), soft
        )
        for aim, step in product(AIMS, STEPS)
    },
    **{f"soft, pushed against the student, {aim} class, worst sure": on(partial(_against, aim), worst) for aim in AIMS},
    "correlation, held-out": on(_held, correlation),
    "correlation, held-out, sure 0.8": on(lambda view: view.held_out.sure(), correlation),
    "correlation, held-out and generated": on(_pool, correlation),
    "InfoMax, held-out": on(_held, infomax),
    "nuclear norm, held-out": on(_held, nuclear),
    "MaNo, held-out": on(_held, mano),
    "COT, held-out": on(_held, transport),
}
"""By name. All but the last four compare the student with the teacher."""
