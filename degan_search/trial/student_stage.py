"""The student of a trial: which images it learns from, and how."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from degan_search.data.images import split
from degan_search.settings.lengths import distill_config
from degan_search.settings.trial import DistillConfig
from degan_search.stages import incremental
from degan_search.stages.distillation import Distillation
from degan_search.stages.image_sources import AugmentedSource, ImageSource, MixedSource, Source
from degan_search.stages.incremental import IncrementalLearning
from degan_search.stages.mosaic import Mosaic
from degan_search.stages.recall import Recall, RecallFromGenerator, RecallFromNewImages
from degan_search.trial.context import TrialContext
from degan_search.trial.gan_stage import generated
from degan_search.trial.images import few_of_each, image_batch
from degan_search.trial.shared import Pair

StudentStage = Distillation | IncrementalLearning | Mosaic


def student_stage(trial: TrialContext, generator: nn.Module | None, made: Tensor | None) -> StudentStage:
    """Return the student's training from its beginning.

    Args:
        trial: says the task and the method.
        generator: trained, for methods that distil from one.
        made: images made from the teacher, for `zskd`.
    """
    if trial.config.task == "incremental":
        return _incremental(trial, generator)
    student = trial.untrained_student("student")
    if trial.method.source == "mosaic":
        return _mosaic(trial, student)
    config = distill_config(trial.config)
    return Distillation(student, _source(trial, generator, made, config), config, trial.context)


def _mosaic(trial: TrialContext, student: nn.Module) -> Mosaic:
    """Return the joint training of generator and student."""
    shared, config = trial.shared, trial.config
    proxy, (learned, _) = shared.proxy_of(trial.image_shape[1]), shared.proxy_parts()
    return Mosaic(student, trial.fast_teacher, proxy, learned, config.mosaic, config.gan, trial.context)


def _incremental(trial: TrialContext, generator: nn.Module | None) -> IncrementalLearning:
    """Return the training of the teacher grown by the new classes (Table 3)."""
    config, proxy = trial.config, trial.inputs.proxy
    assert trial.method.rule is not None, "check() has seen that the method is one of this task"
    return IncrementalLearning(
        incremental.expand(trial.teacher, len(proxy.classes), config.seed),
        trial.method.rule,
        trial.shared.moved(proxy.images[proxy.train]),
        trial.shared.moved(proxy.labels_of(proxy.train)),
        trial.teacher,
        _recall(trial, generator),
        config.incremental,
        trial.context,
    )


def _recall(trial: TrialContext, generator: nn.Module | None) -> Recall | None:
    config = trial.config
    if trial.method.source == "proxy":
        return RecallFromNewImages(trial.teacher)
    if generator is None:
        return None
    drawing = config.distill.model_copy(update={"batch_size": config.incremental.batch_size, "steps": None})
    rng = trial.context.generator("incremental", "recall")
    return RecallFromGenerator(generated(trial, generator, drawing), rng, config.distill.mix_proxy)


def _source(trial: TrialContext, generator: nn.Module | None, made: Tensor | None, config: DistillConfig) -> Source:
    source: Source
    if generator is not None:
        source = generated(trial, generator, config)
        if config.mix_proxy:
            real = max(1, round(config.mix_proxy * config.batch_size))
            source = MixedSource(source, _proxy_source(trial, real, config), config.mix_proxy)
    elif trial.method.source == "proxy":
        source = _proxy_source(
            trial, image_batch(trial.config, len(trial.inputs.proxy.images), trial.inputs.proxy.set_images), config
        )
    else:
        (train, held_out), logits = _images(trial, made)
        source = ImageSource(train, held_out, trial.teacher, config.batch_size, config, logits)
    return AugmentedSource(source, trial.fast_teacher, trial.context.precision) if config.augment else source


def _proxy_source(trial: TrialContext, batch: int, config: DistillConfig) -> ImageSource:
    return ImageSource(*trial.shared.proxy_parts(), trial.teacher, batch, config, trial.shared.proxy_logits)


def _images(trial: TrialContext, made: Tensor | None) -> tuple[Pair, Pair | None]:
    """Return the images that are distilled from and those held out, of methods without generator or proxy.

    Beside them are the teacher's logits, where trials share the images.
    """
    inputs, config, device = trial.inputs, trial.config, trial.context.device
    if trial.method.source == "true":
        return trial.shared.true_parts(), trial.shared.true_logits
    if made is None:
        train, labels = inputs.true_train, inputs.true_labels
        assert train is not None and labels is not None, "prepare() gives them for this method"
        made = torch.from_numpy(train[few_of_each(labels, config.shots, config.seed)])
    learned, kept = split(len(made), config.teacher.holdout, config.seed)
    return (made[learned].to(device), made[kept].to(device)), None
