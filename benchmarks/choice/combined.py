"""Students of several generators that a criterion chose, beside single choices and proxy images, at equal steps.

Every student of a row is distilled with the same steps and seeds, anew, so that no choice is flattered by the very
student that it was made by. Goes on where it was cut.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.choice.judge import Recorded, recorded, scored
from benchmarks.choice.record import FOLDER, WORK, Bench
from benchmarks.choice.tasks import TASKS
from degan_search.selection.paired_test import paired
from degan_search.settings.trial import TrialConfig
from degan_search.system.device import choose_device, set_up_torch
from degan_search.training.measures import SURE, balanced_soft_agreement, predict, sure_agreement
from degan_search.trial.trial import run

CRITERION, TODAY = "soft, held-out, sure 0.5", "cross_soft_agreement"
"""What chooses members, and what chose configurations before."""
TURNS = 4
"""Images of each generator in a round, in the mean, where the better make more."""


def greedy(task: Recorded, names: Iterable[str], members: int) -> list[str]:
    """Return members by forward selection with repeats (Caruana et al. 2004): each raises the mean output's score."""
    table = task.table.reset_index(drop=True)
    first = table[table["seed"] == 0].reset_index().set_index("trial")["index"]
    views = {name: task.view(int(first[name]), None).held_out.sure(SURE) for name in names}
    outputs = {name: view.student.double().softmax(1) for name, view in views.items()}
    teacher = next(iter(views.values())).teacher
    chosen: list[str] = []
    total = torch.zeros_like(next(iter(outputs.values())))
    for _ in range(members):
        values = {
            name: balanced_soft_agreement(((total + own) / (len(chosen) + 1)).clamp_min(1e-12).log(), teacher)
            for name, own in outputs.items()
        }
        best = max(values, key=lambda name: values[name])
        chosen.append(best)
        total += outputs[best]
    return chosen


def by_lead(scores: pd.Series, members: int) -> list[str]:
    """Return the best trials, each repeated by its lead over the median trial, of `TURNS` times their number."""
    best = scores.nlargest(members)
    lead = best - min(scores.median(), best.iloc[-1]) + 1e-9
    exact = TURNS * members * lead / lead.sum()
    turns = exact.astype(int)
    left = (exact - turns).nlargest(TURNS * members - turns.sum())
    turns[left.index] += 1
    return [str(name) for name, number in turns.items() for _ in range(number)]


class Halfway(dict[str, dict[str, Tensor]]):
    """Generators after half their steps, by trial: trained again when first asked for."""

    def __init__(self, bench: Bench, configs: Mapping[str, TrialConfig]) -> None:
        super().__init__()
        self.bench, self.configs = bench, configs

    def __missing__(self, name: str) -> dict[str, Tensor]:
        config = self.configs[name]
        assert config.gan.steps, "the tasks say how many"
        half = config.gan.model_copy(update={"steps": config.gan.steps // 2})
        short = config.model_copy(
            update={"gan": half, "distill": config.distill.model_copy(update={"steps": 1, "steps_per_epoch": 1})}
        )
        generator = run(short, self.bench.inputs[config.proxy], device=self.bench.device).generator
        assert generator is not None
        self[name] = generator.state_dict()
        return self[name]


def cases(
    bench: Bench,
    proxy: str,
    trials: pd.DataFrame,
    task: Recorded,
    states: Mapping[str, dict[str, Tensor]],
    halfway: Mapping[str, dict[str, Tensor]],
) -> dict[str, Callable[[int], nn.Module]]:
    """Return how to distil the student of each row of the table, by name; each takes a seed."""
    config = bench.task.config(proxy)

    def of(
        names: Sequence[str], balance: bool = False, share: float = 0.0, early: bool = False
    ) -> Callable[[int], nn.Module]:
        def make(seed: int) -> nn.Module:  # which trains the half-trained ones, if it is called at all
            members = [states[name] for name in names] + [halfway[name] for name in names if early]
            return bench.distilled(config, members, seed, balance, share)

        return make

    def best(by: str, number: int = 1) -> list[str]:
        return [str(name) for name in trials.nlargest(number, by)["trial"]]

    def images(seed: int) -> nn.Module:
        seeded = config.model_copy(update={"method": "proxy", "seed": seed})
        return run(seeded, bench.inputs[proxy], device=bench.device).student

    dcgan = list(trials.loc[(trials["lambda_e"] == 0) & (trials["lambda_d"] == 0), "trial"])
    return {
        "proxy images": images,
        **({"DCGAN": of(dcgan)} if dcgan else {}),
        "one, across trials": of(best(TODAY)),
        "one, sure": of(best(CRITERION)),
        "one, by true data": of(best("accuracy")),
        "four, across trials": of(best(TODAY, 4)),
        "four, sure": of(best(CRITERION, 4)),
        "four, sure, balanced": of(best(CRITERION, 4), balance=True),
        "four, sure, balanced, 1/4 proxy": of(best(CRITERION, 4), balance=True, share=0.25),
        "four, sure, balanced, 1/2 proxy": of(best(CRITERION, 4), balance=True, share=0.5),
        "four, sure, by lead": of(by_lead(trials.set_index("trial")[CRITERION], 4)),
        "four, sure, and halfway": of(best(CRITERION, 4), early=True),
        "four, sure, and halfway, balanced, 1/4 proxy": of(best(CRITERION, 4), balance=True, share=0.25, early=True),
        "eight, sure": of(best(CRITERION, 8)),
        "four, greedy": of(greedy(task, trials["trial"], 4)),
    }


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy in percent by pair and case, mean over seeds."""
    means = rows.assign(accuracy=100 * rows["accuracy"]).pivot_table(
        index=["task", "proxy"], columns="case", values="accuracy", sort=False
    )
    return means[list(dict.fromkeys(rows["case"]))]


def against(means: pd.DataFrame, other: str) -> pd.DataFrame:
    """Return each case's mean difference to another over pairs in points, its interval, and the pairs won."""
    found = []
    for case in means.columns.drop(other):
        test = paired(means[case], means[other])
        won = int((means[case] > means[other]).sum())
        found.append((case, test.difference, test.low, test.high, test.p, f"{won} of {test.n}"))
    return pd.DataFrame(found, columns=["case", f"minus {other!r}", "low", "high", "p", "pairs won"])


def show(files: Iterable[Path]) -> None:
    """Print the tables of what has been distilled so far."""
    rows = pd.concat([pd.read_parquet(file) for file in files])
    means = table(rows)
    print(means.reset_index().to_markdown(index=False, floatfmt=".1f"))
    for other in ("one, by true data", "one, across trials", "proxy images"):
        if other in means:
            print(against(means, other).to_markdown(index=False, floatfmt=".1f"))


def main() -> None:
    """Distil and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=[*TASKS, "show"], help="`show` prints the tables of all tasks")
    parser.add_argument("--data-dir", type=Path, help="folder of the image sets; default: DATA_DIR, or ./data")
    parser.add_argument("--work", type=Path, default=WORK, help="folder that `record` wrote")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", help="rows of the table; default: all")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.task == "show":
        show(sorted(FOLDER.glob("choice_combined_*.parquet")))
        return
    set_up_torch(given.threads)
    bench = Bench(TASKS[given.task], given.data_dir, given.work, choose_device(), only_finished=True)
    task = recorded(given.task, given.work)
    frame = scored(task, across=True)
    frame = frame[frame["seed"] == 0]
    states = {one.name: one.kept["generator"] for one in bench.trials() if one.kept}
    file = FOLDER / f"choice_combined_{given.task}.parquet"
    rows = pd.read_parquet(file).to_dict("records") if file.exists() else []
    done = {(row["proxy"], row["case"], row["seed"]) for row in rows}
    halfway = Halfway(bench, {one.name: one.config for one in bench.trials()})
    seen = torch.cat([bench.held_out(name) for name in (*bench.task.proxies, *bench.task.judges)])
    taught = predict(bench.network, seen)
    for seed in given.seeds:
        for proxy, trials in frame.groupby("proxy", sort=False):
            for name, make in cases(bench, str(proxy), trials, task, states, halfway).items():
                if (proxy, name, seed) in done or (given.only and name not in given.only):
                    continue
                student = make(seed)
                accuracy = bench.right(student).double().mean().item()
                agreement = sure_agreement(predict(student, seen), taught)
                about: dict[Hashable, Any] = {"task": given.task, "proxy": proxy, "case": name, "seed": seed}
                rows.append(about | {"accuracy": accuracy, "agreement": agreement})
                pd.DataFrame(rows).to_parquet(file, index=False)
                print(f"{proxy}, {name}, seed {seed}: {100 * accuracy:.1f}", flush=True)


if __name__ == "__main__":
    main()
