"""Commands that run trials."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from degan_search.cli import stored
from degan_search.cli.app import DataDir, Storage, app, console, speaks
from degan_search.cli.results import grouping
from degan_search.errors import UserError, close_matches, visible

if TYPE_CHECKING:
    from degan_search.config import TrialConfig


CpusPerTrial = Annotated[int, typer.Option(min=1, help="CPUs, and torch threads, of a trial.")]
GpusPerTrial = Annotated[float, typer.Option(min=0, help="Share of a GPU for a trial, such as 0.25.")]
MaxConcurrent = Annotated[int | None, typer.Option(min=1, help="Trials at a time; as many as fit.")]
Fuse = Annotated[
    int | None,
    typer.Option(min=1, help="Trials of a cell side by side in one process; chosen by the GPU's load, 1 on a CPU."),
]
Address = Annotated[str | None, typer.Option(help="An existing Ray cluster, host:port or auto.")]
Track = Annotated[str | None, typer.Option(help="Log to mlflow, wandb or tensorboard as well.")]
Retries = Annotated[int, typer.Option(min=0, help="Further attempts of a trial whose worker, memory or disk failed.")]
TimeLimit = Annotated[str | None, typer.Option(help="End a trial that takes longer, such as 30min or 2h.")]
CheckpointEvery = Annotated[str, typer.Option(help="Time between two checkpoints of a trial, such as 60s.")]
Keep = Annotated[str, typer.Option(help="Search trials of each cell whose networks are kept: the best few, or all.")]


@app.command()
@speaks
def sweep(
    space: Annotated[str, typer.Argument(help="A shipped space (see `spaces`) or a path to your own .yaml file.")],
    name: Annotated[str | None, typer.Option(help="Name of the run; the space's name by default.")] = None,
    storage: Annotated[
        str, typer.Option(help="Folder, or object store such as s3://bucket/runs, of runs, teachers and images.")
    ] = "runs",
    data_dir: DataDir = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = 0.0,
    max_concurrent: MaxConcurrent = None,
    fuse: Fuse = None,
    address: Address = None,
    track: Track = None,
    retries: Retries = 2,
    time_limit: TimeLimit = None,
    checkpoint_every: CheckpointEvery = "60s",
    keep: Keep = "5",
    budget: Annotated[
        str | None,
        typer.Option(help="Time for all of it, such as 2h: it decides how many search trials there are."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved settings, trials and time; run nothing.")] = False,
) -> None:
    """Search the weights for every cell of a space, run the finals, and print the table of proxies by methods.

    What is cut short goes on with `resume`.
    """
    from degan_search.search import space as spaces

    loaded = spaces.load(space)
    seconds = _budget(budget)
    if dry_run:
        _describe(loaded, max_concurrent, cpus_per_trial, data_dir, seconds)
        return
    from degan_search.search.options import Options
    from degan_search.search.sweep import sweep as run_sweep

    options = Options(
        **_storage(storage),
        name=name or Path(space).stem,
        data_dir=data_dir and data_dir.absolute(),  # `resume` may be called from elsewhere
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=max_concurrent,
        fuse=fuse,
        address=address,
        track=track,
        retries=retries,
        time_limit=_seconds("--time-limit", time_limit),
        checkpoint_every=_seconds("--checkpoint-every", checkpoint_every) or 0.0,
        keep=_kept(keep),
        budget=seconds,
    )
    run_sweep(loaded, options, console)


@app.command()
@speaks
def resume(
    run: Annotated[str, typer.Argument(help="A run's folder, or s3://bucket/runs/name.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Search trials of each cell in all, to add some.")] = None,
    space: Annotated[str | None, typer.Option(help="Another .yaml to go on with, by --allow-changed.")] = None,
    allow_changed: Annotated[bool, typer.Option(help="Go on with a space that was changed since.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Run trials again that failed by a fault.")] = False,
    data_dir: DataDir = None,
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="CPUs, and torch threads, of a trial.")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(min=0, help="Share of a GPU for a trial.")] = None,
    max_concurrent: MaxConcurrent = None,
    fuse: Fuse = None,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster; '' for none.")] = None,
    track: Track = None,
    retries: Annotated[int | None, typer.Option(min=0, help="Further attempts of a broken trial.")] = None,
    time_limit: TimeLimit = None,
    checkpoint_every: Annotated[str | None, typer.Option(help="Time between two checkpoints.")] = None,
    keep: Annotated[str | None, typer.Option(help="Trials of each cell whose networks are kept, or all.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Time from now, such as 1h; by default what is left of the run's own, if it has one."),
    ] = None,
) -> None:
    """Go on with a run that was cut short, or add trials to it; what is not said is done as it was begun.

    Finished trials stay; unfinished ones go on from their checkpoints. `space.yaml` in the run's folder may not have
    changed, unless --allow-changed.
    """
    from degan_search.search.options import Options
    from degan_search.search.resume import resume as run_resume

    if "://" in run:
        from degan_search.storage import split_run

        parent, name = split_run(run)
        where = Options(**_storage(parent), name=name)
    else:
        where = Options(storage=Path(run).resolve().parent, name=Path(run).resolve().name)
    changes: dict[str, Any] = {
        "data_dir": data_dir and data_dir.absolute(),
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "max_concurrent": max_concurrent,
        "fuse": fuse,
        "address": address,
        "track": track,
        "retries": retries,
        "time_limit": _seconds("--time-limit", time_limit),
        "checkpoint_every": _seconds("--checkpoint-every", checkpoint_every),
        "budget": _budget(budget),
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if keep is not None:
        changes["keep"] = _kept(keep)
    if address == "":
        changes["address"] = None
    run_resume(where, console, changes, trials, space, allow_changed, retry_failed)


def _storage(storage: str) -> dict[str, Any]:
    """Return the options that say where runs are kept: of an object store, a working copy is."""
    if "://" not in storage:
        return {"storage": Path(storage)}
    from degan_search import storage as storages

    return {"storage": storages.working_copy(storage), "remote": storage}


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    import pandas as pd

    try:
        seconds = pd.Timedelta(text if not text.replace(".", "").isdecimal() else f"{text}s").total_seconds()
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise UserError(f"{option} {text!r} is no time; give such as 90s, 30min or 2h")
    return float(seconds)


def _budget(text: str | None) -> float | None:
    seconds = _seconds("--budget", text)
    if seconds == 0:
        raise UserError(f"--budget {text!r} is no time at all; give such as 30min or 2h")
    return seconds


def _kept(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise UserError(f"--keep {text!r} must be a whole number, or all")
    return int(text)


@app.command()
@speaks
def finals(
    run: Annotated[
        Path, typer.Argument(help="A run's folder or address; the new rows go there too.", parser=stored.networks)
    ],
    top: Annotated[int, typer.Option(help="How many configurations of each proxy (or of what --per says).")] = 1,
    per: Annotated[str, typer.Option(help="Choose within each proxy, or within each method or cell on it.")] = "proxy",
    seeds: Annotated[int, typer.Option(help="How many; such as no trial of this run had.")] = 5,
    by: Annotated[str | None, typer.Option(help="Criterion, or score; by default the best that the run has.")] = None,
    budget: Annotated[
        str, typer.Option(help="as-is (as searched) or paper (the paper's lengths and rates).")
    ] = "as-is",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value over that: gan.steps=5000")] = None,
    baselines: Annotated[
        str | None,
        typer.Option(help="By comma, methods without weights; '' for none. By default those of the task."),
    ] = None,
    compare_only: Annotated[bool, typer.Option(help="Run nothing: compare the final runs that are there.")] = False,
    storage: Annotated[Path | None, typer.Option(help="Where the teacher is kept; beside the run.")] = None,
    data_dir: DataDir = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = 0.0,
    max_concurrent: MaxConcurrent = None,
    fuse: Fuse = None,
    address: Address = None,
    retries: Retries = 2,
    time_limit: TimeLimit = None,
    checkpoint_every: CheckpointEvery = "60s",
) -> None:
    """Run a search's best configurations again with fresh seeds, beside baselines, and compare them in pairs.

    Where several compete for a proxy, those that cannot win stop after three seeds or more. Only final runs are
    measured on the test images. Writes finals.csv, finals.md and finals.json into the run.
    """
    from analysis import paired

    if compare_only:
        from degan_search import ledger

        table = paired.compare(ledger.load(run))
    else:
        from degan_search.search.finals import Request
        from degan_search.search.finals import finals as run_finals
        from degan_search.search.options import Options

        names = None if baselines is None else tuple(name.strip() for name in baselines.split(",") if name.strip())
        changes = {key: value for change in set_ or [] for key, value in _change(change).items()}
        request = Request(top, grouping(per), seeds, by, budget, changes, names)
        # An absolute name: the run may lie outside the storage.
        options = Options(
            storage=storage or run.resolve().parent,
            name=str(run.resolve()),
            data_dir=data_dir,
            cpus_per_trial=cpus_per_trial,
            gpus_per_trial=gpus_per_trial,
            max_concurrent=max_concurrent,
            fuse=fuse,
            address=address,
            retries=retries,
            time_limit=_seconds("--time-limit", time_limit),
            checkpoint_every=_seconds("--checkpoint-every", checkpoint_every) or 0.0,
        )
        table = run_finals(request, options, console)
    console.print(paired.render(table), highlight=False, markup=False, soft_wrap=True)
    paired.save(table, run)
    console.print(f"Written: {run / 'finals.csv'}, {run / 'finals.md'}", highlight=False, soft_wrap=True)


@app.command()
@speaks
def run(
    config: Annotated[Path, typer.Argument(help="A YAML file with a trial's settings over the paper's defaults.")],
    out: Annotated[Path, typer.Option(help="New folder for student, generator, samples and result.")] = Path("trial"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value over the file: gan.lambda_e=1")] = None,
    storage: Storage = Path("runs"),
    data_dir: DataDir = None,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads; results are equal for equal threads.")] = 1,
) -> None:
    """Run one trial in the foreground and save its sample grid, generator and student."""
    _run_here(read_trial(config, set_ or []), out, storage, data_dir, threads)


@app.command()
@speaks
def incremental(
    old: Annotated[str, typer.Option(help="Images of the classes that are known.")] = "cifar100/order_1993_first_20",
    new: Annotated[str, typer.Option(help="Labelled images of new classes.")] = "cifar100/order_1993_next_20",
    method: Annotated[str, typer.Option(help="How the old classes are kept: a method of the space.")] = "degan",
    space: Annotated[str, typer.Option(help="A space of the task, whose settings are taken.")] = "table3_cifar100",
    out: Annotated[Path, typer.Option(help="New folder for the network, generator, samples and result.")] = Path(
        "grown"
    ),
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value over that: teacher.path=my.pt")] = None,
    storage: Storage = Path("runs"),
    data_dir: DataDir = None,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads; results are equal for equal threads.")] = 1,
) -> None:
    """Teach a classifier new classes without the old ones' images, here and now, and save the grown network.

    Table 3 of the paper, one method at a time; `sweep table3_cifar100` runs all of it. The initial network is trained
    on the old images, or read from `--set teacher.path=FILE`.
    """
    from degan_search.config import GanConfig, merge, trial_config
    from degan_search.search import space as spaces_

    cells = {cell.example().method: cell for cell in spaces_.cells(spaces_.load(space))}
    if any(cell.example().task != "incremental" for cell in cells.values()):
        raise UserError(f"--space {space!r} is not of task incremental; table3_cifar100 is")
    if method not in cells:
        raise UserError(f"--method {method!r} is none of {space!r}; {close_matches(method, cells)}")
    settings = cells[method].example().model_dump(mode="json")
    # What a search would vary is at its lowest there: the released code's weights instead.
    weights = {f"gan.{name}": value for name, value in GanConfig() if f"gan.{name}" in cells[method].varies()}
    named = {"teacher.dataset": old, "proxy": new}
    resolved = trial_config(settings, named, weights, merge({}, *map(_change, set_ or [])))
    _run_here(resolved, out, storage, data_dir, threads)


def _run_here(config: TrialConfig, out: Path, storage: Path, data_dir: Path | None, threads: int) -> None:
    import json

    from degan_search import foreground

    out.mkdir(parents=True, exist_ok=True)  # that it cannot be written is said before the training
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Loading")

        def show(stage: str, step: int, of: int | None) -> None:
            progress.update(task, description=escape(visible(stage)), completed=step, total=of)

        metrics = foreground.run(config, out, storage, data_dir, threads, show)
    console.print_json(json.dumps(metrics))
    console.print(
        f"Saved in {out}: student.safetensors, and from a generator generator.safetensors and samples.png",
        soft_wrap=True,
    )


@app.command()
@speaks
def spaces() -> None:
    """List the space files that come with the package."""
    from degan_search.search import space as spaces_

    for name in spaces_.shipped():
        description = " ".join(spaces_.load(name).description.split())
        console.print(f"{name:24s} {description}", highlight=False, soft_wrap=True)


def read_trial(file: Path, changes: list[str]) -> TrialConfig:
    """Return the trial of a YAML file with settings over the paper's defaults, and `key=value` changes over these.

    Raises:
        UserError: no such file, not YAML, an unknown key or a value out of range.
    """
    from degan_search import settings_file
    from degan_search.config import merge, trial_config

    what = f"configuration {str(file)!r}"
    settings = settings_file.read(file, what) or {}
    if not isinstance(settings, dict):
        raise UserError(f"{what} must hold key: value settings, not {type(settings).__name__}")
    return trial_config(settings, merge({}, *map(_change, changes)))


def _change(text: str) -> dict[str, Any]:
    from degan_search import settings_file

    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise UserError(f"--set {text!r} must be key=value, as in gan.lambda_e=1")
    return {key.strip(): settings_file.parse(value, f"--set {text!r}")}


def _describe(
    loaded: Any, max_concurrent: int | None, cpus_per_trial: int, data_dir: Path | None, budget: float | None
) -> None:
    import os

    from degan_search.search import estimate
    from degan_search.search import space as spaces_
    from degan_search.search.cost import duration

    cells = spaces_.cells(loaded)
    finals = len(loaded.finals.seeds) if loaded.finals else 0
    sys.stdout.write(spaces_.dump(loaded))
    sys.stdout.write("\n# every cell, with the settings that differ from the paper's defaults\n")
    for cell in cells:
        example = cell.example()
        networks = f"{example.teacher.network} -> {example.student.network}"
        varies = ", ".join(cell.varies()) or "nothing"
        sys.stdout.write(
            f"{cell.label}: true {example.teacher.dataset}, proxy {', '.join(cell.proxies())}, "
            f"method {example.method}, {networks}; varies {varies}; "
            f"{cell.trials()} search trials, {finals} final runs\n"
        )
    slots = max_concurrent or max(1, (os.cpu_count() or 1) // cpus_per_trial)
    search = sum(cell.trials() for cell in cells)
    fewest, most = map(duration, estimate.sweep_seconds(loaded, slots, data_dir, "cpu", cpus_per_trial))
    span = fewest if fewest == most else f"{fewest} to {most}, as patience decides,"
    sys.stdout.write(
        f"\n{search} search trials and {finals * len(cells)} final runs in {len(cells)} cells: about {span} on "
        f"{slots} slots of this machine's CPU if no trial stopped early (a few steps timed and scaled; the teacher "
        f"and reading images apart).\n"
    )
    if budget:
        sys.stdout.write(f"{_plan(loaded, slots, cpus_per_trial, data_dir, budget)}\n")


def _plan(loaded: Any, slots: int, cpus_per_trial: int, data_dir: Path | None, budget: float) -> str:
    """Return what a sweep with this budget would try.

    Raises:
        UserError: it would be refused.
    """
    from degan_search.search import cost, estimate
    from degan_search.search import space as spaces_
    from degan_search.search.searcher import CellSearcher

    spaces_.check_budget(loaded)
    model = estimate.cost_model(loaded, data_dir, threads=cpus_per_trial)
    model.slots = slots
    search = CellSearcher(spaces_.cells(loaded))
    found = cost.Budget(model, search, budget, 0.0, max(cost.FEWEST, len(loaded.first)))
    found.check(0.0)
    return found.plan(0.0)
