"""The settings of a trial: frozen, validated models.

Defaults are those of the paper, or of its released code where the paper gives none, with two exceptions: what only
makes a trial faster (`distill.pool_refresh`, `precision`, `accelerate`), and what the paper does not have (`probe`,
`bank`, `objective`, and settings that say so).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from degan_search.settings.bank import BankConfig
from degan_search.settings.combine import CombineConfig
from degan_search.settings.criteria import OBJECTIVES
from degan_search.settings.image_input import InputConfig
from degan_search.settings.mosaic import MosaicConfig
from degan_search.settings.values import (
    Batch,
    ClassNames,
    Count,
    HeldOut,
    ImageCount,
    Model,
    Momentum,
    Name,
    Rate,
    Seed,
    Share,
    Weight,
    Width,
)

TRAINED_ON = "cifar10"
"""True images where neither they nor a teacher's file are named: the paper's."""
ONNX = ".onnx"


class FitConfig(Model):
    """How every network but the GAN is trained, keeping the weights of the best score.

    `adam`: two learning rates, with patience. A phase ends after `patience` epochs without a better score,
    after `epochs` epochs, or when its share of `steps` is used up. The second phase starts from the best
    weights with a fresh Adam at lr x 0.1. `sgd`: momentum, to the last step; the learning rate is multiplied
    by `lr_factor` at each of `milestones`.
    """

    profile: Literal["paper", "sgd_augmented"] = "paper"
    """A name for several settings below (`PROFILES`); what is given beside it overrides it."""
    optimiser: Literal["adam", "sgd"] = "adam"
    augment: bool = False
    """Random crops out of 4 more pixels on each side, and horizontal flips."""
    weight_decay: Weight = 0.0
    momentum: Momentum = 0.9
    milestones: tuple[Share, ...] = ()
    """Shares of the whole length, ascending."""
    lr_factor: Rate = 0.1
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the whole length in which sgd's learning rate rises linearly to `lr`."""
    batch_size: Batch = 64
    batch_of: Literal["used", "set"] = "used"
    """`set`: counted before class filtering, as in the released code, so that the batch shrinks with
    the subset's share of its image set."""
    steps_per_epoch: Count | None = None
    """Batches between two scores; None: one pass over the images."""
    lr: Rate = 1e-3
    beta1: Momentum = 0.9
    beta2: Momentum = 0.999
    epochs: Count = 1000
    patience: Count = 101
    steps: Count | None = None
    """Steps of both phases together, at most; None: no limit."""
    first_phase: Share = 0.75
    """Share of `steps` for the first learning rate."""

    @model_validator(mode="after")
    def _ascending_milestones(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must ascend without repeats, got {list(self.milestones)}")
        return self


PROFILES: dict[str, dict[str, Any]] = {
    "sgd_augmented": {
        "optimiser": "sgd",
        "augment": True,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": [0.6, 0.75, 0.9],
        "lr_factor": 0.1,
        "epochs": 200,
    },
}
"""`sgd_augmented`: SGD with momentum, crops and flips, its rate x 0.1 at three milestones, as image classifiers are
commonly trained. It is not how MosaicKD distils (docs/paper.md). `paper` restores the default of each of its settings.
"""


class TeacherConfig(Model):
    """The classifier that is given, and the true images it was trained on, if they are there."""

    dataset: Name | None = None
    """True images, labelled. None: there are none, if the teacher is a file; else it is trained, on `TRAINED_ON`."""
    network: Name = "alexnet"
    """A name that `networks.table.build_classifier` knows: built in, torchvision/NAME, FILE.py:FUNCTION, FILE.onnx."""
    width: Width | None = None
    path: Name | None = None
    """A teacher of the user's own: a state dict of `network` (.safetensors, .pt), ONNX, or TorchScript if trusted."""
    input: InputConfig = InputConfig()
    classes: ClassNames | None = None
    """Names, a file with one a line, or how many; None: the true images', or as many as the teacher has outputs."""
    check: Name | None = None
    """A few labelled images, on which finished students are measured: nothing trains on them, and no search sees them
    unless `objective` is `check_accuracy`."""
    trusted: bool = False
    """Lets a TorchScript file at `path` run its own program, which can read and write files: trust its source."""
    count: ImageCount | None = None
    """True training images used (before the 80/20 split); None: all."""
    holdout: HeldOut = 0.2
    """Share of the true images, and of the proxy's, that nothing trains on. 0: there are none, which the task
    `incremental` alone can do without."""
    seed: Seed = 0
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    """`binary_cross_entropy`: a sigmoid for each class, as iCaRL trains."""
    fit: FitConfig = FitConfig()

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """An ONNX file is network and weights in one; a teacher that is no file is trained on true images."""
        if not isinstance(values, dict):
            return values
        network, path = values.get("network"), values.get("path")
        if isinstance(network, str) and network.endswith(ONNX) and path is None:
            values = values | {"path": network}
        elif isinstance(path, str) and path.endswith(ONNX):
            values = values | {"network": path}
        if values.get("dataset") is None and values.get("path") is None:
            values = values | {"dataset": TRAINED_ON}
        return values


class GanConfig(Model):
    """The DCGAN, the weights of its losses (0 turns one off), and its length (section 4.2 of the paper)."""

    lambda_e: Weight = 0.0
    lambda_d: Weight = 5.0
    lambda_s: Weight = 0.0
    """Not the paper's: the generator seeks images on which a student, trained beside it, differs from the teacher."""
    lambda_bn: Weight = 0.0
    """Not the paper's: generated images are drawn to the statistics that the teacher's BatchNorm layers keep."""
    width: Width = 64
    size: Literal[8, 16, 32, 64, 128, 256] | None = None
    """Height and width of the images that it makes; None: the largest power of two that the teacher's input holds, at
    most 128. The networks' own sizes may differ: images are resized on their way to them."""
    instance_noise: Annotated[float, Field(ge=0, le=1)] | None = None
    """Not the paper's: deviation of the noise on all that the discriminator sees, at the first step (Sønderby et al.
    2017); it falls to 0 at the last. None: 0 up to 32x32 pixels; 0.3 above, where without it the discriminator wins
    at once (docs/results/2026-11-28-gan-size.md)."""
    latent: Annotated[int, Field(ge=1, le=4096)] = 100
    batch_size: Annotated[int, Field(ge=2, le=2**16)] = 2048
    batch_of: Literal["used", "set"] = "set"
    epochs: Count = 200
    steps: Count | None = None
    """Generator steps; None: `epochs` passes over the image set."""
    lr: Rate = 2e-4
    beta1: Momentum = 0.5
    beta2: Momentum = 0.999


class StudentConfig(Model):
    """The network that is distilled."""

    network: Name = "alexnet_half"
    """As `teacher.network`, but no file of weights."""
    width: Width | None = None
    input: InputConfig = InputConfig()
    """What is not said is as the student's network says, then as the teacher's."""


class DistillConfig(FitConfig):
    """Distillation: its temperature, and how often each image from a generator is used."""

    temperature: Annotated[float, Field(gt=0, le=1000)] = 20.0
    score_images: ImageCount = 4096
    """Freshly generated images on which agreement picks the student's best weights."""
    pool_refresh: Annotated[float, Field(ge=1e-4, le=1)] = 0.0625
    """New images made for each generated image used: the pool is made anew once each of its images was used
    1 / pool_refresh times. 1: new images at each step, as in the paper. The default, 1/16, saves most of a step's time,
    and accuracy shows no difference (docs/results/2026-11-26-precision-and-pool.md)."""
    pool: ImageCount = 4096
    """Generated images held at a time."""
    mix_proxy: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Not the paper's: share of proxy images in each batch of generated ones, new classes' images among them."""


class ZskdConfig(Model):
    """Images made from the teacher alone: ZSKD, by its paper (Nayak et al. 2019)."""

    profile: Literal["paper", "released"] = "paper"
    """`released`: as its authors' code does (`ZSKD_PROFILES`, `ZskdSynthesis`), its student too: in batches of 64 with
    augmentation (`lengths.distill_config`). What is given beside it of the settings below overrides it."""
    images: ImageCount = 40_000
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], Field(min_length=1)] = (1.0, 0.1)
    """Scales of the Dirichlet's concentration; each gives an equal share of the images."""
    iterations: Count = 1500
    """Steps of each batch towards its targets."""
    batch_size: Batch = 1000
    lr: Rate = 0.01
    """Of pixels in [-1, 1]."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 20.0


ZSKD_PROFILES: dict[str, dict[str, Any]] = {"released": {"scales": [1.0, 1.0], "batch_size": 100, "lr": 0.002}}
"""In the released code the second scale has no effect, and the rate is 0.001 on pixels in [0, 1]."""


class IncrementalConfig(FitConfig):
    """Learning new classes without the old ones' images (section 5.2 of the paper, Table 3)."""

    optimiser: Literal["adam", "sgd"] = "sgd"
    augment: bool = True
    weight_decay: Weight = 2e-4
    milestones: tuple[Share, ...] = (0.24, 0.48, 0.72, 0.88)
    batch_size: Batch = 128
    lr: Rate = 0.1
    epochs: Count = 250
    temperature: Annotated[float, Field(gt=0, le=1000)] = 2.0
    distill_weight: Weight = 0.75
    """Of the distillation loss, which is itself multiplied by T^2: 3 in all, to 1 of the new classes' loss."""
    joint: bool = False
    """Not the paper's: the distillation loss also teaches that recalled images are of no new class, and the
    cross-entropy is over all classes. Of use where recalled images look like old classes, not like new ones."""
    scaling: Literal["none", "norms", "aligned"] = "norms"
    """What keeps the new classes' logits from outgrowing the old ones'. `norms`: the loss (mean norm of the old
    classes' weight rows - mean norm of the new ones')^2; `aligned`: the new rows scaled after training to the old
    ones' mean norm (Zhao et al. 2020)."""
    scale_weight: Weight = 1.0
    """Of the loss of `norms`."""


class ProbeConfig(Model):
    """Probes, which give a rung's score: a short distillation from the generator after some GAN steps."""

    at: tuple[Annotated[int, Field(ge=0, le=10**9)], ...] = ()
    """GAN steps, ascending, after which the generator is probed; () for never. At 0, where there is no generator yet,
    the probe distils from the proxy's training images, so that a poor proxy shows before its GAN begins."""
    steps: Count = 500
    batch_size: Batch = 64
    lr: Rate = 1e-3

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.at) != sorted(set(self.at)):
            raise ValueError(f"probe.at must ascend without repeats, got {list(self.at)}")
        return self


class TrialConfig(Model):
    """All settings of one trial; its student is a pure function of them."""

    task: Literal["distillation", "incremental"] = "distillation"
    """`incremental`: the teacher, of `teacher.dataset`'s classes, learns the proxy's classes as well (Table 3)."""
    method: Name = "degan"
    proxy: Name = "cifar100/related_90"
    proxy_fit: Literal["crop", "stretch"] = "crop"
    """How images of another shape become the teacher's: the shorter side is scaled and the middle cropped out, or each
    side is scaled by itself."""
    count: ImageCount | None = None
    """Proxy images used, drawn class-balanced; None: all."""
    count_is: Literal["exact", "most"] = "exact"
    """Whether a proxy of fewer images than `count` is refused, or gives all."""
    shots: ImageCount = 10
    """True images of each class, for the method `few_shot` alone."""
    seed: Seed = 0
    precision: Literal["auto", "float32", "tf32", "bf16"] = "auto"
    """Of GAN steps, probes and distillation (`device.precision_of`); teachers and scores are always float32."""
    accelerate: Literal["none", "graphs"] = "graphs"
    """On a GPU, how GAN and distillation steps are run: each recorded as a CUDA graph, which is several times as fast
    (docs/results/2026-11-26-gpu.md), or plain. On a CPU it has no effect."""
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    gan: GanConfig = GanConfig()
    distill: DistillConfig = DistillConfig(beta1=0.5, epochs=5000, steps_per_epoch=256)
    distill_images: DistillConfig = DistillConfig(batch_size=2048, batch_of="set", epochs=5000)
    """Distillation from images rather than from a generator, with the released code's batch and length."""
    zskd: ZskdConfig = ZskdConfig()
    mosaic: MosaicConfig = MosaicConfig()
    incremental: IncrementalConfig = IncrementalConfig()
    objective: Literal[*OBJECTIVES] = "balanced_soft_agreement"  # type: ignore[valid-type]
    """What the search maximises. All but `oracle_accuracy` and `check_accuracy` need no true data."""
    probe: ProbeConfig = ProbeConfig()
    bank: BankConfig = BankConfig()
    combine: CombineConfig = CombineConfig()
