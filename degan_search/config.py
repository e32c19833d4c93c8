"""What a trial is: frozen, validated models, and a stable hash of them. Every default is the paper's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from degan_search.errors import UserError

M = TypeVar("M", bound=BaseModel)
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0, le=10)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Model(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FitConfig(Model):
    """How every network but the GAN is trained: Adam at two learning rates, with patience, keeping the best.

    A phase ends after `patience` epochs without a better score, after `epochs` epochs, or when its share
    of `steps` is used up. The second phase starts from the best weights with a fresh Adam at lr x 0.1.
    """

    batch_size: Count = 64
    batch_of: Literal["used", "set"] = "used"
    """`set`: counted before class filtering, as in the released code, so that the batch shrinks with
    the subset's share of its image set."""
    steps_per_epoch: Count | None = None
    """Batches between two scores; None: one pass over the images."""
    lr: Rate = 1e-3
    beta1: Momentum = 0.9
    beta2: Momentum = 0.999
    epochs: Count = 1000
    patience: Count = 100
    steps: Count | None = None
    """Steps of both phases together, at most; None: no limit."""
    first_phase: Share = 0.75
    """Share of `steps` for the first learning rate."""


class TeacherConfig(Model):
    """The classifier that is given, and the true images it was trained on."""

    dataset: str = "cifar10"
    network: str = "alexnet"
    width: Count | None = None
    path: str | None = None
    """A teacher of the user's own: a state dict of `network` (.safetensors, .pt) or a TorchScript file."""
    count: Count | None = None
    """True training images used (before the 80/20 split); None: all."""
    holdout: Share = 0.2
    seed: Seed = 0
    fit: FitConfig = FitConfig()


class GanConfig(Model):
    """The DCGAN, the classifier's two losses, and its length (section 4.2 of the paper)."""

    lambda_e: Weight = 0.0
    lambda_d: Weight = 5.0
    width: Count = 64
    latent: Count = 100
    batch_size: Annotated[int, Field(ge=2)] = 2048
    batch_of: Literal["used", "set"] = "set"
    epochs: Count = 200
    steps: Count | None = None
    """Generator steps; None: `epochs` passes over the image set."""
    lr: Rate = 2e-4
    beta1: Momentum = 0.5
    beta2: Momentum = 0.999


class StudentConfig(Model):
    """The network that is distilled."""

    network: str = "alexnet_half"
    width: Count | None = None


class DistillConfig(FitConfig):
    """Distillation: temperature, and where it draws its images from a generator, how often each is used."""

    temperature: Annotated[float, Field(gt=0, le=1000)] = 20.0
    score_images: Count = 4096
    """Freshly generated images on which agreement picks the student's best weights."""
    reuse: Count = 1
    """Times a generated image is used before the pool is made anew; 1: fresh noise at each step."""
    pool: Count = 4096
    """Generated images held at a time, when reuse is above 1."""


class ProbeConfig(Model):
    """The rung score: a short distillation from the generator as it stands at some GAN steps."""

    at: tuple[Count, ...] = ()
    """GAN steps, ascending, after which the generator is probed; () for never."""
    steps: Count = 500
    batch_size: Count = 64
    lr: Rate = 1e-3

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.at) != sorted(set(self.at)):
            raise ValueError(f"probe.at must ascend without repeats, got {list(self.at)}")
        return self


class BankConfig(Model):
    """The fixed images on which students of different trials are compared without true data.

    Proxy images that no student trains on, and images from generators trained at a fixed grid of weights,
    balanced by the teacher's predicted class. Made once for each teacher and proxy.
    """

    proxy_images: Annotated[int, Field(ge=0)] = 2000
    generators: tuple[tuple[Weight, Weight], ...] = ((0.0, 0.0), (0.0, 5.0), (1.0, 5.0))
    """(lambda_e, lambda_d) of each generator; trained with the seed below, not with a trial's."""
    generated_images: Annotated[int, Field(ge=0)] = 1000
    """Images from each generator."""
    steps: Count | None = None
    """GAN steps of each; None: as a trial's."""
    seed: Seed = 10_007

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.proxy_images and not (self.generators and self.generated_images):
            raise ValueError("the bank has no images; raise bank.proxy_images, or give it generators")
        return self


class TrialConfig(Model):
    """One trial: a pure function of this gives the student."""

    method: str = "degan"
    proxy: str = "cifar100/related_90"
    count: Count | None = None
    """Proxy images used, drawn class-balanced; None: all."""
    seed: Seed = 0
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    gan: GanConfig = GanConfig()
    distill: DistillConfig = DistillConfig(beta1=0.5, epochs=5000, steps_per_epoch=256)
    distill_images: DistillConfig = DistillConfig(batch_size=2048, batch_of="set", epochs=5000)
    """Distillation from images rather than from a generator, as the released code budgets it."""
    objective: Literal[
        "balanced_soft_agreement",
        "balanced_agreement",
        "soft_agreement",
        "agreement",
        "holdout_agreement",
        "infomax",
        "snd",
        "mcc",
        "oracle_accuracy",
    ] = "balanced_soft_agreement"
    """What the search maximises. All but `oracle_accuracy` need no true data."""
    probe: ProbeConfig = ProbeConfig()
    bank: BankConfig = BankConfig()


def merge(base: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes laid over them, later ones winning.

    A key may be nested (`{"gan": {"steps": 5}}`) or dotted (`{"gan.steps": 5}`). Nothing is modified.
    """
    merged: dict[str, Any] = json.loads(json.dumps(base))
    for change in changes:
        for key, value in change.items():
            head, _, rest = key.partition(".")
            if rest:
                value = {rest: value}
            if isinstance(value, Mapping):
                below = merged.get(head)
                merged[head] = merge(below if isinstance(below, dict) else {}, value)
            else:
                merged[head] = value
    return merged


def trial_config(*settings: Mapping[str, Any]) -> TrialConfig:
    """Build a trial's configuration from settings laid over the paper's defaults, later ones winning.

    Raises:
        UserError: an unknown key or a value out of range, named with its place.
    """
    return parse(TrialConfig, merge(TrialConfig().model_dump(mode="json"), *settings))


def parse(model: type[M], values: Any, what: str = "configuration") -> M:
    """Validate values against a model, turning pydantic's list of errors into one message.

    Raises:
        UserError: each fault on one line: where, what value, what would be right.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            place = ".".join(str(part) for part in fault["loc"]) or what
            if fault["type"] == "extra_forbidden":
                faults.append(f"unknown key {place!r} (known here: {', '.join(_known(model, fault['loc']))})")
            else:
                faults.append(f"{place} = {fault['input']!r}: {fault['msg']}")
        raise UserError(f"{what}: " + "; ".join(faults)) from None


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of each leaf of nested settings."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def stable_hash(*parts: BaseModel | Mapping[str, Any] | str | int | None) -> str:
    """Return 16 hexadecimal digits that depend on the parts' values alone, not on process or key order."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return sorted(model.model_fields)
