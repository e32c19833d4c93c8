"""Lists of proxies that a space file gives in short: unions of some sets, subsets of a set's classes."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from degan_search.data import proxies
from degan_search.data.sets import SUPERCLASSES
from degan_search.settings.resolve import parse
from degan_search.settings.values import Model, Name, Seed
from degan_search.system import seeds
from degan_search.system.errors import UserError

MOST_LISTED = 64
"""Subsets that are all taken: of more, as many as `draws` says are drawn."""


class _Subsets(Model):
    """Subsets of some units, whose sizes lie in a range."""

    size: tuple[int, int]
    """The fewest and the most units of a subset."""
    draws: Annotated[int | None, Field(ge=1, le=1000)] = None
    """So many different subsets, drawn at random: first a size, each as likely as another, then units; None: all."""
    seed: Seed = 0
    """Of that draw."""

    @abstractmethod
    def units(self) -> list[str]:
        """Return what subsets are made of."""

    @abstractmethod
    def named(self, units: list[str]) -> str:
        """Return the name of the proxy that a subset is."""

    def written_out(self) -> list[str]:
        """Return the subsets' names: all, small ones first, or those drawn, in the order of the draws.

        Raises:
            UserError: a size that no subset has, too many subsets, or fewer than `draws`.
        """
        units, (low, high) = self.units(), self.size
        if not 1 <= low <= high <= len(units):
            raise UserError(f"size = {[low, high]}: must be two ascending numbers from 1 to {len(units)}")
        possible = sum(math.comb(len(units), size) for size in range(low, high + 1))
        if self.draws is None and possible > MOST_LISTED:
            raise UserError(
                f"there are {possible:,} subsets of {low} to {high} of {len(units)}, and at most {MOST_LISTED} are all "
                "taken: say how many to draw, as in draws: 16, or narrow size"
            )
        if self.draws and self.draws > possible:
            raise UserError(f"draws = {self.draws}: there are only {possible} subsets of {low} to {high}")
        chosen = self._drawn(len(units), self.draws) if self.draws else self._all(len(units))
        return [self.named([units[one] for one in subset]) for subset in chosen]

    def _all(self, units: int) -> list[tuple[int, ...]]:
        low, high = self.size
        return [subset for size in range(low, high + 1) for subset in itertools.combinations(range(units), size)]

    def _drawn(self, units: int, draws: int) -> list[tuple[int, ...]]:
        rng = np.random.default_rng(seeds.stream_seed(self.seed, "proxy_subsets"))
        found: dict[tuple[int, ...], None] = {}
        while len(found) < draws:
            size = rng.integers(self.size[0], self.size[1] + 1)
            found[tuple(sorted(rng.choice(units, size, replace=False).tolist()))] = None
        return list(found)


class SubsetOf(_Subsets):
    """Unions of some of these proxies, such as glyphs/[K-Z]+photos."""

    subset_of: Annotated[list[Name], Field(min_length=1, max_length=100)]

    def units(self) -> list[str]:
        """Return the proxies.

        Raises:
            UserError: one is there twice.
        """
        if twice := [name for name in self.subset_of if self.subset_of.count(name) > 1]:
            raise UserError(f"subset_of: {twice[0]} is in the list twice; remove one")
        return self.subset_of

    def named(self, units: list[str]) -> str:
        """Return the name of a union."""
        return "+".join(units)


class ClassesOf(_Subsets):
    """Some classes of a labelled set, such as cifar100/[apple,bear]."""

    classes_of: Name
    superclasses: bool = False
    """Whether the units are CIFAR-100's superclasses, not its classes."""

    def units(self) -> list[str]:
        """Return the names of classes, or of the superclasses that the set has whole.

        Raises:
            UserError: no such set, or one whose classes are not known; no superclasses.
        """
        classes = proxies.classes_of(self.classes_of)
        if classes is None:
            raise UserError(
                f"classes_of: the classes of {self.classes_of} are not known before it is read: "
                "list some by subset_of, as in folder:PATH/[a]"
            )
        if not classes:
            raise UserError(f"classes_of: {self.classes_of} has no classes; subset_of takes sets without")
        if not self.superclasses:
            return list(classes)
        if whole := [name for name, inner in SUPERCLASSES.items() if set(inner.split()) <= set(classes)]:
            return whole
        raise UserError(f"superclasses: {self.classes_of} has none; cifar100 alone has")

    def named(self, units: list[str]) -> str:
        """Return the name of the set with classes in brackets."""
        return proxies.of_classes(self.classes_of, units)


KINDS: dict[str, type[_Subsets]] = {"subset_of": SubsetOf, "classes_of": ClassesOf}
"""The short forms, by the key that tells them."""


def written_out(given: Any) -> Any:
    """Return lists and ranges of a space file by setting, with the short forms of the proxy's list written out.

    Raises:
        UserError: a short form that has a fault, or of another setting.
    """
    if not isinstance(given, Mapping):
        return given
    return {name: _written_out(name, spec) for name, spec in given.items()}


def _written_out(name: str, spec: Any) -> Any:
    kind = next((kind for key, kind in KINDS.items() if isinstance(spec, Mapping) and key in spec), None)
    if kind is None:
        return spec
    if name != "proxy":
        raise UserError(f"{name}: {' and '.join(KINDS)} stand under proxy alone")
    return parse(kind, spec, name).written_out()
