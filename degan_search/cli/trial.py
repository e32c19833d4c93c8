"""Commands that run one trial in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from degan_search.cli.app import DataDir, Storage, console, shows_errors
from degan_search.system.errors import UserError, close_matches, visible

if TYPE_CHECKING:
    from degan_search.settings.trial import TrialConfig


@shows_errors
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


@shows_errors
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
    from degan_search.search.space import file as space_file
    from degan_search.search.space.cell import cells
    from degan_search.settings.resolve import merge, trial_config
    from degan_search.settings.trial import GanConfig

    by_method = {cell.example().method: cell for cell in cells(space_file.load(space))}
    if any(cell.example().task != "incremental" for cell in by_method.values()):
        raise UserError(f"--space {space!r} is not of task incremental; table3_cifar100 is")
    if method not in by_method:
        raise UserError(f"--method {method!r} is none of {space!r}; {close_matches(method, by_method)}")
    settings = by_method[method].example().model_dump(mode="json")
    # An example has the lowest value of what a search varies: the released code's weights are taken instead.
    weights = {f"gan.{name}": value for name, value in GanConfig() if f"gan.{name}" in by_method[method].varies()}
    named = {"teacher.dataset": old, "proxy": new}
    resolved = trial_config(settings, named, weights, merge({}, *map(change, set_ or [])))
    _run_here(_with_whole_paths(resolved), out, storage, data_dir, threads)


def _run_here(config: TrialConfig, out: Path, storage: Path, data_dir: Path | None, threads: int) -> None:
    import json

    from degan_search.trial import run_here

    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is an error before the training
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Loading")

        def show(stage: str, step: int, of: int | None) -> None:
            progress.update(task, description=escape(visible(stage)), completed=step, total=of)

        metrics = run_here.run(config, out, storage, data_dir, threads, show)
    console.print_json(json.dumps(metrics))
    console.print(f"Saved in {out}: {', '.join(sorted(file.name for file in out.iterdir()))}", soft_wrap=True)


def read_trial(file: Path, changes: list[str]) -> TrialConfig:
    """Return the trial of a YAML file with settings over the paper's defaults, and `key=value` changes over these.

    Raises:
        UserError: no such file, not YAML, an unknown key or a value out of range.
    """
    from degan_search.networks.named import vouch_for
    from degan_search.settings import yaml_text
    from degan_search.settings.resolve import merge, trial_config
    from degan_search.stages.students import with_student

    what = f"configuration {str(file)!r}"
    settings = yaml_text.read(file, what) or {}
    if not isinstance(settings, dict):
        raise UserError(f"{what} must hold key: value settings, not {type(settings).__name__}")
    changed = merge({}, *map(change, changes))
    given = merge({}, settings, changed)
    vouch_for(given)
    return _with_whole_paths(trial_config(settings, changed, {"student": with_student(given).get("student", {})}))


def _with_whole_paths(config: TrialConfig) -> TrialConfig:
    from degan_search.settings.paths import with_whole_paths
    from degan_search.settings.resolve import trial_config

    return trial_config(with_whole_paths(config.model_dump(mode="json")))


def change(text: str) -> dict[str, Any]:
    """Return the one setting of a `--set key=value`, by its key.

    Raises:
        UserError: no key, no `=`, or a value that is not YAML.
    """
    from degan_search.settings import yaml_text

    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise UserError(f"--set {text!r} must be key=value, as in gan.lambda_e=1")
    return {key.strip(): yaml_text.parse(value, f"--set {text!r}")}
