"""Commands that read finished trials and run none."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from degan_search.cli.app import (
    DataDir,
    Run,
    Runs,
    RunsWithNetworks,
    RunWithNetworks,
    RunWithSamples,
    console,
    print_line,
    shows_errors,
)
from degan_search.system.errors import UserError, close_matches, command, visible

if TYPE_CHECKING:
    import pandas as pd

    from degan_search.settings.trial import TrialConfig


@shows_errors
def table(
    runs: Runs,
    paper: Annotated[
        str | None, typer.Option(help="Which of the paper's tables to set beside: table1, table2, or table3.")
    ] = None,
    style: Annotated[str, typer.Option(help="text, markdown, csv (every column), latex or html.")] = "text",
) -> None:
    """Print each proxy with each method, ours beside the paper's, and write table.csv, .md, .tex and .png.

    They are written into the run's folder, of several runs into the first. By default it is Table 2; of a run that
    learns new classes Table 3, each method over all class orders.
    """
    from analysis.tables.front import render_front
    from analysis.tables.table import render, save
    from analysis.tables.table import table as tidy_table
    from degan_search import ledger
    from degan_search.api.conclude import flat_cells

    frame = ledger.load(runs)
    tidy = tidy_table(frame, paper)
    # An unknown style is refused before anything is written.
    text = render(tidy, style) + render_front(frame, runs, style)
    save(tidy, runs[0])
    sys.stdout.write(visible(text))  # without the console's wrapping, so that it can be piped
    if style == "text":
        for run in runs:
            sys.stdout.writelines(f"{visible(line)}\n" for line in flat_cells(run, frame[frame["run"] == run.name]))


@shows_errors
def evaluate(
    run: RunWithNetworks,
    storage: Annotated[Path | None, typer.Option(help="Where the teacher is kept; beside the run.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Fill in what a search is not shown: accuracy on held-out true images, and agreement across trials.

    A sweep does this at its end; here for a run that was stopped, or made by an older version.
    """
    from degan_search.evaluation.accuracy import evaluate as evaluate_run
    from degan_search.storage.layout import CACHE

    scored = evaluate_run(run, data_dir, (storage or run.absolute().parent) / CACHE, console)
    console.print(f"{scored} trials scored.", highlight=False)


@shows_errors
def best(
    runs: Runs,
    by: Annotated[str | None, typer.Option(help="Criterion, or score; by default the best that the run has.")] = None,
    per: Annotated[str, typer.Option(help="Choose within each proxy, or each method or cell on it.")] = "method",
    top: Annotated[int, typer.Option(help="How many of each.")] = 1,
    pareto: Annotated[bool, typer.Option("--pareto", help="The front of a search with several objectives.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, with the whole configurations.")] = False,
    yaml_: Annotated[
        Path | None, typer.Option("--yaml", help="Folder for settings files, as `run` takes them.")
    ] = None,
) -> None:
    """Print the best configurations of a search, each with what it was chosen by."""
    import json

    from tabulate import tabulate

    from degan_search import ledger
    from degan_search.selection import choose
    from degan_search.selection.pareto import front_table, goals_of
    from degan_search.settings import criteria
    from degan_search.settings.resolve import trial_config

    frame = ledger.load(runs)
    if pareto:
        if by or top != 1:
            raise UserError("--pareto: a front has no first, so --by and --top do not go with it; leave them out")
        goals = goals_of(*runs)
        by, rows = goals[0], front_table(frame, goals, per)
    else:
        by = choose.chosen_by(frame, by)
        rows = choose.best_table(frame, by, per, top)
    configs, table = rows["config"], rows.drop(columns="config")
    if json_:
        found = rows.astype(object).where(rows.notna(), None).to_dict("records")
        sys.stdout.write(f"{json.dumps(found, indent=1)}\n")
        return
    print_line(tabulate(_with_interval(table).to_dict("list"), headers="keys", floatfmt=".4g"))
    if "ahead" in table:
        print_line(f"{by} is the mean over the seeds' students; ahead: the chance that a row is better than the next.")
    if by == criteria.TRUE:
        print_line("Chosen with true data: held-out true images and their labels.")
    if yaml_:
        for row, config in zip(table.to_dict("records"), configs, strict=True):
            file = yaml_ / f"{row['run']}-{row['trial']}.yaml"
            title = f"{row['trial']} of {row['run']}, {row['cell']}: {by} {row[by]:.4f}"
            _write_settings(file, title, trial_config(config))
            print_line(command("run", file))


def _with_interval(table: pd.DataFrame) -> pd.DataFrame:
    """Return a `choose.best_table` with the Wilson interval beside the accuracy on few images, if it has that."""
    from analysis.statistics import wilson

    if "n_check" not in table:
        return table
    shares = [
        None if unknown else wilson(share, int(n))
        for share, n, unknown in zip(table["check_accuracy"], table["n_check"], table["n_check"].isna(), strict=True)
    ]
    shown = [
        "" if one is None else f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}] on {one.n} images" for one in shares
    ]
    return table.drop(columns="n_check").assign(check_accuracy=shown)


def _write_settings(file: Path, title: str, config: TrialConfig) -> None:
    """Write the settings that differ from the paper's defaults, as the command `run` reads them."""
    import yaml

    from degan_search.settings.resolve import flatten, merge
    from degan_search.settings.trial import TrialConfig

    if file.exists():
        raise UserError(f"{file} is already there; choose another --yaml folder, or move it away")
    paper = dict(flatten(TrialConfig().model_dump(mode="json")))
    ours = flatten(config.model_dump(mode="json"))
    settings = merge({}, {name: value for name, value in ours if value != paper[name]})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# {title}\n" + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


@shows_errors
def regret(runs: Runs) -> None:
    """Print what choosing the weights without true data cost, per proxy and criterion, as Markdown."""
    from analysis.regret import mean_regret, render
    from analysis.regret import regret as regret_table
    from degan_search import ledger

    table = regret_table(ledger.load(runs))
    for part in (table, mean_regret(table)):
        console.print(render(part), highlight=False, markup=False, soft_wrap=True)


@shows_errors
def report(
    run: RunWithSamples,
    out: Annotated[Path | None, typer.Option(help="The file; report.html in the run's folder by default.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Serve the page on this machine and refresh it.")] = False,
    port: Annotated[int, typer.Option(help="Port of --watch; 0 takes any free one.")] = 0,
) -> None:
    """Write a run's report page, one HTML file that needs no network; or serve it while a sweep runs."""
    if watch:
        if out:
            raise UserError(f"--watch writes no file: leave out --out {out}, or --watch")
        from analysis.report.watch import serve
        from degan_search.api.conclude import importances_of

        serve(run, port, importances_of, lambda url: typer.echo(f"{url} (Ctrl-C ends it)"))
        return
    from degan_search.api.conclude import write_report

    typer.echo(write_report(run, out))


@shows_errors
def export(
    run: Run,
    optuna: Annotated[Path | None, typer.Option(help="New journal file, one study a cell.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="New folder, one folder of events a trial.")] = None,
) -> None:
    """Write a run as an Optuna journal, for optuna-dashboard, or as event files, for TensorBoard; or both."""
    if not (optuna or tensorboard):
        raise UserError("nothing to export to: give --optuna FILE, --tensorboard DIR, or both")
    from degan_search.search.export import to_optuna, to_tensorboard

    if optuna:
        names = to_optuna(run, optuna)
        print_line(f"{len(names)} studies. Look at them: optuna-dashboard {shlex.quote(str(optuna))}")
    if tensorboard:
        trials, logdir = to_tensorboard(run, tensorboard), shlex.quote(str(tensorboard))
        print_line(f"{trials} trials. Look at them: tensorboard --logdir {logdir}")


@shows_errors
def figures(
    runs: RunsWithNetworks,
    out: Annotated[Path | None, typer.Option(help="Folder; `figures` in the first run's by default.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="This figure alone; can be given again.")] = None,
    relatedness: Annotated[Path | None, typer.Option(help="A .csv of `degan-search relatedness`.")] = None,
    storage: Annotated[Path | None, typer.Option(help="Where the teacher is kept; beside the run.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write every figure as .png, and say of each that cannot be drawn what is missing."""
    from analysis.figures import FIGURES, save

    for name in only or ():
        if name not in FIGURES:
            raise UserError(f"--only {name!r} is no figure; {close_matches(name, FIGURES)}")
    given = _figures_given(runs, relatedness)
    folder = out or runs[0] / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for name in only or FIGURES:
        entry = FIGURES[name]
        try:
            if name == "samples":
                made = _samples(given["trials"](), runs, storage, data_dir)
            else:
                made = iter([(name, tuple(given[need]() for need in entry.needs))])
            for stem, parts in made:
                save(entry.draw(*parts), folder / f"{stem}.png")
                print_line(str(folder / f"{stem}.png"))
                drawn += 1
        except UserError as error:
            print_line(f"{name} is not drawn: {error}")
    if not drawn:
        raise UserError("no figure could be drawn, as said above")


def _figures_given(runs: list[Path], relatedness: Path | None) -> dict[str, Callable[[], Any]]:
    """Return functions that make what `analysis.figures.Entry.needs` names."""
    import pandas as pd

    from analysis.tables.table import table as tidy_table
    from degan_search import ledger
    from degan_search.search.suggest.studies import importances
    from degan_search.selection.pareto import goals_of

    frame = ledger.load(runs)

    def measures() -> pd.DataFrame | None:
        try:
            return pd.read_csv(relatedness) if relatedness else None
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise UserError(f"--relatedness {relatedness} is no table: {error}") from None

    def of_parameters() -> pd.DataFrame:
        found = {run.resolve().name: importances(run) for run in runs}
        several = len(found) > 1
        return pd.concat([own.assign(cell=f"{run}: " * several + own["cell"]) for run, own in found.items()])

    return {
        "trials": lambda: frame,
        "curves": lambda: ledger.curves(runs),
        "table": lambda: tidy_table(frame),
        "measures": measures,
        "importances": of_parameters,
        "goals": lambda: goals_of(*runs),
    }


def _samples(
    frame: pd.DataFrame, runs: list[Path], storage: Path | None, data_dir: Path | None
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield for the best DeGAN trial on each proxy its figure's name and parts."""
    import re

    from degan_search.products import samples
    from degan_search.selection import choose
    from degan_search.storage.layout import CACHE

    folders = {run.resolve().name: run for run in runs}
    for _, row in choose.best(frame[frame["config_method"] == "degan"], per=choose.PROXY).iterrows():
        run, trial = folders[row["run"]], row["trial_id"]
        parts = samples.class_samples(run, trial, data_dir, (storage or run.resolve().parent) / CACHE)
        where = f"{row['run']}_{row['config_proxy']}" if len(runs) > 1 else row["config_proxy"]
        about = f"{trial} of {row['run']}: DeGAN on {row['config_proxy']}, the best by score"
        yield "samples_" + re.sub(r"[^\w.-]+", "_", where).strip("_"), (*parts, about)
