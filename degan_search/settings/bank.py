"""The settings of the bank: the images on which all students are compared."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from degan_search.settings.values import Count, Model, Name, Seed, Weight


class BankConfig(Model):
    """The fixed images on which students of different trials are compared without true data.

    Proxy images that no student trains on, and images from generators trained at a fixed grid of weights,
    balanced by the teacher's predicted class. Made once for each teacher and proxy.
    """

    proxies: tuple[Name, ...] = ()
    """Proxies whose images make the bank, for trials that learn from one of them each: the settings below are then for
    each of these. (): the trial's own alone."""
    judges: tuple[Name, ...] = ()
    """Further sets of which the bank has held-out images, as many as of a proxy; no GAN is trained on them. None may
    hold the teacher's true images."""
    proxy_images: Annotated[int, Field(ge=0, le=2_500_000)] = 2000
    generators: tuple[tuple[Weight, Weight], ...] = ((0.0, 0.0), (0.0, 5.0), (1.0, 5.0))
    """(lambda_e, lambda_d) of each generator; trained with the seed below, not with a trial's."""
    generated_images: Annotated[int, Field(ge=0, le=2_500_000)] = 1000
    """Images from each generator."""
    steps: Count | None = None
    """GAN steps of each; None: as a trial's."""
    seed: Seed = 10_007

    @property
    def shared(self) -> bool:
        """Whether it has images of several sets, which may overlap."""
        return bool(self.proxies or self.judges)

    def compared_on(self, proxy: str) -> tuple[str, ...]:
        """Return the proxies whose images make the bank of a trial on this one."""
        return self.proxies or (proxy,)

    @model_validator(mode="after")
    def _none_twice(self) -> Self:
        for name, given in (("proxies", self.proxies), ("judges", self.judges)):
            if len(set(given)) < len(given):
                raise ValueError(f"bank.{name} must not hold one twice, got {list(given)}")
        return self

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.proxy_images and not (self.generators and self.generated_images):
            raise ValueError("the bank has no images; raise bank.proxy_images, or give it generators")
        return self
