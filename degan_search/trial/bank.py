"""The bank: fixed images on which the students of all trials are compared, made without any true image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from torch import Tensor, nn

from degan_search.data.images import denormalise, to_input
from degan_search.networks.front import resized
from degan_search.networks.frozen import freeze
from degan_search.settings import criteria
from degan_search.settings.bank import BankConfig
from degan_search.settings.criteria import Needs
from degan_search.settings.methods import UNTUNED
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import GanConfig
from degan_search.stages import gan
from degan_search.stages.gan_training import GanTraining
from degan_search.stages.image_sources import GeneratorSource
from degan_search.system import seeds
from degan_search.system.device import precision_of
from degan_search.system.weights_file import read_tensors, tensors_bytes
from degan_search.system.whole_files import write_bytes
from degan_search.training.context import Context
from degan_search.training.cuda_graph import acceleration_of
from degan_search.training.loop import DivergedError
from degan_search.training.measures import class_agreement, measure, predict

Images = UInt8[np.ndarray, "n c h w"]
RunAll = Callable[[list[Callable[[], Images]]], list[Images]]


class Compared(NamedTuple):
    """What the bank says of a student."""

    measures: dict[str, float]
    """By criterion."""
    class_agreement: tuple[float | None, ...]
    """For each of the teacher's classes; None where it predicts no image of the bank as that class."""


@dataclass(frozen=True)
class Bank:
    """Images on the device, and the teacher's logits for them."""

    images: UInt8[Tensor, "n c h w"]
    logits: Tensor
    proxy_images: int
    """The first so many are held-out proxy images; the others are generated."""

    def compare(self, student: nn.Module) -> Compared:
        """Return how far a student agrees with the teacher, each in 0..1, and how sure and varied its outputs are.

        `agreement` counts every image of the bank once, `balanced_agreement` every class that the teacher
        predicts; the soft forms compare probabilities rather than classes; `balanced_soft_agreement` is the
        default objective. `holdout_agreement` takes the proxy's images alone; so do `infomax`, `snd` and `mcc`,
        which look at the student alone. These are NaN where the bank has no proxy images.
        """
        logits = predict(student, self.images)
        held_out, teacher = logits[: self.proxy_images], self.logits[: self.proxy_images]
        found: dict[str, float] = {}
        for criterion in criteria.in_ledger(after_search=False):
            if criterion.needs == Needs.BANK:
                found[criterion.name] = measure(criterion, logits, self.logits)
            elif criterion.needs == Needs.HELD_OUT_PROXY:
                found[criterion.name] = measure(criterion, held_out, teacher) if self.proxy_images else nan
        return Compared(found, class_agreement(logits, self.logits))


def one_by_one(tasks: list[Callable[[], Images]]) -> list[Images]:
    """Run tasks in order and return their results."""
    return [task() for task in tasks]


def obtain(
    config: BankConfig,
    gan_config: GanConfig,
    proxy: Images,
    set_images: int,
    teacher: Callable[[str], nn.Module],
    size: int,
    key: str,
    cache: Path,
    device: str = "cpu",
    run_all: RunAll = one_by_one,
) -> Images:
    """Return the images that the bank has from its generators on a proxy; made once and cached.

    Args:
        config: sizes, and the weights of the generators.
        gan_config: the trials' GAN settings; the weights of its losses are those of `config.generators` instead.
        proxy: every proxy image, on which the generators train, as a trial's does.
        set_images: images of the proxy's set before class filtering.
        teacher: makes the frozen network on a device; TorchScript itself could not be sent to another process.
        size: height and width of generated images; in the bank they have those of the proxy.
        key: hash of the teacher and of the proxy's images.
        cache: folder of finished banks; a lock makes a second maker wait for the first.
        device: where the generators train.
        run_all: makes the generated parts, one after the other or side by side.
    """
    if not config.generators:
        return np.empty((0, *proxy.shape[1:]), np.uint8)
    # The same images, whatever else the bank has, and whatever a search tunes.
    config = config.model_copy(update={"proxies": (), "proxy_images": 0})
    gan_config = gan_config.model_copy(update=UNTUNED)
    precision = precision_of("auto", device)
    file = cache / f"{stable_hash(config, gan_config, key, set_images, precision, size)}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            parts = run_all(
                [
                    partial(_generate, gan_config, config, index, proxy, set_images, teacher, size, device)
                    for index in range(len(config.generators))
                ]
            )
            images = torch.from_numpy(np.concatenate(parts))
            write_bytes(file, tensors_bytes({"images": images}))
    return read_tensors(file.read_bytes(), str(file))["images"].numpy()


def _generate(
    gan_config: GanConfig,
    config: BankConfig,
    index: int,
    proxy: Images,
    set_images: int,
    make_teacher: Callable[[str], nn.Module],
    size: int,
    device: str,
) -> Images:
    """Train a generator with the weights at `index` of `config.generators`; returns its images, none if it fails."""
    lambda_e, lambda_d = config.generators[index]
    settings = gan_config.model_copy(
        update={"lambda_e": lambda_e, "lambda_d": lambda_d, "steps": config.steps or gan_config.steps}
    )
    images = torch.from_numpy(to_input(proxy, proxy.shape[1], (size, size), "stretch")).to(device)
    seed = seeds.stream_seed(config.seed, "bank", index)
    context = Context(seed, device, precision_of("auto", device), acceleration_of("graphs", device))
    teacher = make_teacher(device)
    networks = gan.build(settings, images.shape[1:], freeze(teacher, fold_norms=True), context)
    training = GanTraining(networks, images, set_images, context)
    try:
        while not training.done:
            training.step()
    except DivergedError:  # the other generators make the bank
        return np.empty((0, *proxy.shape[1:]), np.uint8)
    source = GeneratorSource(networks.generator, settings.latent, teacher, precision=context.precision)
    made, _ = source.make(config.generated_images, context.generator("bank", "noise"))
    height, width = proxy.shape[2:]
    return denormalise(resized(made, (height, width))).cpu().numpy()
