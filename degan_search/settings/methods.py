"""The one table of methods: what each one learns from, and which of its settings count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from degan_search.settings.combine import Combine, CombineConfig
from degan_search.settings.mosaic import MosaicConfig
from degan_search.settings.trial import IncrementalConfig, StudentConfig, TrialConfig, ZskdConfig
from degan_search.system.errors import UserError, close_matches

Rule = Literal["all", "new_outputs", "sigmoid"]
"""What is trained, and how. `all`: everything, by cross-entropy, over old and new classes where nothing is distilled
(finetuning), else over the new ones (proxy, DeGAN). `new_outputs`: the last layer's new rows alone (fixed
representation). `sigmoid`: everything, each class by a sigmoid of its own (LwF.MC as Rebuffi et al. 2017 train it)."""
Source = Literal["generator", "proxy", "true", "few_true", "zskd", "members", "mosaic", "nothing"]
UNTUNED = {"lambda_e": 0.0, "lambda_d": 0.0, "lambda_s": 0.0, "lambda_bn": 0.0}
"""The GAN's weights in methods that tune none."""


@dataclass(frozen=True)
class Method:
    """What a method distils from, and how."""

    source: Source
    """`generator`: a GAN's images; `few_true`: some true images of each class; `zskd`: images made from the teacher;
    `members`: the images of a search's best generators together; `mosaic`: those of a generator trained beside the
    student."""
    tuned: bool = False
    """Whether the GAN's lambdas count; else all are 0."""
    adversarial: bool = True
    """Whether the GAN has a discriminator."""
    matched: bool = False
    """For images: distilled for as many steps as from a generator, not for as many as in the released code."""
    rule: Rule | None = None
    """How new classes are learned (`IncrementalLearning`); None: the task `incremental` does not have this method."""
    distils: bool = True
    """Whether it is a method of the task `distillation`."""

    @property
    def generates(self) -> bool:
        """Whether it trains a generator first, for the student to learn from."""
        return self.source == "generator"

    @property
    def from_generators(self) -> bool:
        """Whether the student learns from the images of one generator or of several."""
        return self.source in ("generator", "members")


METHODS: dict[str, Method] = {
    "true": Method("true"),
    "true_matched": Method("true", matched=True),
    "few_shot": Method("few_true"),
    "few_shot_matched": Method("few_true", matched=True),
    "zskd": Method("zskd"),
    "zskd_matched": Method("zskd", matched=True),
    "finetuning": Method("nothing", rule="all", distils=False),
    "fixed_representation": Method("nothing", rule="new_outputs", distils=False),
    "lwf_mc": Method("nothing", rule="sigmoid", distils=False),
    "proxy": Method("proxy", rule="all"),
    "proxy_matched": Method("proxy", matched=True),
    "classifier_only": Method("generator", tuned=True, adversarial=False, rule="all"),
    "dcgan": Method("generator", rule="all"),
    "degan": Method("generator", tuned=True, rule="all"),
    "extended": Method("generator", tuned=True, rule="all"),
    "combined": Method("members"),
    "mosaic": Method("mosaic"),
}
"""In the order of tables. `extended` is `degan` with the settings that are not the paper's, for a row of its own."""
COMBINED = "combined"
WITHOUT_PROXY = tuple(name for name, method in METHODS.items() if method.source in ("true", "few_true", "zskd"))
"""Methods that use no proxy, so that their results are the same for every one."""
TUNED = tuple(name for name, method in METHODS.items() if method.tuned)
"""Methods whose weights of the GAN are searched."""


def method_of(config: TrialConfig) -> Method:
    """Return a trial's method.

    Raises:
        UserError: unknown, or none of the trial's task.
    """
    if config.method not in METHODS:
        raise UserError(f"method {config.method!r} is unknown; {close_matches(config.method, METHODS)}")
    method = METHODS[config.method]
    if not (method.rule if config.task == "incremental" else method.distils):
        fitting = [name for name, other in METHODS.items() if (other.rule if method.distils else other.distils)]
        raise UserError(f"method {config.method!r} is none of task {config.task!r}; its methods: {', '.join(fitting)}")
    return method


def normalised(config: TrialConfig) -> TrialConfig:
    """Return the configuration with unused settings at fixed values, so that equal trials have equal hashes.

    A student of the task `incremental` has the teacher's network.

    Raises:
        UserError: as `method_of`.
    """
    method, defaults = method_of(config), TrialConfig()
    incremental = config.task == "incremental"
    changes: dict[str, object] = {}
    if not method.tuned:
        changes["gan"] = config.gan.model_copy(update=UNTUNED)
        if method.source != "members":
            changes["distill"] = config.distill.model_copy(update={"mix_proxy": defaults.distill.mix_proxy})
    if incremental:
        changes["student"] = StudentConfig(network=config.teacher.network, width=config.teacher.width)
    else:
        changes["incremental"] = IncrementalConfig()
    if method.source != "zskd":
        changes["zskd"] = ZskdConfig()
    if method.source != "mosaic":
        changes["mosaic"] = MosaicConfig()
    if method.source != "few_true":
        changes["shots"] = defaults.shots
    if method.source != "members":
        given = config.combine.members if method.generates else ()
        changes["combine"] = CombineConfig(members=given)
    return config.model_copy(update=changes)


def trains_generator(config: TrialConfig) -> bool:
    """Return whether a trial trains a generator; a repeat of another trial is given that one's."""
    return METHODS[config.method].generates and not config.combine.members


def combined(best: TrialConfig, members: Sequence[str], early: Sequence[str], wanted: Combine) -> TrialConfig:
    """Return the configuration of a student of several generators, in all else as the best one's.

    Args:
        best: of the first of them.
        members: `combine.members`.
        early: `combine.early`.
        wanted: the rest.

    Raises:
        UserError: a task that learns new classes.
    """
    changes = {
        "method": COMBINED,
        "combine": CombineConfig(members=tuple(members), early=tuple(early), balance=wanted.balance),
        "distill": best.distill.model_copy(update={"mix_proxy": wanted.share}),
    }
    return normalised(best.model_copy(update=changes))
