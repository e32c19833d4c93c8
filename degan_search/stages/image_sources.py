"""Where distillation's images come from: an image set, or a generator. Each gives images with the teacher's logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from degan_search.data.images import augment, normalise
from degan_search.networks.front import resized
from degan_search.networks.frozen import freeze
from degan_search.networks.image_input import ImageInput
from degan_search.settings.trial import DistillConfig
from degan_search.system import device
from degan_search.training.batches import IndexBatches
from degan_search.training.measures import agreement, chunk_of, predict

CHUNK = 512
EPOCH = 256
"""Batches that the released code calls an epoch of generated images."""
Batch = tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k"]]


class Batches(Protocol):
    """An endless series of batches. Its state leaves out that of the random generator, which its maker saves."""

    def __iter__(self) -> Self: ...

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]:
        """Return what the series needs to go on later; the tensors are not copied."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


class Source(Protocol):
    """Images in [-1, 1] with the teacher's logits for them."""

    steps_per_epoch: int
    batch_size: int
    """Images of a whole batch; the last one of a pass over an image set has fewer."""

    def batches(self, rng: torch.Generator, with_logits: bool = True) -> Batches:
        """Return an endless series of batches, drawn with `rng`; without `with_logits` the logits are [n, 0]."""

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return the share of images not trained on where student and teacher agree, 0 to 1."""


class ImageSource:
    """Images of a set on the device; the teacher's logits are computed once, as no image is augmented.

    `known`: those of both parts, where others have computed them.
    """

    def __init__(
        self,
        train: UInt8[Tensor, "n c h w"],
        held_out: UInt8[Tensor, "m c h w"],
        teacher: nn.Module,
        batch_size: int,
        config: DistillConfig,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.train, self.held_out, self.batch_size = train, held_out, min(batch_size, len(train))
        self.teacher, self.known = teacher, known
        self.held_out_logits = known[1] if known else predict(teacher, held_out)
        self.steps_per_epoch = config.steps_per_epoch or -(-len(train) // batch_size)

    @cached_property
    def logits(self) -> Float[Tensor, "n k"]:
        """The teacher's logits for the training images, computed when first asked for."""
        return self.known[0] if self.known else predict(self.teacher, self.train)

    def batches(self, rng: torch.Generator, with_logits: bool = True) -> ImageBatches:
        """Return endless shuffled passes over the training images."""
        logits = self.logits if with_logits else no_logits(self.train)
        return ImageBatches(self.train, logits, self.batch_size, rng)

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return agreement on the held-out images."""
        return agreement(predict(student, self.held_out), self.held_out_logits)


class ImageBatches:
    """The batches of `ImageSource`."""

    def __init__(self, images: Tensor, logits: Tensor, batch_size: int, rng: torch.Generator) -> None:
        self.images, self.logits = images, logits
        self.order = IndexBatches(len(images), batch_size, rng)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        indices = next(self.order)
        return normalise(self.images[indices]), self.logits[indices]

    def state_dict(self) -> dict[str, Any]:
        """Return what is left of the pass."""
        return {"order": self.order.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the pass that was saved."""
        self.order.load_state_dict(state["order"])


class GeneratorSource:
    """Images that a frozen copy of a generator makes from fresh noise, in large chunks, without gradients."""

    def __init__(
        self,
        generator: nn.Module,
        latent: int,
        teacher: nn.Module,
        config: DistillConfig | None = None,
        precision: device.Precision = "float32",
    ) -> None:
        self.generator, self.latent, self.teacher = freeze(generator, fold_norms=True), latent, teacher
        self.precision = precision
        self.at_once = chunk_of(getattr(teacher, "takes", ImageInput()).size)
        self.config = config or DistillConfig()
        self.batch_size = self.config.batch_size
        self.steps_per_epoch = self.config.steps_per_epoch or EPOCH

    @torch.no_grad()
    def make(self, count: int, rng: torch.Generator, with_logits: bool = True) -> Batch:
        """Return this many new images in [-1, 1] and the teacher's logits; [n, 0] without `with_logits`."""
        images, logits = [], []
        for start in range(0, count, CHUNK):
            z = torch.randn(min(CHUNK, count - start), self.latent, 1, 1, generator=rng, device=rng.device)
            with device.arithmetic(self.precision, str(rng.device)):
                images.append(self.generator(z))
                if with_logits:
                    logits += [self.teacher(part) for part in torch.split(images[-1], self.at_once)]
        made = torch.cat(images)
        return made, torch.cat(logits) if with_logits else no_logits(made)

    def batches(self, rng: torch.Generator, with_logits: bool = True) -> GeneratedBatches:
        """Return an endless series of batches; each image is used 1 / `pool_refresh` times, then new ones are made."""
        return GeneratedBatches(self, rng, self.batch_size, with_logits)

    @torch.no_grad()
    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return agreement on freshly generated images."""
        images, logits = self.make(self.config.score_images, rng)
        with device.arithmetic(self.precision, str(rng.device)):
            return agreement(torch.cat([student(part) for part in torch.split(images, self.at_once)]), logits)


class GeneratedBatches:
    """The batches of `GeneratorSource`, from a pool of images that is replaced once they are used as `pool_of` says."""

    def __init__(self, source: GeneratorSource, rng: torch.Generator, batch: int, with_logits: bool) -> None:
        self.source, self.rng, self.batch, self.with_logits = source, rng, batch, with_logits
        self.size, self.uses = pool_of(source.config, batch)
        self.pool: Batch | None = None
        self.uses_left = 0
        self.order = torch.empty(0, dtype=torch.int64, device=rng.device)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return self.take(self.batch)

    def take(self, count: int) -> Batch:
        """Return the next images of shuffled passes over the pool."""
        if self.pool is None or self.uses_left < count:
            self.pool = None  # frees the old images before new ones are made
            self.pool, self.uses_left = self.source.make(self.size, self.rng, self.with_logits), self.uses
        self.uses_left -= count
        while len(self.order) < count:
            self.order = torch.cat([self.order, torch.randperm(self.size, generator=self.rng, device=self.rng.device)])
        indices, self.order = self.order[:count], self.order[count:]
        images, logits = self.pool
        return images[indices], logits[indices]

    def state_dict(self) -> dict[str, Any]:
        """Return the pool and how far it has been used."""
        return {"pool": self.pool, "uses_left": self.uses_left, "order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the pool that was saved."""
        if (pool := state["pool"]) is not None:
            pool = pool[0].to(self.rng.device), pool[1].to(self.rng.device)
        self.pool, self.uses_left = pool, state["uses_left"]
        self.order = state["order"].to(self.rng.device)


def pool_of(config: DistillConfig, batch: int) -> tuple[int, int]:
    """Return how many images a pool has, and how many are drawn from it before it is replaced.

    The images fill whole batches of so many, and are no more than the training uses.
    """
    batches = max(1, min(config.pool // batch, config.steps or config.pool))
    return batches * batch, max(1, round(batches / config.pool_refresh)) * batch


def no_logits(images: Tensor) -> Float[Tensor, "n 0"]:
    """Return what stands for the logits of images about which the teacher is not asked."""
    return torch.empty(len(images), 0, device=images.device)


class MixedSource:
    """Generated images with a share of proxy images in each batch (`mix_proxy`); no more are made than are needed."""

    def __init__(self, generated: GeneratorSource, images: ImageSource, share: float) -> None:
        self.generated, self.images, self.share = generated, images, share
        self.steps_per_epoch, self.batch_size = generated.steps_per_epoch, generated.batch_size

    def batches(self, rng: torch.Generator, with_logits: bool = True) -> MixedBatches:
        """Return an endless series of batches; each has a proxy image at least, and if it has two a generated one."""
        return MixedBatches(self, rng, with_logits)

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return the agreement on freshly generated and on held-out images, weighted by their shares."""
        return (1 - self.share) * self.generated.score(student, rng) + self.share * self.images.score(student, rng)


class MixedBatches:
    """The batches of `MixedSource`."""

    def __init__(self, source: MixedSource, rng: torch.Generator, with_logits: bool) -> None:
        self.batch_size = source.batch_size
        self.mixed = max(1, min(self.batch_size - 1, round(source.share * self.batch_size)))
        made = max(1, self.batch_size - self.mixed)
        self.generated = GeneratedBatches(source.generated, rng, made, with_logits)
        self.images = source.images.batches(rng, with_logits)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        real, real_logits = (part[: self.mixed] for part in next(self.images))
        if len(real) == self.batch_size:  # of one image
            return real, real_logits
        made, made_logits = self.generated.take(self.batch_size - len(real))  # more where a pass ends
        return torch.cat([resized(made, (real.shape[2], real.shape[3])), real]), torch.cat([made_logits, real_logits])

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generated and of the proxy images."""
        return {"generated": self.generated.state_dict(), "images": self.images.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.generated.load_state_dict(state["generated"])
        self.images.load_state_dict(state["images"])


class AugmentedSource:
    """The images of another source, cropped and mirrored at random; the teacher's logits are of the changed images."""

    def __init__(self, source: Source, teacher: nn.Module, precision: device.Precision = "float32") -> None:
        self.source, self.teacher, self.precision = source, teacher, precision
        self.steps_per_epoch, self.batch_size = source.steps_per_epoch, source.batch_size

    def batches(self, rng: torch.Generator, with_logits: bool = True) -> AugmentedBatches:
        """Return an endless series of batches; those of the other source come without logits."""
        return AugmentedBatches(self.source.batches(rng, False), self.logits if with_logits else no_logits, rng)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the teacher's logits."""
        with device.arithmetic(self.precision, str(images.device)):
            logits: Tensor = self.teacher(images)
        return logits

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return the other source's score, on images as they are."""
        return self.source.score(student, rng)


class AugmentedBatches:
    """The batches of `AugmentedSource`."""

    def __init__(self, batches: Batches, logits_of: Callable[[Tensor], Tensor], rng: torch.Generator) -> None:
        self.batches, self.logits_of, self.rng = batches, logits_of, rng

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        images, _ = next(self.batches)
        images = augment(images, self.rng)
        return images, self.logits_of(images)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the batches that are augmented."""
        return {"batches": self.batches.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.batches.load_state_dict(state["batches"])
