"""Class-incremental learning: a trained network learns new classes without the old ones' images (section 5.2)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from degan_search.networks.frozen import freeze
from degan_search.networks.layers import channels_last
from degan_search.networks.own import scripted
from degan_search.settings.methods import Rule
from degan_search.settings.trial import IncrementalConfig
from degan_search.stages.recall import Recall
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.batches import LabelledBatches
from degan_search.training.context import Context
from degan_search.training.fitted_stage import DROPOUT, FittedStage
from degan_search.training.loop import Fitting, Progress
from degan_search.training.losses import distillation_loss, sigmoid_loss

NEVER = -1e4
"""A logit so low that its probability is 0."""
STAGE = "incremental"
Images = Float[Tensor, "n c h w"]
Labels = Int64[Tensor, " n"]
Loss = Callable[[Images, Labels], Tensor]


def expand(teacher: nn.Module, new: int, seed: int) -> nn.Module:
    """Copy a network and widen its last linear layer by `new` outputs, with that layer's default first weights.

    The copy can be trained and is in train mode, channels_last; its first outputs are the teacher's.

    Raises:
        UserError: `new` is below 1, or the network is TorchScript or has no linear layer.
    """
    if new < 1:
        raise UserError(f"{new} new classes; there must be 1 or more.")
    old = _last(teacher)
    with seeds.seeded(seed, "incremental", "weights"):
        wide = nn.Linear(old.in_features, old.out_features + new, bias=old.bias is not None)
    with torch.no_grad():
        wide.to(old.weight)
        for rows, known in ((wide.weight, old.weight), (wide.bias, old.bias)):
            if known is not None:
                rows[: len(known)] = known
    student = copy.deepcopy(teacher).requires_grad_(True).train()
    _replace_last(student, wide)
    return channels_last(student)


class IncrementalLearning(FittedStage):
    """The training of a network of `expand` on new classes; the last weights stay. It ends in eval mode.

    Without a recall, rule `all` is cross-entropy over old and new classes (finetuning). With one, it is cross-entropy
    over the new outputs alone + `distill_weight` x distillation of the old ones on the recalled images (Li and Hoiem
    2017) + `scale_weight` x `logit_scale_loss` where `scaling` is `norms`; `aligned` scales the new rows at the end
    (`align`). Cross-entropy over all outputs would lower the old ones on the new images, and nothing would lower the
    new ones on the old images: every image would be taken for a new class.
    """

    def __init__(
        self,
        student: nn.Module,
        rule: Rule,
        images: UInt8[Tensor, "n c h w"],
        labels: Labels,
        teacher: nn.Module,
        recall: Recall | None,
        config: IncrementalConfig,
        context: Context,
    ) -> None:
        """Begin with an untrained student.

        Args:
            student: on the device.
            rule: what is trained, see `Rule`.
            images: of the new classes, on the device.
            labels: 0 to the number of new classes - 1, on the device.
            teacher: the old classes' network, in eval mode.
            recall: for rule `all` alone; None: nothing is distilled. If it returns the batch that it was given, the
                student sees that once; else it sees both batches together.
            config: lengths, weights, temperature.
            context: the order of the images, their augmentation, and dropout have streams of their own.

        Raises:
            UserError: a label out of range, a student that is no wider than the teacher, a recall that goes unused.
        """
        self.old, outputs = _last(teacher).out_features, _last(student).out_features
        if outputs <= self.old:
            raise UserError(
                f"the student has {outputs} outputs; it needs more than the teacher's {self.old} (see expand)."
            )
        _check_labels(labels, outputs - self.old)
        if recall is not None and rule != "all":
            raise UserError(f"rule {rule!r} does not use recalled images; only rule 'all' does.")
        self.student, self.recall = student, recall
        self.aligned = recall is not None and config.scaling == "aligned"
        order_rng, augment_rng = context.generator(STAGE, "images"), context.generator(STAGE, "augment")
        changes = augment_rng if config.augment else None
        batches = LabelledBatches(images, labels + self.old, config.batch_size, order_rng, changes)
        self.rows = _new_rows(student, self.old) if rule == "new_outputs" else None
        if self.rows is not None:
            loss = _fixed(student, self.old, self.rows)
        elif rule == "sigmoid":
            loss = _sigmoid(student, self.old, teacher)
        else:
            loss = _finetuning(student) if recall is None else _recalling(student, self.old, recall, config)
        steps_per_epoch = config.steps_per_epoch or -(-len(images) // config.batch_size)
        trained = student if self.rows is None else self.rows
        fitting = Fitting(trained, loss, None, config, steps_per_epoch, STAGE, batches.__next__)
        dropout_rng = context.generator(STAGE, "dropout")
        super().__init__(
            student, fitting, batches, {"order_rng": order_rng, "augment_rng": augment_rng, DROPOUT: dropout_rng}
        )

    def step(self) -> Progress | None:
        """Train on a batch; returns the progress after an epoch.

        Raises:
            DivergedError: the loss is not finite.
        """
        progress = super().step()
        if self.done:
            self._finish(self.student)
        return progress

    @property
    def learned(self) -> nn.Module:
        """A copy of the student with the new rows, and aligned, as it would end."""
        copied = copy.deepcopy(self.student)
        self._finish(copied)
        return copied

    def state_dict(self) -> dict[str, Any]:
        """Return the stage's state, and that of the recalled images."""
        return super().state_dict() | {"recall": None if self.recall is None else self.recall.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        if self.recall is not None:
            self.recall.load_state_dict(state["recall"])
        if self.done:
            self._take_new_rows(self.student)

    def _finish(self, student: nn.Module) -> None:
        """Give a student what it has beside the trained weights."""
        self._take_new_rows(student)
        if self.aligned:
            align(student, self.old)

    @torch.no_grad()
    def _take_new_rows(self, student: nn.Module) -> None:
        """Give a student its new rows if they were trained alone."""
        if self.rows is not None:
            for kept, learned in zip(_last(student).parameters(), self.rows.parameters(), strict=True):
                kept[self.old :] = learned


def logit_scale_loss(weights: Float[Tensor, "k d"], old: int) -> Float[Tensor, ""]:
    """Return (mean norm of the old classes' rows - mean norm of the new ones')^2, of the last layer's weights; >= 0.

    Our reading of section 5.2's "relative scaling of logits", of which the paper gives no formula. The first `old` rows
    are the old classes'.
    """
    norms = torch.linalg.vector_norm(weights, dim=1)
    return F.mse_loss(norms[:old].mean(), norms[old:].mean())


@torch.no_grad()
def align(student: nn.Module, old: int) -> None:
    """Scale the last layer's new rows, in place, to the old rows' mean norm (weight aligning, Zhao et al. 2020)."""
    weights = _last(student).weight
    norms = torch.linalg.vector_norm(weights, dim=1)
    weights[old:] *= norms[:old].mean() / norms[old:].mean()


def bank_logits(
    teacher_logits: Float[Tensor, "n old"], new_labels: Int64[Tensor, " m"], new: int
) -> Float[Tensor, "n classes"]:
    """Return the outputs over old and new classes that a student is compared with on a bank of images.

    The first m images are of new classes with known labels (0 to new - 1): all their probability is on the label.
    The others are known to the teacher alone: its logits, and no probability on new classes. Balanced agreement with
    these counts old and new classes alike, and needs no image of the old ones.

    Raises:
        UserError: a label out of range, or more labels than images.
    """
    (count, old), known = teacher_logits.shape, len(new_labels)
    if known > count:
        raise UserError(f"{known} labels for a bank of {count} images.")
    _check_labels(new_labels, new)
    logits = F.pad(teacher_logits, (0, new), value=NEVER)
    logits[:known] = NEVER
    logits[torch.arange(known, device=logits.device), old + new_labels] = 0.0
    return logits


def _finetuning(student: nn.Module) -> Loss:
    return lambda batch, labels: F.cross_entropy(student(batch), labels)


def _recalling(student: nn.Module, old: int, recall: Recall, config: IncrementalConfig) -> Loss:
    last = _last(student)
    new = last.out_features - old

    def loss(batch: Images, labels: Labels) -> Tensor:
        with torch.no_grad():
            recalled, known = recall(batch)
        # One pass for both, so that BatchNorm's statistics are of old and new images.
        logits = student(batch if recalled is batch else torch.cat([batch, recalled]))
        learned, kept = logits[: len(batch)], logits[-len(recalled) :]
        if config.joint:
            value = F.cross_entropy(learned, labels)
            distilled = distillation_loss(kept, F.pad(known, (0, new), value=NEVER), config.temperature)
        else:
            value = F.cross_entropy(learned[:, old:], labels - old)
            distilled = distillation_loss(kept[:, :old], known, config.temperature)
        value = value + config.distill_weight * distilled
        if config.scaling == "norms":
            value = value + config.scale_weight * logit_scale_loss(last.weight, old)
        return value

    return loss


def _sigmoid(student: nn.Module, old: int, teacher: nn.Module) -> Loss:
    def loss(batch: Images, labels: Labels) -> Tensor:
        logits = student(batch)
        targets = F.one_hot(labels, logits.shape[1]).to(logits)
        with torch.no_grad():
            targets[:, :old] = teacher(batch).sigmoid()
        return sigmoid_loss(logits, targets)

    return loss


def _new_rows(student: nn.Module, old: int) -> nn.Linear:
    """Return a small layer of the last layer's new rows; the student is in eval mode from now on."""
    student.eval()
    last = _last(student)
    rows = nn.Linear(last.in_features, last.out_features - old, bias=last.bias is not None, device="meta")
    rows = rows.to_empty(device=last.weight.device).to(last.weight.dtype)  # no weights are drawn
    rows.load_state_dict({name: value[old:] for name, value in last.state_dict().items()})
    return rows


def _fixed(student: nn.Module, old: int, rows: nn.Linear) -> Loss:
    """Return the loss of new rows alone, on what a frozen copy of the rest gives: nothing else can move."""
    body, last = freeze(student), _last(student)
    _replace_last(body, nn.Identity())

    def loss(batch: Images, labels: Labels) -> Tensor:
        with torch.no_grad():
            features = body(batch)
            known = last(features)[:, :old]
        return F.cross_entropy(torch.cat([known, rows(features)], dim=1), labels)

    return loss


def _last_name(model: nn.Module) -> str:
    if scripted(model):
        raise UserError("a TorchScript network cannot learn new classes; give a state dict of a known network.")
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not names:
        raise UserError(f"{type(model).__name__} has no linear layer that could be widened by new classes.")
    return str(names[-1])


def _last(model: nn.Module) -> nn.Linear:
    """Return the last linear layer, whose outputs are the network's."""
    layer = model.get_submodule(_last_name(model))
    assert isinstance(layer, nn.Linear)
    return layer


def _replace_last(model: nn.Module, layer: nn.Module) -> None:
    model.set_submodule(_last_name(model), layer)


def _check_labels(labels: Tensor, new: int) -> None:
    wrong = labels[(labels < 0) | (labels >= new)]
    if len(wrong):
        raise UserError(f"{int(wrong[0])} is no label of {new} new classes; they are 0 to {new - 1}.")
