"""Sweeps begun and gone on with, from Python and from the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from degan_search.api.options import RunOptions, read_options, run_at, stored_in

if TYPE_CHECKING:
    from rich.console import Console

    from degan_search.api.run import Run
    from degan_search.search.run.options import Options
    from degan_search.search.space.schema import Space


def sweep(
    space: str | os.PathLike[str] | Mapping[str, Any],
    storage: str | os.PathLike[str] = "runs",
    name: str | None = None,
    budget: str | float | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    from_runs: Sequence[str | os.PathLike[str]] = (),
    quiet: bool = False,
    **options: Unpack[RunOptions],
) -> Run:
    """Run a sweep to its end, with final runs, table and report, and return it.

    In a notebook the cell shows one table, kept up while trials run; elsewhere what the command prints is printed.
    Ctrl-C, or the notebook's interrupt, raises a KeyboardInterrupt that says how to go on; nothing that ended is
    lost. torch's settings are put back afterwards.

    Args:
        space: a shipped space's name, a path, or a dict with what a space file holds.
        storage: folder, or object store such as s3://bucket/runs, of runs, teachers and comparison images.
        name: of the run; the space's by default, of a dict `sweep`.
        budget: time for all of it, such as "20min" or in seconds, or with the option `price` money, such as "10eur": it
            decides how many search trials there are.
        data_dir: folder of image sets; by default the environment variable DATA_DIR, or ./data.
        from_runs: earlier runs' folders or addresses; each cell first tries what was best in the most alike of their
            tasks, on whatever proxies and teachers.
        quiet: print and show nothing.
        options: those of the command, by its names with _ for -, and times as text or in seconds:
            `time_limit="20min"`, `max_concurrent=2`, `keep="all"`.

    Raises:
        UserError: anything wrong with the space, the data, an option or the folder, before a trial starts; at the
            end an IncompleteError, which is one, names trials that failed by a fault.
        KeyboardInterrupt: Ctrl-C, or in the main thread SIGTERM.
    """
    from degan_search.system.console import console_here

    console = console_here(quiet)  # before the imports, of which some speak in a notebook
    from degan_search.api import stored
    from degan_search.api.run import Run, data_folder
    from degan_search.search.space import file as space_file
    from degan_search.system.device import torch_kept

    loaded = space_file.load(space if isinstance(space, Mapping) else os.fspath(space))
    name = name or ("sweep" if isinstance(space, Mapping) else Path(space).stem)
    images, settings = data_folder(data_dir), read_options({**options, "budget": budget})
    with stored.local({"runs": [stored.rows(os.fspath(run)) for run in from_runs]}) as given:
        loaded = from_earlier(loaded, given["runs"], os.fspath(storage), name, console)
    with torch_kept():
        begun = begin(loaded, os.fspath(storage), name, images, settings, console)
    return Run(_address(begun), data_dir=images)


def resume(
    path: str | os.PathLike[str],
    *,
    budget: str | float | None = None,
    trials: int | None = None,
    space: str | os.PathLike[str] | None = None,
    allow_changed: bool = False,
    retry_failed: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    **changes: Unpack[RunOptions],
) -> Run:
    """Go on with a run that was cut short, or add trials to it, and return it; what is not said is as it was begun.

    Args:
        path: the run's folder, or s3://bucket/runs/name.
        budget: time or money from now; by default what is left of the run's own, if it has one.
        trials: search trials of each cell in all, to add some.
        space: another space file to go on with, by `allow_changed`.
        allow_changed: go on with a space, or files that it names, that were changed since.
        retry_failed: run trials again that failed by a fault.
        data_dir: as of `sweep`; by default the run's.
        quiet: print and show nothing.
        changes: options in place of those that the run was begun with, as of `sweep`.

    Raises:
        UserError: no run there, another process writing it, a changed space or file, or as `sweep`.
        KeyboardInterrupt: as `sweep`.
    """
    from degan_search.system.console import console_here

    console = console_here(quiet)  # as in `sweep`
    from degan_search.api.run import Run, data_folder
    from degan_search.system.device import torch_kept

    file, images = None if space is None else os.fspath(space), data_folder(data_dir)
    settings = read_options({**changes, "budget": budget})
    with torch_kept():
        found = go_on(os.fspath(path), settings, images, console, trials, file, allow_changed, retry_failed)
    return Run(_address(found), data_dir=images)


def from_earlier(space: Space, runs: Sequence[Path], storage: str, name: str, console: Console) -> Space:
    """Return the space with what its cells try first by earlier runs, and say what that is; without runs as it is.

    Raises:
        UserError: as `warm_started`.
    """
    if not runs:
        return space
    from degan_search.search.run.folder import with_whole_paths
    from degan_search.search.run.options import Options
    from degan_search.search.suggest.warm_start import warm_started

    folder = Options(**stored_in(storage), name=name).folder
    space, lines = warm_started(with_whole_paths(space), runs, folder)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return space


def begin(
    space: Space, storage: str, name: str, data_dir: Path | None, settings: Mapping[str, Any], console: Console
) -> Options:
    """Run a sweep to its end and return its options; `settings` are fields of these. Raises: as `sweep`."""
    from degan_search.api.conclude import conclude
    from degan_search.search.run.options import Options
    from degan_search.search.sweep import sweep as run_sweep

    folder = data_dir and data_dir.absolute()  # `resume` may be called from elsewhere
    options = Options(**stored_in(storage), name=name, data_dir=folder, **settings)
    run_sweep(space, options, console, conclude)
    return options


def go_on(
    run: str,
    settings: Mapping[str, Any],
    data_dir: Path | None,
    console: Console,
    trials: int | None,
    space: str | None,
    allow_changed: bool,
    retry_failed: bool,
) -> Options:
    """Go on with a run and return the options that say where it is; arguments and errors of `resume`."""
    from degan_search.api.conclude import conclude
    from degan_search.search.resume import resume as run_resume
    from degan_search.search.run.options import Options

    where = Options(**run_at(run))
    changes = {**settings, **({"data_dir": data_dir.absolute()} if data_dir else {})}
    run_resume(where, console, changes, trials, space, allow_changed, retry_failed, conclude)
    return where


def _address(options: Options) -> str:
    """Return what `open_run` takes for a run."""
    if options.remote is None:
        return str(options.folder)
    from degan_search.storage import RemotePlace, place

    found = place(options.remote).at(options.name)
    return found.uri if isinstance(found, RemotePlace) else str(options.folder)
