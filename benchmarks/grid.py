"""Every pair of weights of a grid on one GPU, side by side, without Ray: recorded for `benchmarks.search`, and timed.

With `--halving`, as the paper's cells are searched: at each rung the better half goes on. The choice by score is then
trained again over the space's final seeds. True images held out from the teacher's training judge; the test split is
not touched.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import isfinite, nan
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import torch
import yaml

from benchmarks.measure import Figures
from benchmarks.record import FOLDER, SMALL, rungs
from degan_search.evaluation import across_trials
from degan_search.ledger.columns import State
from degan_search.settings.resolve import merge, trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.stages.teacher import obtain
from degan_search.stages.true_images import true_images
from degan_search.system import provenance
from degan_search.system.device import choose_device, set_up_torch
from degan_search.training.measures import predict
from degan_search.training.turns import Turns, side_by_side_on_gpu
from degan_search.trial.inputs import gather, load
from degan_search.trial.outcome import Event, save
from degan_search.trial.trial import Trial

SPACES = Path(__file__).parents[1] / "search_spaces"
WEIGHTS = ("gan.lambda_e", "gan.lambda_d")


@dataclass
class Ran:
    """A trial, and its reports with a score or a loss; `seconds` is its share of what all beside it took."""

    config: TrialConfig
    trial: Trial
    curve: list[dict[str, float]] = field(default_factory=list)
    state: State = State.FAIL
    beside: int = 1
    """Trials that ran side by side, itself among them."""

    @property
    def score(self) -> float:
        """The finished trial's; NaN for another."""
        return self.trial.outcome.metrics["score"] if self.state is State.COMPLETE else nan

    def record(self, event: Event) -> None:
        """Take what the trial reports."""
        if event.stage == "done":
            self.state = State.COMPLETE
        elif event.metrics:
            score = event.metrics.get("score", nan)
            self.curve.append({"budget": event.gan_steps, "score": score, "seconds": event.seconds / self.beside})


class Grid:
    """A space of one cell, and what its trials are given."""

    def __init__(self, space: dict[str, Any], data: Path | None, cache: Path, device: str, figures: Figures) -> None:
        cell = {key: values[0] for key, values in space["cells"].items()}
        self.device, self.figures, self.cell = device, figures, merge(space["trial"], cell)
        self.points = [
            dict(zip(WEIGHTS, pair, strict=True)) for pair in product(*map(space["parameters"].get, WEIGHTS))
        ]
        self.seeds = (space.get("finals") or {}).get("seeds", ())
        config = trial_config(self.cell)
        found = true_images(config.teacher, data)
        assert found is not None, "a grid is judged on true images"
        self.true = found
        begun = time.perf_counter()
        self.teacher = obtain(config.teacher, self.true, cache, device=device)
        figures.add("grid_teacher_seconds", time.perf_counter() - begun)
        figures.add("grid_teacher_held_out_accuracy", 100 * (self.teacher.holdout_accuracy or 0))
        (loaded,) = load([config], data, cache, device)
        begun = time.perf_counter()
        self.inputs = gather(loaded, cache, device)
        figures.add("grid_bank_seconds", time.perf_counter() - begun)

    def searched(self) -> list[TrialConfig]:
        """Return a trial at each point."""
        return [trial_config(self.cell, point) for point in self.points]

    def run(self, configs: Sequence[TrialConfig], together: int, halving: bool = False) -> Iterator[list[Ran]]:
        """Run trials, `together` of them side by side, and yield these when all of them have ended."""
        for start in range(0, len(configs), together):
            some = configs[start : start + together]
            ran = [Ran(config, Trial(config, self.inputs, self.device), beside=len(some)) for config in some]
            turns = Turns(dict(enumerate(member.trial for member in ran)), self.device)
            while not turns.done:
                events = turns.step()
                for member, event in events.items():
                    ran[member].record(event)
                scored = {member: event.metrics.get("score", nan) for member, event in events.items()}
                if halving and all(event.stage == "gan" for event in events.values()):
                    halve(turns, ran, {member: score for member, score in scored.items() if isfinite(score)})
            yield ran

    def row(self, ran: Ran, agreements: dict[str, across_trials.Scores]) -> dict[str, Any]:
        """Return a trial's row of a recorded table."""
        config, done = ran.config, ran.state is State.COMPLETE
        right = self.right(ran).double() if done else torch.full((2,), nan)
        about = provenance.provenance()
        return {
            "lambda_e": config.gan.lambda_e,
            "lambda_d": config.gan.lambda_d,
            "state": str(ran.state),
            "score": ran.score,
            "oracle_accuracy": right.mean().item(),
            "oracle_half_1": right[0::2].mean().item(),
            "oracle_half_2": right[1::2].mean().item(),
            "cross_soft_agreement": agreements.get(named(config), {}).get("cross_soft_agreement", nan),
            "gan_steps": config.gan.steps,
            "seconds": ran.trial.metrics.get("seconds", nan) / ran.beside,
            "device": self.device,
            "hardware": about["hardware"],
            "git_commit": about["git_commit"],
            "rungs": rungs(pd.DataFrame(ran.curve)),
        }

    def right(self, ran: Ran) -> torch.Tensor:
        """Return for each held-out true image whether the student is right."""
        images, labels = (torch.from_numpy(part[self.true.held_out]) for part in (self.true.images, self.true.labels))
        return predict(ran.trial.outcome.student, images.to(self.device)).argmax(1).cpu() == labels

    def agreements(self, ran: Sequence[Ran]) -> dict[str, across_trials.Scores]:
        """Return how the finished trials' students agree with the teacher across generators."""
        competitors = []
        for finished in (trial for trial in ran if trial.state is State.COMPLETE):
            outcome, config = finished.trial.outcome, finished.config
            competitors.append(
                across_trials.Competitor(
                    named(config), outcome.student, outcome.generator, config.gan.latent, config.seed
                )
            )
        held_out = torch.from_numpy(self.inputs.bank[: self.inputs.bank_proxy_images]).to(self.device)
        return across_trials.agreements(competitors, held_out, self.teacher.model(self.device))


def named(config: TrialConfig) -> str:
    """Return a name of a grid's point."""
    return f"{config.gan.lambda_e:g},{config.gan.lambda_d:g}"


def halve(turns: Turns[Event], ran: Sequence[Ran], scores: dict[int, float]) -> None:
    """Drop the worse half at a rung."""
    for member in sorted(scores, key=lambda member: -scores[member])[-(-len(scores) // 2) :]:
        turns.drop(member)
        ran[member].state = State.PRUNED


def main() -> None:
    """Run the grid, record it, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("space", help="a name in search_spaces/, or a file")
    parser.add_argument("--data-dir", type=Path, help="folder of the image sets; default: DATA_DIR, or ./data")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="of teachers and banks")
    parser.add_argument("--together", type=int, help="trials side by side; default as in a sweep")
    parser.add_argument("--halving", action="store_true", help="drop the worse half at each rung; nothing is recorded")
    parser.add_argument("--out", type=Path, help="default benchmarks/recorded/SPACE.parquet")
    parser.add_argument("--pictures", type=Path, help="folder for a sample grid of each finished trial")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    given = parser.parse_args()
    device = choose_device()
    set_up_torch(os.cpu_count() or 1)
    figures = Figures()
    file = Path(given.space) if given.space.endswith(".yaml") else SPACES / f"{given.space}.yaml"
    space = yaml.safe_load(file.read_text())
    grid = Grid(space, given.data_dir, given.cache, device, figures)
    together = given.together or side_by_side_on_gpu(grid.searched()[0].gan.batch_size)
    begun, everyone, rows = time.perf_counter(), list[Ran](), list[dict[str, Any]]()
    for ran in grid.run(grid.searched(), together, given.halving):
        figures.add("grid_seconds_so_far", time.perf_counter() - begun)
        everyone += ran
        agreements = grid.agreements(everyone)
        rows = [grid.row(trial, agreements) for trial in everyone]
        for row in rows[-len(ran) :]:
            about = f"{row['state']}, score {row['score']:.3f}, held-out accuracy {100 * row['oracle_accuracy']:.1f}"
            scores = ", ".join(f"{rung['score']:.3f}" for rung in row["rungs"])
            print(f"{row['lambda_e']:g}, {row['lambda_d']:g}: {about}, rungs {scores}", flush=True)
        if given.pictures:
            for finished in (trial for trial in ran if trial.state is State.COMPLETE):
                save(finished.trial.outcome, given.pictures / named(finished.config))
        if not given.halving:
            pd.DataFrame(rows).to_parquet(given.out or FOLDER / f"{file.stem}.parquet", index=False, **SMALL)
    figures.add("grid_search_seconds", time.perf_counter() - begun)
    done = [(trial, row) for trial, row in zip(everyone, rows, strict=True) if trial.state is State.COMPLETE]
    best, row = max(done, key=lambda pair: pair[0].score)
    figures.add("grid_chosen_lambda_e", best.config.gan.lambda_e)
    figures.add("grid_chosen_lambda_d", best.config.gan.lambda_d)
    figures.add("grid_chosen_accuracy", 100 * row["oracle_accuracy"])
    if grid.seeds:
        finals(grid, best.config, figures)
    figures.save(given.json)


def finals(grid: Grid, chosen: TrialConfig, figures: Figures) -> None:
    """Train the choice, and after it DCGAN, with the final seeds."""
    weights: dict[str, dict[str, Any]] = {"degan": {}, "dcgan": {"lambda_e": 0.0, "lambda_d": 0.0}}
    for name, own in weights.items():
        begun = time.perf_counter()
        gan = chosen.gan.model_copy(update=own)
        configs = [chosen.model_copy(update={"seed": seed, "gan": gan}) for seed in grid.seeds]
        (ran,) = grid.run(configs, len(configs))
        figures.add(f"grid_finals_{name}_seconds", time.perf_counter() - begun)
        done = [trial for trial in ran if trial.state is State.COMPLETE]
        accuracies = [100 * grid.right(trial).double().mean().item() for trial in done]
        figures.add(f"grid_finals_{name}_accuracy", mean(accuracies))
        figures.add(f"grid_finals_{name}_standard_deviation", stdev(accuracies))


if __name__ == "__main__":
    main()
