"""Train every trial of a task, one after the other, and record what all students and the teacher say of shared images.

Each trial's networks are kept in the work folder, so that a call that was cut goes on. The test split is not touched:
true images are those held out from the teacher's training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.choice.tasks import TASKS, WEIGHTS, Task
from degan_search.data.images import denormalise, normalise
from degan_search.evaluation import across_trials
from degan_search.settings.combine import member
from degan_search.settings.trial import TrialConfig
from degan_search.stages.image_sources import GeneratorSource
from degan_search.stages.teacher_file import Teacher
from degan_search.stages.true_images import TrueImages, true_images
from degan_search.system import seeds
from degan_search.system.device import choose_device, set_up_torch
from degan_search.training.loop import DivergedError
from degan_search.training.measures import predict
from degan_search.trial.context import TrialContext
from degan_search.trial.images import load_proxy
from degan_search.trial.inputs import Inputs, gather, load
from degan_search.trial.members import loaded_generator
from degan_search.trial.trial import run

WORK = Path("runs/choice")
FOLDER = Path(__file__).parents[1] / "recorded"
HELD_OUT, MADE, MIXED, PUSHED = 400, 32, 400, 400
"""Images of each proxy and judge; of each generator; of each kind of mixture; pushed towards classes."""
PUSHES, PUSH = 8, 0.05
"""Steps of an image towards a class, and the length of each in pixel values of [-1, 1]."""
STUDENT_SEEDS = (0, 1, 2)


@dataclass
class Ran:
    """A trial's configuration, and what is kept of it: networks' states and measures; None: it diverged."""

    name: str
    config: TrialConfig
    kept: dict[str, Any] | None


class Bench:
    """A task on this machine: teacher, images, trials."""

    def __init__(self, task: Task, data: Path | None, work: Path, device: str, only_finished: bool = False) -> None:
        self.task, self.data, self.device, self.only_finished = task, data, device, only_finished
        self.folder, self.cache = work / task.name, work / "cache"
        self.folder.mkdir(parents=True, exist_ok=True)
        loaded = load([task.config(proxy) for proxy in task.proxies], data, self.cache, device)
        self.inputs: dict[str, Inputs] = {one.config.proxy: gather(one, self.cache, device) for one in loaded}
        found = true_images(loaded[0].config.teacher, data)
        assert found is not None, "a bench is judged on true images"
        self.true: TrueImages = found
        self.teacher: Teacher = loaded[0].teacher
        self.network = self.teacher.model(device)

    def trials(self) -> Iterator[Ran]:
        """Yield every trial, trained or read from the work folder, proxies in turn so that a part is balanced.

        Of `only_finished` those that are in the work folder at the first weights for which every proxy has one.
        """
        for place, (lambda_e, lambda_d) in enumerate(WEIGHTS):
            last = f"search-{len(self.task.proxies) - 1:02}{place:02}"
            for index, proxy in enumerate(self.task.proxies):
                name = f"search-{index:02}{place:02}"
                config = self.task.config(proxy, gan__lambda_e=lambda_e, gan__lambda_d=lambda_d)
                if self.only_finished and not (self.folder / f"{last}.pt").exists():
                    return
                yield Ran(name, config, self._kept(name, config))

    def _kept(self, name: str, config: TrialConfig) -> dict[str, Any] | None:
        file = self.folder / f"{name}.pt"
        if not file.exists():
            torch.save(self._train(name, config), file)
        kept: dict[str, Any] = torch.load(file)
        return kept or None

    def _train(self, name: str, config: TrialConfig) -> dict[str, Any]:
        begun = time.perf_counter()
        try:
            outcome = run(config, self.inputs[config.proxy], device=self.device)
        except DivergedError:
            print(f"{name}: diverged", flush=True)
            return {}
        assert outcome.generator is not None
        generator = outcome.generator.state_dict()
        students = [outcome.student.state_dict()]
        if config.proxy in self.task.repeated:
            students += [self.distilled(config, [generator], seed=seed).state_dict() for seed in STUDENT_SEEDS[1:]]
        accuracy = self.right(outcome.student).double().mean().item()
        seconds = time.perf_counter() - begun
        print(f"{name} {config.proxy} {config.gan.lambda_e:g} {config.gan.lambda_d:g}: {100 * accuracy:.1f}%", end=" ")
        print(f"score {outcome.metrics['score']:.3f} in {seconds:.0f} s", flush=True)
        return {"generator": generator, "students": students, "metrics": outcome.metrics, "seconds": seconds}

    def distilled(
        self,
        config: TrialConfig,
        members: list[dict[str, Tensor]],
        seed: int,
        balance: bool = False,
        share: float = 0.0,
    ) -> nn.Module:
        """Return a student of these generators together, as the method `combined` distils it."""
        names = tuple(member(f"search-{place:04}", b"") for place in range(len(members)))
        combine = config.combine.model_copy(update={"members": names, "balance": balance})
        distill = config.distill.model_copy(update={"mix_proxy": share})
        update = {"method": "combined", "combine": combine, "distill": distill, "seed": seed}
        return run(
            config.model_copy(update=update), self.inputs[config.proxy], device=self.device, members=members
        ).student

    def right(self, student: nn.Module) -> Tensor:
        """Return for each held-out true image whether a network is right, and so of the teacher itself."""
        images, labels = (torch.from_numpy(part[self.true.held_out]) for part in (self.true.images, self.true.labels))
        return predict(student, images.to(self.device)).argmax(1).cpu() == labels

    def student(self, config: TrialConfig, state: dict[str, Tensor]) -> nn.Module:
        """Return a student with these weights."""
        network = self._context(config).untrained_student("student")
        network.load_state_dict(state)
        return network.eval()

    def generator(self, config: TrialConfig, state: dict[str, Tensor]) -> nn.Module:
        """Return a generator with these weights."""
        return loaded_generator(self._context(config), state).eval()

    def _context(self, config: TrialConfig) -> TrialContext:
        return TrialContext.of(config, self.inputs[config.proxy], self.device)

    @cached_property
    def trained(self) -> set[bytes]:
        """Every image that a student of the task learned from."""
        return {image.tobytes() for one in self.inputs.values() for image in one.proxy.images[one.proxy.train]}

    def held_out(self, proxy: str) -> Tensor:
        """Return images of a set that no student of the task learned from."""
        config = self.task.config(proxy)
        found = self.inputs[proxy].proxy if proxy in self.inputs else load_proxy(config, self.data)
        kept = [place for place in found.held_out if found.images[place].tobytes() not in self.trained]
        return torch.from_numpy(found.images[kept[:HELD_OUT]])


def mixtures(images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return pairs of images mixed half and half (mixup), and with one half of another (cutmix)."""
    first, second = (images[torch.randint(len(images), (MIXED,), generator=rng)] for _ in range(2))
    halves = second.clone()
    halves[..., : images.shape[-1] // 2] = first[..., : images.shape[-1] // 2]
    return ((first.int() + second.int()) // 2).to(torch.uint8), halves


def pushed(images: Tensor, teacher: nn.Module, classes: int, rng: torch.Generator) -> Tensor:
    """Return images pushed towards a class each by a few signed gradient steps on the teacher."""
    places = torch.randint(len(images), (PUSHED,), generator=rng)
    wanted = torch.arange(PUSHED) % classes
    now = normalise(images[places])
    for _ in range(PUSHES):
        now.requires_grad_(True)
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(teacher(now), wanted), now)
        now = (now.detach() - PUSH * gradient.sign()).clamp(-1, 1)
    return denormalise(now)


def record(bench: Bench) -> dict[str, np.ndarray]:
    """Return the task's arrays: trials, sources of images, logits of teacher and students, true accuracies."""
    task, rng = bench.task, torch.Generator().manual_seed(0)
    ran = [one for one in bench.trials() if one.kept]
    sources, images = list[str](), list[Tensor]()
    for name in (*task.proxies, *task.judges):
        images.append(bench.held_out(name))
        sources += [name] * len(images[-1])
    proxies = torch.cat(images[: len(task.proxies)])
    for kind, made in zip(("mixup", "cutmix"), mixtures(proxies, rng), strict=True):
        images.append(made)
        sources += [kind] * len(made)
    images.append(pushed(proxies, bench.network, bench.teacher.classes, rng))
    sources += ["pushed"] * len(images[-1])
    across: dict[str, across_trials.Scores] = {}
    for proxy in task.proxies:
        across |= _across(bench, proxy, [one for one in ran if one.config.proxy == proxy])
    for one in ran:
        assert one.kept
        generator = bench.generator(one.config, one.kept["generator"])
        source = GeneratorSource(generator, one.config.gan.latent, bench.network)
        images.append(denormalise(source.make(MADE, seeds.generator(0, "choice", one.name))[0]))
        sources += [one.name] * MADE
    every = torch.cat(images)
    logits, rows = [], []
    for one in ran:
        assert one.kept
        for seed, state in zip(STUDENT_SEEDS, one.kept["students"], strict=False):
            student = bench.student(one.config, state)
            logits.append(predict(student, every).half().numpy())
            own = one.kept["metrics"] | across[one.name] if seed == 0 else {}
            weights = {"lambda_e": one.config.gan.lambda_e, "lambda_d": one.config.gan.lambda_d}
            about = {"trial": one.name, "proxy": one.config.proxy, "seed": seed, "seconds": one.kept["seconds"]}
            right = bench.right(student).double()
            halves = {f"half_{half + 1}": right[half::2].mean().item() for half in (0, 1)}
            rows.append(about | weights | {"accuracy": right.mean().item()} | halves | own)
    teacher_accuracy = bench.right(bench.network).double().mean().item()
    table = pd.DataFrame(rows).assign(task=task.name, teacher_accuracy=teacher_accuracy)
    table.to_parquet(FOLDER / f"choice_{task.name}.parquet", index=False)
    return {
        "teacher": predict(bench.network, every).half().numpy(),
        "students": np.stack(logits),
        "sources": np.array(sources),
    }


def _across(bench: Bench, proxy: str, ran: list[Ran]) -> dict[str, across_trials.Scores]:
    competitors = []
    for one in ran:
        assert one.kept
        student = bench.student(one.config, one.kept["students"][0])
        generator = bench.generator(one.config, one.kept["generator"])
        competitors.append(
            across_trials.Competitor(one.name, student, generator, one.config.gan.latent, one.config.seed)
        )
    inputs = bench.inputs[proxy]
    held_out = torch.from_numpy(inputs.bank[: inputs.bank_proxy_images])
    return across_trials.agreements(competitors, held_out, bench.network)


def main() -> None:
    """Record one task, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data-dir", type=Path, help="folder of the image sets; default: DATA_DIR, or ./data")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of networks, teachers and logits")
    parser.add_argument("--only-finished", action="store_true", help="record the trials that are there, train none")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    set_up_torch(given.threads)
    bench = Bench(TASKS[given.task], given.data_dir, given.work, choose_device(), given.only_finished)
    np.savez_compressed(given.work / f"{given.task}.npz", **record(bench))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
