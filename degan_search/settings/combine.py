"""Settings of a student that learns from finished generators of its run: from several at once, or from one again."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from degan_search.settings.values import Model

MOST = 64
Member = Annotated[str, Field(pattern=r"^search-[0-9]{4,9}@[0-9a-f]{16}$")]
"""A generator: its trial's id, and a hash of its file."""
Shares = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(max_length=8)]


def _listed(value: Any) -> Any:
    """Return a single number as a list of one."""
    return (value,) if isinstance(value, int | float) else value


class CombineConfig(Model):
    """The generators of a trial of method `combined`, each of which makes an equal share of its images.

    A trial of a method that trains a generator and names one here repeats the trial that trained it: its student learns
    from that generator, with another seed, and no GAN is trained.
    """

    members: Annotated[tuple[Member, ...], Field(max_length=MOST)] = ()
    """Of the same run, the best first."""
    balance: bool = False
    """Images are chosen so that the teacher sees each class about equally often."""
    shares: Shares = ()
    """Shares of proxy images in each batch that are tried, a student each, of which the best by the objective is kept.
    None: `distill.mix_proxy` alone."""


class Combine(Model):
    """Final runs of one student more, distilled from the images of a search's best generators together.

    The defaults are what docs/results/2026-11-28-choosing.md supports.
    """

    members: Annotated[int, Field(ge=2, le=MOST)] = 4
    """How many generators; fewer where fewer are kept, and no student for fewer than two."""
    balance: bool = True
    """As `combine.balance` of a trial."""
    share: Annotated[Shares, BeforeValidator(_listed), Field(min_length=1)] = (0.25,)
    """Of proxy images in each batch: one, or several that are tried, as `combine.shares` of a trial."""


def member(trial_id: str, data: bytes) -> str:
    """Return the name of a trial's generator with this file content, such as `search-0003@0123456789abcdef`."""
    return f"{trial_id}@{hashlib.sha256(data).hexdigest()[:16]}"


def trial_of(member: str) -> str:
    """Return the id of the trial whose generator this is."""
    return member.partition("@")[0]
