"""What is delivered after so much search, by four ways to choose, replayed on a task's recorded trials.

A search draws recorded trials at random, of all four proxies, as nobody says which is the better, until its seconds are
used up; each counts as long as the task's trials took in the median. All four ways see the same draws; what each
delivers is distilled anew, with the same steps.
Goes on where it was cut.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analysis.figures import style
from benchmarks.choice.combined import CRITERION, TODAY
from benchmarks.choice.judge import recorded, scored
from benchmarks.choice.record import FOLDER, WORK, Bench
from benchmarks.choice.tasks import TASKS
from degan_search.system.device import choose_device, set_up_torch

BUDGETS = (150, 450, 1200)
"""Seconds of one core for the search."""
RELEASED, OWN_RULE, BEFORE, NOW = (
    "the released weights, one trial",
    "random search, DeGAN's own rule",
    "agreement across trials, one generator",
    "sure agreement, four together",
)


def drawn(trials: pd.DataFrame, seconds: float, seed: int) -> pd.DataFrame:
    """Return the trials that a search of so many seconds runs; at least one."""
    order = trials.sample(frac=1, random_state=seed)
    return order.head(max(1, int((order["seconds"].cumsum() <= seconds).sum())))


def delivered(trials: pd.DataFrame, seconds: float, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Yield each way's name, and the trials whose generators teach what it delivers."""
    seen = drawn(trials, seconds, seed)
    released = trials[(trials["lambda_e"] == 0) & (trials["lambda_d"] == 5)]
    yield RELEASED, [str(released.sample(1, random_state=seed)["trial"].iloc[0])]
    for way, by, members in ((OWN_RULE, "own_agreement", 1), (BEFORE, TODAY, 1), (NOW, CRITERION, 4)):
        yield way, [str(name) for name in seen.nlargest(members, by)["trial"]]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy in percent by task and seconds, mean over seeds with their deviation."""
    seeds = rows.groupby(["task", "seconds", "way"], sort=False)["accuracy"].agg(["mean", "std"]).mul(100).reset_index()
    texts = [f"{mean:.1f} ± {std:.1f}" for mean, std in zip(seeds["mean"], seeds["std"], strict=True)]
    return seeds.assign(text=texts).pivot(index=["task", "seconds"], columns="way", values="text")


def figure(rows: pd.DataFrame, path: Path) -> None:
    """Draw accuracy against the search's minutes, a panel a task; thin lines are single seeds."""
    tasks = list(rows["task"].unique())
    drawing, grid = style.panels(len(tasks), width=4.2, sharey=True)
    ways = list(rows["way"].unique())
    for axes, task in zip(grid, tasks, strict=True):
        style.plain(axes)
        axes.set_title(task)
        for colour, way in zip(style.COLOURS, ways, strict=False):
            one = rows[(rows["task"] == task) & (rows["way"] == way)]
            seeds = 100 * one.pivot(index="seconds", columns="seed", values="accuracy")
            axes.plot(seeds.index / 60, seeds, color=colour, linewidth=0.5, alpha=0.5)
            axes.plot(seeds.index / 60, seeds.mean(axis=1), color=colour, marker="o")
    style.name_axes(grid, "minutes of search, one core", "accuracy of what is delivered (%)")
    style.legend(drawing, [style.mark(way, color=c, marker="o") for way, c in zip(ways, style.COLOURS, strict=False)])
    style.save(drawing, path)


def main() -> None:
    """Distil and print, or show what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*TASKS, "show"], help="`show` prints and draws all tasks")
    parser.add_argument("--data-dir", type=Path, help="folder of the image sets; default: DATA_DIR, or ./data")
    parser.add_argument("--work", type=Path, default=WORK, help="folder that `record` wrote")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--figure", type=Path, help="with `show`: file of the figure")
    given = parser.parse_args()
    if given.task == "show":
        found = pd.concat([pd.read_parquet(file) for file in sorted(FOLDER.glob("choice_budget_*.parquet"))])
        print(table(found).reset_index().to_markdown(index=False))
        if given.figure:
            figure(found, given.figure)
        return
    set_up_torch(1)
    bench = Bench(TASKS[given.task], given.data_dir, given.work, choose_device())
    task = recorded(given.task, given.work)
    trials = scored(task, across=True)
    trials = trials[trials["seed"] == 0].assign(seconds=task.table["seconds"].median())
    ran = {one.name: one for one in bench.trials()}
    file = FOLDER / f"choice_budget_{given.task}.parquet"
    rows = pd.read_parquet(file).to_dict("records") if file.exists() else []
    known = {(row["members"], row["way"] == NOW, row["seed"]): row["accuracy"] for row in rows}
    done = {(row["seconds"], row["way"], row["seed"]) for row in rows}
    for seed in given.seeds:
        for seconds in BUDGETS:
            for way, names in delivered(trials, seconds, seed):
                if (seconds, way, seed) in done:
                    continue
                key = (",".join(names), way == NOW, seed)
                if key not in known:
                    members = [ran[name].kept["generator"] for name in names]  # type: ignore[index]
                    together = {"balance": True, "share": 0.25} if way == NOW else {}
                    student = bench.distilled(ran[names[0]].config, members, seed, **together)  # type: ignore[arg-type]
                    known[key] = bench.right(student).double().mean().item()
                about = {"task": given.task, "seconds": seconds, "way": way, "seed": seed, "members": key[0]}
                rows.append(about | {"accuracy": known[key]})
                pd.DataFrame(rows).to_parquet(file, index=False)
                print(f"{seconds} s, {way}, seed {seed}: {100 * known[key]:.1f} ({key[0]})", flush=True)


if __name__ == "__main__":
    main()
