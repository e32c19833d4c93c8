"""Commands that run trials."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from degan_search.cli.app import DataDir, Storage, app, console, speaks
from degan_search.errors import UserError


@app.command()
@speaks
def sweep(
    space: Annotated[str, typer.Argument(help="A shipped space (see `spaces`) or a path to your own .yaml file.")],
    name: Annotated[str | None, typer.Option(help="Name of the run; the space's name by default.")] = None,
    storage: Storage = Path("runs"),
    data_dir: DataDir = None,
    cpus_per_trial: Annotated[int, typer.Option(min=1, help="CPUs, and torch threads, of a trial.")] = 1,
    gpus_per_trial: Annotated[float, typer.Option(min=0, help="Share of a GPU for a trial, such as 0.25.")] = 0.0,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Trials at a time; as many as fit.")] = None,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster, host:port or auto.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved settings, trials and time; run nothing.")] = False,
) -> None:
    """Search the weights for every cell of a space, run the finals, and print the table of proxies by methods."""
    from degan_search.search import space as spaces

    loaded = spaces.load(space)
    if dry_run:
        _describe(loaded, max_concurrent, cpus_per_trial, data_dir)
        return
    from degan_search.search.sweep import Options
    from degan_search.search.sweep import sweep as run_sweep

    options = Options(
        storage, name or Path(space).stem, data_dir, cpus_per_trial, gpus_per_trial, max_concurrent, address
    )
    run_sweep(loaded, options, console)


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
    import json

    from degan_search import foreground, settings_file
    from degan_search.config import trial_config

    what = f"configuration {str(config)!r}"
    settings = settings_file.read(config, what) or {}
    if not isinstance(settings, dict):
        raise UserError(f"{what} must hold key: value settings, not {type(settings).__name__}")
    resolved = trial_config(settings, *map(_change, set_ or []))
    out.mkdir(parents=True, exist_ok=True)  # that it cannot be written is said before the training
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Loading")

        def show(stage: str, step: int, of: int | None) -> None:
            progress.update(task, description=stage, completed=step, total=of)

        metrics = foreground.run(resolved, out, storage, data_dir, threads, show)
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


def _change(text: str) -> dict[str, Any]:
    from degan_search import settings_file

    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise UserError(f"--set {text!r} must be key=value, as in gan.lambda_e=1")
    return {key.strip(): settings_file.parse(value, f"--set {text!r}")}


def _describe(loaded: Any, max_concurrent: int | None, cpus_per_trial: int, data_dir: Path | None) -> None:
    import os

    from degan_search.search import estimate
    from degan_search.search import space as spaces_

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
    fewest, most = (_duration(seconds) for seconds in estimate.sweep_seconds(loaded, slots, data_dir))
    span = fewest if fewest == most else f"{fewest} to {most}, as patience decides,"
    sys.stdout.write(
        f"\n{search} search trials and {finals * len(cells)} final runs in {len(cells)} cells: about {span} on "
        f"{slots} slots of this machine's CPU if no trial stopped early (a few steps timed and scaled; the teacher "
        f"and reading images apart).\n"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.0f} h" if seconds >= 7200 else f"{max(1, seconds / 60):.0f} min"
