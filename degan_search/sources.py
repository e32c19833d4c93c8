"""Where distillation's images come from: an image set, or a generator. Each gives images with the teacher's logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from degan_search import runtime
from degan_search.checkpoint import Parts, Values
from degan_search.config import DistillConfig
from degan_search.data.images import augment, normalise
from degan_search.metrics import agreement, predict
from degan_search.networks.frozen import freeze

CHUNK = 512
EPOCH = 256
"""Batches that the released code calls an epoch of generated images."""
Batch = tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k"]]


class Source(Protocol):
    """Images in [-1, 1] with the teacher's logits for them."""

    steps_per_epoch: int

    def batches(self, rng: torch.Generator, parts: Parts | None = None) -> Iterator[Batch]:
        """Yield batches for ever.

        What they need to go on later is added to `parts`, but for `rng`: that is saved by whoever made it.
        """

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return the share of images not trained on where student and teacher agree, 0 to 1."""


class IndexBatches:
    """Batches of indices for ever: shuffled passes over `count`, the last batch of a pass smaller.

    A last batch of one image is left out, unless one is asked for: BatchNorm cannot train on it.
    """

    def __init__(self, count: int, batch: int, rng: torch.Generator) -> None:
        self.count, self.batch, self.rng = count, batch, rng
        self.fewest = min(count, batch, 2)
        self.left = torch.empty(0, dtype=torch.int64, device=rng.device)

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Int64[Tensor, " n"]:
        if len(self.left) < self.fewest:
            self.left = torch.randperm(self.count, generator=self.rng, device=self.rng.device)
        indices, self.left = self.left[: self.batch], self.left[self.batch :]
        return indices

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is left of the pass."""
        return {"left": self.left}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on in the pass that was saved."""
        self.left = state["left"].to(self.rng.device)


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
        self.train, self.held_out, self.batch_size = train, held_out, batch_size
        self.logits, self.held_out_logits = logits or (predict(teacher, train), predict(teacher, held_out))
        self.steps_per_epoch = config.steps_per_epoch or -(-len(train) // batch_size)

    def batches(self, rng: torch.Generator, parts: Parts | None = None) -> Iterator[Batch]:
        """Yield shuffled passes over the training images for ever."""
        parts = parts or Parts()
        for indices in parts.add("order", IndexBatches(len(self.train), self.batch_size, rng)):
            yield normalise(self.train[indices]), self.logits[indices]

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return agreement on the held-out images."""
        return agreement(predict(student, self.held_out), self.held_out_logits)


class GeneratorSource:
    """Images that a frozen copy of a generator makes from fresh noise, in large chunks, without gradients."""

    def __init__(
        self,
        generator: nn.Module,
        latent: int,
        teacher: nn.Module,
        config: DistillConfig | None = None,
        precision: runtime.Precision = "float32",
    ) -> None:
        self.generator, self.latent, self.teacher = freeze(generator, fold_norms=True), latent, teacher
        self.precision = precision
        self.config = config or DistillConfig()
        self.steps_per_epoch = self.config.steps_per_epoch or EPOCH

    @torch.no_grad()
    def make(self, count: int, rng: torch.Generator) -> Batch:
        """Return this many new images in [-1, 1] and the teacher's logits."""
        images, logits = [], []
        for start in range(0, count, CHUNK):
            z = torch.randn(min(CHUNK, count - start), self.latent, 1, 1, generator=rng, device=rng.device)
            with runtime.arithmetic(self.precision, str(rng.device)):
                images.append(self.generator(z))
                logits.append(self.teacher(images[-1]))
        return torch.cat(images), torch.cat(logits)

    def batches(self, rng: torch.Generator, parts: Parts | None = None) -> Iterator[Batch]:
        """Yield batches for ever, using each image 1 / `pool_refresh` times before its pool is made anew."""
        parts = parts or Parts()
        size, uses = pool_of(self.config)
        pool = parts.add("pool", Values(rng.device, images=None, logits=None, batches_left=0))
        order = parts.add("order", IndexBatches(size, self.config.batch_size, rng))
        while True:
            if not pool.batches_left:
                pool.images, pool.logits = self.make(size, rng)
                pool.batches_left = uses
            pool.batches_left -= 1
            indices = next(order)
            yield pool.images[indices], pool.logits[indices]

    @torch.no_grad()
    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return agreement on freshly generated images."""
        images, logits = self.make(self.config.score_images, rng)
        with runtime.arithmetic(self.precision, str(rng.device)):
            return agreement(torch.cat([student(chunk) for chunk in torch.split(images, CHUNK)]), logits)


def pool_of(config: DistillConfig) -> tuple[int, int]:
    """Return the images of a pool, whole batches, and the batches drawn from it before it is made anew.

    It has no more images than are used in all.
    """
    batches = max(1, min(config.pool // config.batch_size, config.steps or config.pool))
    return batches * config.batch_size, max(1, round(batches / config.pool_refresh))


class MixedSource:
    """Generated images with a share of proxy images in each batch (`mix_proxy`)."""

    def __init__(self, generated: GeneratorSource, images: ImageSource, share: float) -> None:
        self.generated, self.images, self.share = generated, images, share
        self.steps_per_epoch = generated.steps_per_epoch

    def batches(self, rng: torch.Generator, parts: Parts | None = None) -> Iterator[Batch]:
        """Yield batches for ever; each has at least one image of either kind."""
        parts = parts or Parts()
        generated = self.generated.batches(rng, parts.add("generated", Parts()))
        images = self.images.batches(rng, parts.add("images", Parts()))
        for (made, made_logits), (real, real_logits) in zip(generated, images, strict=False):
            mixed = max(1, min(len(made) - 1, len(real), round(self.share * len(made))))
            yield torch.cat([made[mixed:], real[:mixed]]), torch.cat([made_logits[mixed:], real_logits[:mixed]])

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return the agreement on freshly generated and on held-out images, weighted by their shares."""
        return (1 - self.share) * self.generated.score(student, rng) + self.share * self.images.score(student, rng)


class AugmentedSource:
    """The images of another source, cropped and mirrored at random; the teacher sees them so, too."""

    def __init__(self, source: Source, teacher: nn.Module, precision: runtime.Precision = "float32") -> None:
        self.source, self.teacher, self.precision = source, teacher, precision
        self.steps_per_epoch = source.steps_per_epoch

    def batches(self, rng: torch.Generator, parts: Parts | None = None) -> Iterator[Batch]:
        """Yield batches for ever."""
        for images, _ in self.source.batches(rng, parts):
            augmented = augment(images, rng)
            with torch.no_grad(), runtime.arithmetic(self.precision, str(rng.device)):
                logits = self.teacher(augmented)
            yield augmented, logits

    def score(self, student: nn.Module, rng: torch.Generator) -> float:
        """Return the other source's score, on images as they are."""
        return self.source.score(student, rng)
