"""After a search: how each student agrees with the teacher on the images of all other trials' generators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from degan_search.data.images import denormalise
from degan_search.networks.front import resized
from degan_search.settings.criteria import Needs, in_ledger
from degan_search.stages.image_sources import GeneratorSource
from degan_search.system import seeds
from degan_search.system.console import Count
from degan_search.training.measures import measure, predict

OWN_IMAGES = 1024
"""Images of its own generator on which a student's own agreement is measured."""
POOL = 4096
"""Generated images on which students are compared, an equal share from each generator."""

Scores = dict[str, float]


@dataclass(frozen=True, eq=False)
class Competitor:
    """A trial's networks; trials that distil from images have no generator.

    A repeat leaves the generator, on whose images it is not judged either, to the trial that it repeats.
    """

    trial_id: str
    student: nn.Module
    generator: nn.Module | None
    latent: int
    seed: int
    repeats: str | None = None
    """The trial whose generator its student learned from; None: its own."""


def agreements(
    competitors: Iterable[Competitor],
    held_out: UInt8[Tensor, "n c h w"],
    teacher: nn.Module,
    count: Count | None = None,
) -> dict[str, Scores]:
    """Return by trial its `own_agreement`, `cross_agreement` and `cross_soft_agreement`, each in 0..1.

    The first is DeGAN's own rule (section 5.1): agreement on freshly generated images of the trial's own
    generator; it rewards a generator whose images are all alike, and cannot compare two. The others are
    balanced agreement and balanced soft agreement on held-out proxy images and as many images from each
    trial's generator, those of the own one left out, so that no student is judged on what it was taught with.

    Args:
        competitors: all finished trials of a search on one proxy.
        held_out: proxy images on which no student trained, on the device of all networks.
        teacher: frozen.
        count: of trials, where progress is shown.
    """
    competitors = list(competitors)

    def count_half() -> None:  # each trial comes twice: its own images, then the others'
        if count:
            count.add(0.5)

    share = max(1, POOL // max(1, sum(competitor.generator is not None for competitor in competitors)))
    own: dict[str, Scores] = {}
    device = held_out.device
    images, owner = [held_out], [torch.full((len(held_out),), -1, device=device)]
    places = {competitor.trial_id: index for index, competitor in enumerate(competitors)}
    for index, competitor in enumerate(competitors):
        count_half()
        own[competitor.trial_id] = _scores(Needs.OWN_GENERATOR, None)
        if competitor.generator is None:
            continue
        source = GeneratorSource(competitor.generator, competitor.latent, teacher)
        made, logits = source.make(OWN_IMAGES, seeds.generator(competitor.seed, "cross", device=str(device)))
        shown = denormalise(resized(made, (held_out.shape[2], held_out.shape[3])))
        own[competitor.trial_id] = _scores(Needs.OWN_GENERATOR, (predict(competitor.student, shown), logits))
        images.append(shown[:share])
        owner.append(torch.full((len(images[-1]),), index, device=device))
    pool, owners = torch.cat(images), torch.cat(owner)
    truth = predict(teacher, pool)
    scores: dict[str, Scores] = {}
    for competitor in competitors:
        others = owners != places.get(competitor.repeats or competitor.trial_id, -2)
        pair = (predict(competitor.student, pool[others]), truth[others]) if others.any() else None
        scores[competitor.trial_id] = own[competitor.trial_id] | _scores(Needs.OTHER_TRIALS, pair)
        count_half()
    return scores


def _scores(needs: Needs, logits: tuple[Tensor, Tensor] | None) -> Scores:
    """Return what is measured here with these needs, of a student's and the teacher's logits; NaN without them."""
    criteria = [criterion for criterion in in_ledger(after_search=True) if criterion.needs == needs]
    return {criterion.name: measure(criterion, *logits) if logits else nan for criterion in criteria}
