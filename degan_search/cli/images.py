"""Commands that make images or a student's file from a trial, or measure proxy images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from degan_search.api import stored
from degan_search.cli.app import DataDir, RunWithNetworks, console, print_line, shows_errors
from degan_search.cli.trial import read_trial
from degan_search.system.errors import UserError, visible

if TYPE_CHECKING:
    import pandas as pd

    from degan_search.settings.trial import TeacherConfig

Trial = Annotated[
    str | None,
    typer.Option(
        help="A trial's id, `best`: the highest score, whatever the proxy, or a method's name, such as combined: the "
        "highest of it. Needed if there are several."
    ),
]


@shows_errors
def generate(
    run: RunWithNetworks,
    out: Annotated[Path, typer.Option(help="New folder, or for parquet and npz a new file.")],
    trial: Trial = None,
    count: Annotated[int, typer.Option(help="Number of images.")] = 50_000,
    format_: Annotated[str, typer.Option("--format", help="folders (one for each class), parquet or npz.")] = "folders",
    balance: Annotated[bool, typer.Option(help="As many of each class that the teacher predicts.")] = False,
    draws: Annotated[int, typer.Option(help="Limit of --balance: images drawn for each one wanted.")] = 50,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    storage: Annotated[Path | None, typer.Option(help="Folder with the teacher's cache; the run's by default.")] = None,
    data_dir: DataDir = None,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads; results are equal for equal threads.")] = 1,
) -> None:
    """Write images from a trial's generator, labelled by the teacher: class folders, Parquet, or npz with soft labels.

    The images can be a proxy again: folder:OUT, parquet:OUT or npz:OUT.
    """
    from degan_search.products.images import Order
    from degan_search.products.images import generate as generate_images

    order = Order(count, format_, balance, draws, seed)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Loading")

        def show(stage: str, step: int, of: int | None) -> None:
            progress.update(task, description=escape(visible(stage)), completed=step, total=of)

        made = generate_images(run, trial, order, out, storage, data_dir, threads, show)
    shares = ", ".join(f"{name} {count}" for name, count in made.counts.items())
    total = sum(made.counts.values())
    print_line(f"{_trial_text(made.trial)}: {total} images, of {made.drawn} drawn, saved in {out}: {shares}")
    if made.short:
        print_line(
            f"Short of images, although {draws} were drawn for each one wanted (--draws): {', '.join(made.short)}"
        )


@shows_errors
def export_student(
    run: RunWithNetworks,
    out: Annotated[Path, typer.Option(help="New file ending in .pt2 or .onnx, or new folder.")],
    trial: Trial = None,
    softmax: Annotated[bool, typer.Option(help="Give probabilities in place of logits.")] = False,
    format_: Annotated[
        str | None, typer.Option("--format", help="pt2, onnx or folder; by default as --out ends.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a trial's student for other programs: torch.export (.pt2), ONNX (.onnx), or a folder with its weights too.

    It takes bytes, uint8 [N, C, H, W]. Inside are preprocessing, class names, measures, and a check batch with the
    outputs expected, for check-student. Loading a .pt2 file of a stranger's may run code.
    """
    from degan_search.products.student_file import export_student as export
    from degan_search.selection.worth import worth

    row = export(run, trial, out, softmax, data_dir, format_)
    print_line(f"{_trial_text(row)}: student saved in {out}")
    if found := worth(row):
        print_line(
            f"Its accuracy is estimated, without data, at {found.estimate:.0%} of the teacher's; {found.low:.0%} to "
            f"{found.high:.0%} held the truth of 88 students in 100"
        )


@shows_errors
def check_student(
    student: Annotated[Path, typer.Argument(help="What export-student wrote: a file or folder of your own.")],
) -> None:
    """Try an exported student on the check batch that it holds, and say how far its outputs are from those expected.

    Loading a .pt2 file, or a folder with one, may run code: not for a stranger's.
    """
    from degan_search.products.student_file import check

    checked = check(student)
    text = (
        f"{checked.images} check images, largest difference {checked.difference:.2g} of {checked.allowed:.2g} allowed"
    )
    if not checked.passes:
        raise UserError(f"{student} no longer gives the outputs that it was exported with: {text}")
    print_line(f"{student}: as exported: {text}")


@shows_errors
def relatedness(
    teacher: Annotated[
        Path,
        typer.Option(
            help="A run's folder or address, or a YAML file with a trial's settings, as for run.", parser=stored.teacher
        ),
    ],
    proxy: Annotated[list[str] | None, typer.Option(help="A proxy's name; once for each.")] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            help="A run with this teacher, once for each: measure its proxies and print the correlations.",
            parser=stored.rows,
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Images of each proxy, at most.")] = 5000,
    true: Annotated[bool, typer.Option(help="Compare with true training images as well, for analysis.")] = False,
    finals: Annotated[bool, typer.Option(help="Correlate with the test accuracy of final runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file for the measures.")] = None,
    storage: Annotated[Path | None, typer.Option(help="Folder with the teacher's cache; the run's by default.")] = None,
    data_dir: DataDir = None,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads; results are equal for equal threads.")] = 1,
) -> None:
    """Rank proxies by how related they are to what a teacher knows, before any training on them.

    Ranked by the effective number of classes that the teacher sees in them, then by coverage: this needs no true
    image.
    """
    from analysis.agreement import without_true_data
    from analysis.relatedness import cells, correlations, outcomes, render
    from analysis.tables.styles import csv
    from degan_search.evaluation.relatedness import relatedness as measure
    from degan_search.ledger.columns import Phase
    from degan_search.storage.layout import CACHE
    from degan_search.system import device
    from degan_search.system.whole_files import write_bytes

    config = _teacher(teacher, data_dir)
    trials = _trials(runs, config, data_dir) if runs else None
    phase = Phase.FINAL if finals else Phase.SEARCH
    judged = None if trials is None or without_true_data(trials) else trials
    if judged is not None:
        outcomes(judged, phase)  # what is missing is said before anything is measured
    measured = [*((name, None) for name in proxy or []), *(cells(trials) if trials is not None else [])]
    cache = (storage or (teacher.resolve().parent if teacher.is_dir() else Path("runs"))) / CACHE
    device.set_up_torch(threads)
    sets, where = list(dict.fromkeys(measured)), device.choose_device()
    with console.status("Loading") as status:

        def show(stage: str) -> None:
            status.update(escape(visible(stage)))

        measures = measure(config, sets, cache, data_dir, images, true, where, show)
    if out:
        write_bytes(out, csv(measures).encode())
    _print_measures(measures)
    if judged is not None:
        print_line(render(correlations(judged, measures, phase)))
    elif runs:
        print_line("No correlations: these trials have no true data (teacher.dataset), so no accuracies.")


def _teacher(place: Path, data_dir: Path | None) -> TeacherConfig:
    """Return the teacher of a run's folder, or of a trial's settings file."""
    from degan_search import ledger
    from degan_search.ledger.columns import config_of
    from degan_search.stages.teacher_file import recorded
    from degan_search.trial import named_files

    if not place.is_dir():
        return read_trial(place, []).teacher
    frame = ledger.load(place)
    if frame.empty:
        raise UserError(f"--teacher {str(place)!r} has no trial yet that would tell its teacher")
    config = recorded(config_of(frame.iloc[0]).teacher)
    named_files.check(place, [config.path], named_files.teachers_sets(config), data_dir)
    return config


def _trials(runs: list[Path], teacher: TeacherConfig, data_dir: Path | None) -> pd.DataFrame:
    """Return the trials of runs that have this teacher."""
    from degan_search import ledger
    from degan_search.evaluation.accuracy import check_files
    from degan_search.ledger.columns import config_of
    from degan_search.stages.teacher_file import recorded

    frame = ledger.load(list(runs))
    same = [recorded(config_of(row).teacher) == recorded(teacher) for _, row in frame.iterrows()]
    trials = frame[same]
    if trials.empty:
        raise UserError(f"no trial of --runs {', '.join(map(str, runs))} has the teacher of --teacher")
    for run in runs:
        check_files(run, ledger.load(run), data_dir)
    return trials


def _print_measures(frame: pd.DataFrame) -> None:
    """Print one table of the measures without true data, and one for each space in which true images are measured."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    from degan_search.evaluation.relatedness import MEASURES

    titles = {
        "": "Without true images",
        "teacher": "Against true images, in the teacher's features",
        "random": "Against true images, in a random network's features",
    }
    for space, title in titles.items():
        names = [name for name in frame if name in MEASURES and (MEASURES[name].space or "") == space]
        if not names:
            continue
        about = ["images"] if space == "" else []
        table = Table("", Column("proxy", no_wrap=True), *about, title=title, title_justify="left", box=SIMPLE_HEAD)
        table.padding = (0, 1, 0, 0)
        for name in names:
            arrow = "↑" if MEASURES[name].direction == "max" else "↓"
            table.add_column(f"{name.removesuffix(f'_{space}').replace('_', ' ')} {arrow}", justify="right")
        for rank, row in enumerate(frame.to_dict("records"), 1):
            numbers = [*(f"{row[name]:,}" for name in about), *(_number(row[name]) for name in names)]
            table.add_row(str(rank), visible(row["proxy"]), *numbers)
        console.print(table)
    print_line("↑ more is more related, ↓ less is. Ranked by effective classes, then coverage.")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _trial_text(row: Any) -> str:
    return f"{row['trial_id']} ({row['config_method']} on {row['config_proxy']}, score {row['score']:.3f})"
