"""What is measured of classifiers and of images: accuracy, agreement, coverage, entropy.

Every metric takes logits [N, K] (N >= 1, any float type) and returns a float; none keeps gradients. Raises
UserError where two arguments do not fit or nothing is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor, nn

from degan_search.data.images import normalise
from degan_search.networks.front import device_of
from degan_search.settings.criteria import Criterion
from degan_search.system.errors import UserError
from degan_search.training.losses import diversity_loss, entropy_loss

Logits = Float[Tensor, "n k"]
SURE = 0.5
"""The teacher is sure of an image whose largest probability is above this."""


@torch.no_grad()
def predict(model: nn.Module, images: UInt8[Tensor, "n c h w"], batch_size: int | None = None) -> Logits:
    """Logits of `model` in eval mode for bytes `images`, on the model's device, without gradients.

    Each module's train or eval mode is put back, and no statistics move: the answer does not depend on the
    batch size (None: `chunk_of`) beyond float rounding. Raises UserError for a batch size below 1.
    """
    batch_size = chunk_of(images.shape[-2:]) if batch_size is None else batch_size
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be 1 or more.")
    device = device_of(model)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return torch.cat([model(normalise(batch.to(device))) for batch in torch.split(images, batch_size)])
    finally:
        for module, training in modes:
            module.training = training


def chunk_of(size: Sequence[int]) -> int:
    """Return how many images of a height and width go through a network at a time: as much memory as 512 of 32x32."""
    return max(16, min(512, 512 * 32 * 32 // (size[0] * size[1])))


def accuracy(logits: Logits, labels: Integer[Tensor, " n"]) -> float:
    """Share of images whose largest logit is the label's, in [0, 1]."""
    _check_pair(logits, labels, logits.shape[:1])
    return _mean(logits.argmax(dim=1) == labels)


def agreement(student_logits: Logits, teacher_logits: Logits) -> float:
    """Share of images that student and teacher put into the same class, in [0, 1]."""
    _check_pair(student_logits, teacher_logits, student_logits.shape)
    return _mean(student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1))


def balanced_agreement(student_logits: Logits, teacher_logits: Logits) -> float:
    """Agreement in each class that the teacher predicts at least once, mean over these classes, in [0, 1]."""
    _check_pair(student_logits, teacher_logits, student_logits.shape)
    agreed = student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1)
    return _mean(_class_means(agreed.double(), teacher_logits))


def class_agreement(student_logits: Logits, teacher_logits: Logits) -> tuple[float | None, ...]:
    """Agreement in each of the K classes, in [0, 1]; None for a class that the teacher predicts for no image."""
    _check_pair(student_logits, teacher_logits, student_logits.shape)
    predicted, classes = teacher_logits.argmax(dim=1), teacher_logits.shape[1]
    agreed = (student_logits.argmax(dim=1) == predicted).double()
    right, counts = (predicted.bincount(weights, classes).tolist() for weights in (agreed, None))
    return tuple(own / count if count else None for own, count in zip(right, counts, strict=True))


def soft_agreement(student_logits: Logits, teacher_logits: Logits) -> float:
    """One minus the mean total-variation distance of the two softmax outputs (T = 1), in [0, 1]."""
    _check_pair(student_logits, teacher_logits, student_logits.shape)
    return 1 - min(1.0, _mean(_distance(student_logits, teacher_logits)))


def balanced_soft_agreement(student_logits: Logits, teacher_logits: Logits) -> float:
    """Soft agreement in each class that the teacher predicts at least once, mean over these classes, in [0, 1]."""
    _check_pair(student_logits, teacher_logits, student_logits.shape)
    return 1 - min(1.0, _mean(_class_means(_distance(student_logits, teacher_logits), teacher_logits)))


def sure_agreement(student_logits: Logits, teacher_logits: Logits) -> float:
    """Balanced soft agreement on the images of which the teacher is sure, on all where it is of none, in [0, 1]."""
    _check_pair(student_logits, teacher_logits, student_logits.shape)
    sure = teacher_logits.double().softmax(dim=1).amax(dim=1) > SURE
    kept = sure if sure.any() else slice(None)
    return balanced_soft_agreement(student_logits[kept], teacher_logits[kept])


def _class_means(values: Tensor, teacher_logits: Logits) -> Tensor:
    """Return the mean of the images' values, double [N], in each class that the teacher predicts at least once."""
    predicted = teacher_logits.argmax(dim=1)
    counts = predicted.bincount()
    present = counts > 0
    return predicted.bincount(weights=values)[present] / counts[present]


def _distance(student_logits: Logits, teacher_logits: Logits) -> Tensor:
    """Return each image's total-variation distance of the two softmax outputs, double [N], in [0, 1]."""
    difference = student_logits.double().softmax(dim=1) - teacher_logits.double().softmax(dim=1)
    return difference.abs().sum(dim=1) / 2


def effective_classes(logits: Logits) -> float:
    """Perplexity of the mean softmax output, exp(H(w)) with equation 5's w, in [1, K]."""
    _check_some(logits)
    return diversity_loss(logits.double()).exp().item()


def coverage(logits: Logits, share: float = 0.01) -> float:
    """Share of the K classes that are the largest logit of at least `share` of the images, in [0, 1].

    Raises UserError unless 0 < share <= 1.
    """
    _check_some(logits)
    if not 0 < share <= 1:
        raise UserError(f"share is {share}; it must be above 0 and at most 1 (0.01 is one image in a hundred).")
    counts = logits.argmax(dim=1).bincount(minlength=logits.shape[1])
    return _mean(counts.double() / len(logits) >= share)


def mean_entropy(logits: Logits) -> float:
    """Mean entropy of the softmax outputs in nats (equation 4), in [0, log K]."""
    _check_some(logits)
    return entropy_loss(logits.double()).item()


def infomax(logits: Logits) -> float:
    """Mutual information of image and predicted class in nats, entropy of the mean output minus mean entropy, >= 0.

    Needs no label: high where a classifier is sure of each image and uses every class (Bridle et al. 1991).
    """
    _check_some(logits)
    # By Jensen's inequality never below 0; rounding may go there.
    return max(0.0, diversity_loss(logits.double()).item() - entropy_loss(logits.double()).item())


def soft_neighbourhood_density(logits: Logits, temperature: float = 0.05) -> float:
    """Mean entropy in nats of each output's similarity to all others, in [0, log(N - 1)]; 0 for one image.

    Needs no label: high where outputs lie in dense groups (SND, Saito et al. 2021, section 3).
    """
    _check_some(logits)
    if len(logits) == 1:
        return 0.0
    outputs = nn.functional.normalize(logits.double().softmax(dim=1), dim=1)
    similarity = (outputs @ outputs.T / temperature).fill_diagonal_(-1e6)  # weighs 0
    return entropy_loss(similarity).item()


def class_certainty(logits: Logits, temperature: float = 2.5) -> float:
    """One minus the minimum class confusion loss, in [0, 1]; needs no label (MCC, Jin et al. 2020, equations 2 to 6).

    High where images that may be of one class are seldom taken for another; sure images count for more. A
    class that no image is given any probability counts as wholly confused.
    """
    _check_some(logits)
    softer = logits.double() / temperature
    outputs, logs = softer.softmax(dim=1), softer.log_softmax(dim=1)
    weights = 1 + (outputs * logs).sum(dim=1).exp()
    correlation = (outputs * (weights / weights.mean())[:, None]).T @ outputs
    shares = correlation.diagonal() / correlation.sum(dim=1).clamp_min(torch.finfo(correlation.dtype).tiny)
    return _mean(shares)


def measure(criterion: Criterion, student_logits: Logits, teacher_logits: Logits) -> float:
    """Return a criterion of a student's logits for some images, by the function that its row in `CRITERIA` names."""
    function = globals()[criterion.function]
    return float(function(student_logits, teacher_logits) if criterion.compares else function(student_logits))


def _mean(values: Tensor) -> float:
    return values.double().mean().item()


def _check_some(logits: Tensor) -> None:
    if logits.ndim != 2 or logits.numel() == 0:
        raise UserError(f"logits have shape {tuple(logits.shape)}; they must be [N, K] with N and K above 0.")


def _check_pair(logits: Tensor, other: Tensor, expected: torch.Size) -> None:
    _check_some(logits)
    if other.shape != expected:
        raise UserError(f"logits {tuple(logits.shape)} go with {tuple(expected)}, not {tuple(other.shape)}.")
