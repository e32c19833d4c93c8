"""The command that looks at a teacher and proxies before anything is trained, and writes a first space file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from degan_search.api.options import seconds
from degan_search.cli.app import DataDir, console, print_line, shows_errors
from degan_search.system.errors import UserError, command, visible

if TYPE_CHECKING:
    from degan_search.evaluation.first_look import Look, Seen
    from degan_search.networks.image_input import ImageInput
    from degan_search.search.planning.first_space import Fitted
    from degan_search.settings.trial import TeacherConfig
    from degan_search.stages.students import Choice

COMMON = 4
"""Classes that the table names for each proxy."""
OFFERED = 5
"""Students that are named beside the one taken."""


@shows_errors
def init(
    teacher: Annotated[
        str, typer.Option(help="The network: net.py:build, torchvision/resnet18, a built-in name, or teacher.onnx.")
    ],
    proxy: Annotated[list[str], typer.Option(help="Proxy images, folder:PATH for example; once for each.")],
    weights: Annotated[
        str | None, typer.Option(help="The teacher's file of weights; an ONNX file has its own.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Pixels of the teacher's images: 64, or 48x64 (height x width).")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="1 for gray, 3 for RGB.")] = None,
    normalise: Annotated[str | None, typer.Option(help="imagenet, unit ([0, 1]) or signed ([-1, 1]).")] = None,
    order: Annotated[str | None, typer.Option(help="bgr if blue comes before red, as OpenCV reads images.")] = None,
    classes: Annotated[str | None, typer.Option(help="Names a,b,c, a text file with one a line, or a number.")] = None,
    student: Annotated[str, typer.Option(help="A network, as for --teacher; auto offers one.")] = "auto",
    check: Annotated[
        str | None, typer.Option(help="A few labelled images (folder:PATH) to measure on; nothing trains on them.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for the whole sweep: 30min, 2h.")] = "1h",
    out: Annotated[Path, typer.Option(help="The new space file.")] = Path("my.yaml"),
    trusted: Annotated[bool, typer.Option("--trusted", help="Lets a TorchScript teacher run its program.")] = False,
    images: Annotated[int, typer.Option(help="Images of each proxy to look at, at most.")] = 2000,
    data_dir: DataDir = None,
) -> None:
    """Look at a teacher and its proxies, warn of what looks wrong, and write a space file that fits a time budget.

    Nothing is trained, and no true image is read. `degan-search sweep my.yaml` then needs no further word.
    """
    from degan_search.data import proxies
    from degan_search.networks.named import vouch_for
    from degan_search.networks.takes import teacher_input
    from degan_search.stages import students
    from degan_search.system.whole_files import write_bytes

    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {str(out)!r} must end in .yaml")
    if out.exists():
        raise UserError(f"--out {str(out)!r} is already there; choose another name, or move it away")
    time_budget = seconds("--budget", budget)
    config = _teacher(teacher, weights, size, channels, normalise, order, classes, check, trusted)
    given = {"teacher": teacher, "weights": weights, "proxy": proxy, "size": size, "channels": channels}
    given |= {"normalise": normalise, "order": order, "classes": classes, "student": student, "check": check}
    given |= {"budget": budget}
    if student != students.AUTO:
        vouch_for({"student": {"network": student}})
        students.named(student, 2, teacher_input(config))  # before anything is loaded
    if check:
        proxies.check(check)
    found = _looked(config, proxy, images, data_dir)
    if student == students.AUTO:
        chosen, others = students.offered(config, found.teacher.classes, found.parameters, found.script)
    else:
        chosen, others = students.named(student, found.teacher.classes, found.teacher.takes), []
    _say_student(chosen, others, student == students.AUTO)
    fitted = _fitted(found, chosen, command(*_typed(given)), time_budget, data_dir)
    write_bytes(out, fitted.text.encode())
    _say_plan(fitted, budget, out)


def _looked(config: TeacherConfig, names: list[str], images: int, data_dir: Path | None) -> Look:
    """Look at the teacher and the proxies, and print what there is to see."""
    from degan_search.evaluation.first_look import doubts, look
    from degan_search.system import cpus, device

    device.set_up_torch(cpus.usable())
    with console.status("Looking") as status:

        def show(text: str) -> None:
            status.update(escape(visible(f"{text} ...")))

        found = look(config, names, data_dir, images, device.choose_device(), show)
    _say_teacher(found, config)
    _say_proxies(found)
    for line in doubts(found):
        console.print(f"[yellow]![/yellow] {escape(line)}.", markup=True, highlight=False, soft_wrap=True)
    return found


def _fitted(found: Look, chosen: Choice, call: str, time_budget: float, data_dir: Path | None) -> Fitted:
    """Return a space that fits the time budget, once it has passed the checks of a sweep."""
    from degan_search.networks.takes import generated_size
    from degan_search.search.planning import first_space
    from degan_search.search.space import check as checks
    from degan_search.settings.trial import GanConfig
    from degan_search.system import cpus

    wanted = first_space.Wanted(
        found.teacher.config,
        chosen.student,
        [(one.proxy, one.images) for one in found.seen],
        generated_size(GanConfig(), found.teacher.takes),
        call,
        max(one.seconds for one in found.seen),
    )
    with console.status("Timing a few steps ..."):
        fitted = first_space.fitted(wanted, time_budget, cpus.usable(), data_dir)
    checks.check(fitted.space)
    checks.check_numbers(fitted.space, data_dir)
    return fitted


def _teacher(
    network: str,
    weights: str | None,
    size: str | None,
    channels: int | None,
    normalise: str | None,
    order: str | None,
    classes: str | None,
    check: str | None,
    trusted: bool,
) -> TeacherConfig:
    """Return the settings that the options stand for."""
    from degan_search.networks.named import vouch_for
    from degan_search.networks.table import has_weights
    from degan_search.settings.resolve import parse
    from degan_search.settings.trial import TeacherConfig

    vouch_for({"teacher": {"network": network}})
    if has_weights(network) and weights:
        raise UserError(f"--teacher {network!r} has weights of its own: leave out --weights {weights}")
    if not has_weights(network) and not weights:
        raise UserError(f"--weights is missing: the file with the weights of --teacher {network!r}, such as w.pt")
    sides: Any = None if size is None else size.lower().split("x")
    if sides is not None and not (len(sides) in (1, 2) and all(side.isdecimal() for side in sides)):
        raise UserError(f"--size {size!r} must be a number of pixels, or height x width, as 48x64")
    given = {
        "network": network,
        "path": weights,
        "input": {
            "size": sides and [int(sides[0]), int(sides[-1])],
            "channels": channels,
            "normalise": normalise,
            "order": order,
        },
        "classes": [name.strip() for name in classes.split(",")] if classes and "," in classes else classes,
        "check": check,
        "trusted": trusted,
    }
    return parse(TeacherConfig, given, "init: teacher")


def _typed(given: dict[str, Any]) -> list[str]:
    """Return the words of the command that was given."""
    words = ["init"]
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            words += [] if one is None else [f"--{name}", str(one)]
    return words


def _say_teacher(found: Look, config: TeacherConfig) -> None:
    known, takes = found.teacher, found.teacher.takes
    shown = ", ".join(known.class_names[:10]) + (", ..." if known.classes > 10 else "")
    colours = "gray" if takes.channels == 1 else "BGR" if takes.bgr else "RGB"
    print_line(
        f"Teacher: {config.network}, {found.parameters:,} parameters, {known.classes} classes ({shown}); takes "
        f"{takes.height}x{takes.width} {colours}, {_normalised(takes)}; gives {known.outputs.replace('_', '-')}."
    )


def _normalised(takes: ImageInput) -> str:
    from degan_search.networks.image_input import NORMALISATIONS, changed
    from degan_search.settings.image_input import InputConfig

    for name in NORMALISATIONS:
        if changed(takes, InputConfig(normalise=name), "") == takes:
            return f"normalised as {name}"
    return f"mean {list(takes.mean)}, std {list(takes.std)}"


def _say_proxies(found: Look) -> None:
    """Print what the teacher sees in each proxy, the most related first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    columns: dict[str, Callable[[Seen], str]] = {
        "images": lambda one: f"{one.images:,}" if one.images else f"{one.looked_at:,}+",
        "classes seen ↑": lambda one: f"{one.measures['effective_classes']:.1f}",
        "coverage ↑": lambda one: f"{one.measures['coverage']:.0%}",
        "sure ↑": lambda one: f"{one.confidence:.0%}",
        "BN distance ↓": lambda one: _number(one.measures["bn_distance"]),
    }
    table = Table("", Column("proxy", overflow="fold"), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="right")
    for rank, one in enumerate(found.seen, 1):
        table.add_row(str(rank), visible(one.proxy), *(show(one) for show in columns.values()))
    console.print(table)
    for one in found.seen:
        most = one.shares.argsort()[::-1][:COMMON]
        common = ", ".join(
            f"{found.teacher.class_names[label]} {one.shares[label]:.0%}" for label in most if one.shares[label]
        )
        never = int((one.shares == 0).sum())
        seldom = f"; {never} {'class' if never == 1 else 'classes'} never" if never else ""
        print_line(f"{one.proxy}: seen most are {common}{seldom}.")
    print_line(
        "The most related proxy comes first: the one in which the teacher sees most classes (no true data needed)."
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _say_student(chosen: Choice, others: list[Choice], offered: bool) -> None:
    why = "offered; --student names another" if offered else "as you named it"
    more = ", ".join(f"{one.name} ({one.parameters:,})" for one in others[:OFFERED])
    print_line(f"Student: {chosen.name}, {chosen.parameters:,} parameters, {why}{f': {more}' if more else ''}.")


def _say_plan(fitted: Fitted, budget: str, out: Path) -> None:
    from degan_search.search.planning.cost_model import duration
    from degan_search.search.planning.step_time import BUSY
    from degan_search.search.space.cell import cells
    from degan_search.search.space.combined import combined_cells

    size, space = fitted.size, fitted.space
    assert space.finals
    all_cells = cells(space)
    number, finals = len(all_cells[0].proxies), len(all_cells) + len(combined_cells(space))
    search = sum(cell.trials() for cell in all_cells)
    proxies = f"{number} {'proxy' if number == 1 else 'proxies'}"
    print_line(
        f"{out}: {search} search trials and {len(space.finals.seeds) * finals} final runs, "
        f"{', '.join(size.methods)} on {proxies}, {size.steps:,} GAN steps at batch {size.batch}; "
        f"at most about {duration(fitted.seconds)} of --budget {budget}, by a few steps timed here."
    )
    if fitted.share < BUSY:
        print_line(f"Other programs have {1 - fitted.share:.0%} of the CPU: beside them it takes longer.")
    print_line(f"Look into it, then: {command('sweep', out)}")
