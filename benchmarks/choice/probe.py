"""Record what a criterion can only ask of the networks themselves, of trials that `record` has kept.

How typical each held-out image is for the teacher, and images that are pushed towards a class of the teacher's and away
from what a student says: the worst case of Dis^2 (Rosenfeld and Garg 2023), sought among images, not classifiers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.choice.criteria import AGAINST, AIMS, STEPS
from benchmarks.choice.record import FOLDER, WORK, Bench
from benchmarks.choice.tasks import TASKS
from degan_search.data.images import denormalise, normalise
from degan_search.networks.batch_statistics import distances, gathered_statistics, norms
from degan_search.system.device import choose_device, set_up_torch
from degan_search.training.measures import predict

STARTS = 50
"""Held-out images of each proxy and judge that are pushed."""
PUSH = 0.02
"""Length of a step in pixel values of [-1, 1]; the student is a target here, and steps of 0.05 fool every student."""


def feature_norms(teacher: nn.Module, images: Tensor) -> Tensor:
    """Return of each image (bytes) the Euclidean norm of what the teacher's last linear layer takes."""
    found = list[Tensor]()
    last = [layer for layer in teacher.modules() if isinstance(layer, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].norm(dim=1)))
    predict(teacher, images)
    hook.remove()
    return torch.cat(found)


@torch.no_grad()
def norm_distances(teacher: nn.Module, images: Tensor) -> Tensor:
    """Return of each image (bytes) its distance from the teacher's BatchNorm statistics; NaN: it has no BatchNorm."""
    if not norms(teacher):
        return torch.full((len(images),), torch.nan)
    found = list[Tensor]()
    for image in torch.split(images, 1):
        with gathered_statistics(teacher) as sums:
            teacher(normalise(image))
        found.append(distances(sums).mean())
    return torch.stack(found)


def away(student: Tensor, wanted: Tensor) -> Tensor:
    """Return the loss of a student that does not disagree with a class, of its logits (Dis^2's disagreement loss)."""
    own = student.gather(1, wanted[:, None])[:, 0]
    others = (student.sum(1) - own) / (student.shape[1] - 1)
    return nn.functional.softplus(own - others).sum()


def against(images: Tensor, wanted: Tensor, teacher: nn.Module, student: nn.Module) -> list[Tensor]:
    """Return images (bytes) after each of `STEPS` steps towards a class on the teacher, away from it on the student."""
    now, found = normalise(images), list[Tensor]()
    for step in range(1, max(STEPS) + 1):
        now.requires_grad_(True)
        towards = nn.functional.cross_entropy(teacher(now), wanted, reduction="sum")
        (gradient,) = torch.autograd.grad(towards + away(student(now), wanted), now)
        now = (now.detach() - PUSH * gradient.sign()).clamp(-1, 1)
        if step in STEPS:
            found.append(denormalise(now))
    return found


def probe(bench: Bench, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the arrays: measures of held-out images, and logits [students, images, classes] of pushed ones.

    `table` has a row a student, as `record` wrote it; of each trial it is the first student that is pushed against. A
    source of pushed images is the aim, the steps and where the images came from: `against:own:8:photos` were pushed
    to keep the class that the teacher predicts, `against:given:8:photos` to one of all classes in turn.
    """
    task = bench.task
    names = (*task.proxies, *task.judges)
    held_out = {name: bench.held_out(name) for name in names}
    every = torch.cat([*held_out.values()])
    starts = torch.cat([images[:STARTS] for images in held_out.values()])
    origins = [name for name, images in held_out.items() for _ in images[:STARTS]]
    classes = (predict(bench.network, starts).argmax(1), torch.arange(len(starts)) % bench.teacher.classes)
    wanted = dict(zip(AIMS, classes, strict=True))
    logits: dict[str, list[np.ndarray]] = {"teacher": [], "students": []}
    for name, proxy in table.loc[table["seed"] == 0, ["trial", "proxy"]].itertuples(index=False):
        kept = torch.load(bench.folder / f"{name}.pt")
        student = bench.student(task.config(proxy), kept["students"][0])
        made = torch.cat([image for aim in wanted.values() for image in against(starts, aim, bench.network, student)])
        for who, network in (("teacher", bench.network), ("students", student)):
            logits[who].append(predict(network, made).half().numpy())
        print(name, flush=True)
    return {
        "feature_norm": feature_norms(bench.network, every).numpy(),
        "norm_distance": norm_distances(bench.network, every).numpy(),
        "sources": np.array(
            [f"{AGAINST}{aim}:{step}:{origin}" for aim in wanted for step in STEPS for origin in origins]
        ),
        **{who: np.stack(parts) for who, parts in logits.items()},
    }


def main() -> None:
    """Record one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data-dir", type=Path, help="folder of the image sets; default: DATA_DIR, or ./data")
    parser.add_argument("--work", type=Path, default=WORK, help="folder that `record` wrote")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    set_up_torch(given.threads)
    bench = Bench(TASKS[given.task], given.data_dir, given.work, choose_device())
    table = pd.read_parquet(FOLDER / f"choice_{given.task}.parquet")
    np.savez_compressed(given.work / f"{given.task}_probe.npz", **probe(bench, table))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
