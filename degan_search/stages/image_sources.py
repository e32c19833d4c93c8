"""Where distillation's images come from: an image set, or a generator. Each gives images with the teacher's logits."""

from __future__ import annotations

from collections.abc import Callable
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

    def batches(self, rng: torch.Generator) -> Batches:
        """Return an endless series of batches, drawn with `rng`."""

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return the share of images not trained on where student and teacher agree, 0 to 1."""


class ImageSource:
    """Images of a set on the device; the teacher's logits are computed once, as no image is augmented.

    `logits`: those of both parts, where they are known.
    """

    def __init__(
        self,
        train: UInt8[Tensor, "n c h w"],
        held_out: UInt8[Tensor, "m c h w"],
        teacher: nn.Module,
        batch_size: int,
        config: DistillConfig,
        logits: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.train, self.held_out, self.batch_size = train, held_out, min(batch_size, len(train))
        self.logits, self.held_out_logits = logits or (predict(teacher, train), predict(teacher, held_out))
        self.steps_per_epoch = config.steps_per_epoch or -(-len(train) // batch_size)

    def batches(self, rng: torch.Generator) -> ImageBatches:
        """Return endless shuffled passes over the training images."""
        return ImageBatches(self.train, self.logits, self.batch_size, rng)

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
    def make(self, count: int, rng: torch.Generator) -> Batch:
        """Return this many new images in [-1, 1] and the teacher's logits."""
        images, logits = [], []
        for start in range(0, count, CHUNK):
            z = torch.randn(min(CHUNK, count - start), self.latent, 1, 1, generator=rng, device=rng.device)
            with device.arithmetic(self.precision, str(rng.device)):
                images.append(self.generator(z))
                logits += [self.teacher(part) for part in torch.split(images[-1], self.at_once)]
        return torch.cat(images), torch.cat(logits)

    def batches(self, rng: torch.Generator) -> GeneratedBatches:
        """Return an endless series of batches; each image is used 1 / `pool_refresh` times, then new ones are made."""
        return GeneratedBatches(self, rng)

    @torch.no_grad()
    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return agreement on freshly generated images."""
        images, logits = self.make(self.config.score_images, rng)
        with device.arithmetic(self.precision, str(rng.device)):
            return agreement(torch.cat([student(part) for part in torch.split(images, self.at_once)]), logits)


class GeneratedBatches:
    """The batches of `GeneratorSource`, from a pool of images that is replaced after `pool_of`'s number of batches."""

    def __init__(self, source: GeneratorSource, rng: torch.Generator) -> None:
        self.source, self.rng = source, rng
        self.size, self.uses = pool_of(source.config)
        self.pool: Batch | None = None
        self.batches_left = 0
        self.order = IndexBatches(self.size, source.config.batch_size, rng)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self.pool is None or not self.batches_left:
            self.pool = None  # frees the old images before new ones are made
            self.pool, self.batches_left = self.source.make(self.size, self.rng), self.uses
        self.batches_left -= 1
        images, logits = self.pool
        indices = next(self.order)
        return images[indices], logits[indices]

    def state_dict(self) -> dict[str, Any]:
        """Return the pool and how far it has been used."""
        return {"pool": self.pool, "batches_left": self.batches_left, "order": self.order.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the pool that was saved."""
        if (pool := state["pool"]) is not None:
            pool = pool[0].to(self.rng.device), pool[1].to(self.rng.device)
        self.pool, self.batches_left = pool, state["batches_left"]
        self.order.load_state_dict(state["order"])


def pool_of(config: DistillConfig) -> tuple[int, int]:
    """Return how many images a pool has, and how many batches are drawn from it before it is replaced.

    The images fill whole batches, and are no more than the training uses.
    """
    batches = max(1, min(config.pool // config.batch_size, config.steps or config.pool))
    return batches * config.batch_size, max(1, round(batches / config.pool_refresh))


class MixedSource:
    """Generated images with a share of proxy images in each batch (`mix_proxy`)."""

    def __init__(self, generated: GeneratorSource, images: ImageSource, share: float) -> None:
        self.generated, self.images, self.share = generated, images, share
        self.steps_per_epoch, self.batch_size = generated.steps_per_epoch, generated.batch_size

    def batches(self, rng: torch.Generator) -> MixedBatches:
        """Return an endless series of batches; each has at least one generated and one proxy image."""
        return MixedBatches(self.generated.batches(rng), self.images.batches(rng), self.share)

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return the agreement on freshly generated and on held-out images, weighted by their shares."""
        return (1 - self.share) * self.generated.score(student, rng) + self.share * self.images.score(student, rng)


class MixedBatches:
    """The batches of `MixedSource`."""

    def __init__(self, generated: GeneratedBatches, images: ImageBatches, share: float) -> None:
        self.generated, self.images, self.share = generated, images, share

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        made, made_logits = next(self.generated)
        real, real_logits = next(self.images)
        mixed = max(1, min(len(made) - 1, len(real), round(self.share * len(made))))
        size = real.shape[2], real.shape[3]
        return torch.cat([resized(made[mixed:], size), real[:mixed]]), torch.cat(
            [made_logits[mixed:], real_logits[:mixed]]
        )

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

    def batches(self, rng: torch.Generator) -> AugmentedBatches:
        """Return an endless series of batches."""
        return AugmentedBatches(self.source.batches(rng), self.logits, rng)

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
