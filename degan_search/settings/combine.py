"""Settings of a student that learns from finished generators of its run: from several at once, or from one again."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field

from degan_search.settings.values import Model

MOST = 64
Member = Annotated[str, Field(pattern=r"^search-[0-9]{4,9}@[0-9a-f]{16}$")]
"""A generator: its trial's id, and a hash of its file."""


class CombineConfig(Model):
    """The generators of a trial of method `combined`, each of which makes an equal share of its images.

    A trial of a method that trains a generator and names one here repeats the trial that trained it: its student learns
    from that generator, with another seed, and no GAN is trained.
    """

    members: Annotated[tuple[Member, ...], Field(max_length=MOST)] = ()
    """Of the same run, the best first."""
    balance: bool = False
    """Images are chosen so that the teacher sees each class about equally often."""
    early: Annotated[tuple[Member, ...], Field(max_length=MOST)] = ()
    """Further ones of the mixture: the generators of these trials after half of their steps, by the hashes of those
    files."""


class Combine(Model):
    """Final runs of one student more, distilled from the images of a search's best generators together.

    The defaults are what docs/results/2026-11-29-combined.md supports.
    """

    members: Annotated[int, Field(ge=2, le=MOST)] = 4
    """How many generators; fewer where fewer are kept, and no student for fewer than two."""
    balance: bool = True
    """As `combine.balance` of a trial."""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Of proxy images in each batch, as `distill.mix_proxy` of a trial."""
    early: bool = True
    """Whether their states after half of their steps make images, too, as `combine.early` of a trial."""


def member(trial_id: str, data: bytes) -> str:
    """Return the name of a trial's generator with this file content, such as `search-0003@0123456789abcdef`."""
    return f"{trial_id}@{hashlib.sha256(data).hexdigest()[:16]}"


def trial_of(member: str) -> str:
    """Return the id of the trial whose generator this is."""
    return member.partition("@")[0]
