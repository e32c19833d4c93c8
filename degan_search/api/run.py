"""A stored run as Python sees it: its trials, tables and networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from degan_search.api import stored
from degan_search.api.options import run_at
from degan_search.settings.paths import whole
from degan_search.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


def open_run(path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Run:
    """Return a run to read, finished or still being written.

    Args:
        path: its folder, or its address such as s3://bucket/runs/x; of that, files are fetched as they are needed.
        data_dir: folder of image sets, for `student` and `generator`; by default DATA_DIR, or ./data.

    Raises:
        UserError: no run there.
        OSError: the store does not answer.
    """
    run = Run(path, data_dir)
    with run._files(stored.rows) as folder:
        from degan_search.ledger.read import check_runs

        check_runs(folder)
    return run


class Run:
    """A run: what `degan-search` commands print of it, as tables of pandas and networks of torch.

    Everything is read when it is asked for, so a run that is being written can be looked at. Each part raises
    UserError where the command would refuse.
    """

    def __init__(self, path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> None:
        given = os.fspath(path)
        self.address = given if ":/" in given else whole(given)  # s3:/x is refused, not taken for a folder
        """A folder, whatever the folder of later calls, or an address."""
        self.data_dir = data_folder(data_dir)

    @property
    def path(self) -> Path:
        """The run's folder; of a run in a store its working copy here."""
        where = run_at(self.address)
        return Path(where["storage"]) / str(where["name"])

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial: config_*, score, oracle_accuracy, test_accuracy, state and more (docs/metrics.md)."""
        from degan_search import ledger

        with self._files(stored.rows) as folder:
            return ledger.load(folder)

    @property
    def curves(self) -> pd.DataFrame:
        """One row a report of a trial: trial_id, stage, budget (the step), losses and rung scores."""
        from degan_search import ledger

        with self._files(stored.rows) as folder:
            return ledger.curves(folder)

    def sql(self, select: str) -> pd.DataFrame:
        """Return what one SELECT gives over the tables trials, curves and scores, by DuckDB; it changes nothing.

        Raises:
            UserError: DuckDB is not installed, or refuses the statement; anything but one SELECT.
        """
        from degan_search.ledger.sql import query

        with self._files(stored.rows) as folder:
            return query(folder, select)

    def table(self, paper: str | None = None) -> pd.DataFrame:
        """Return the table of proxies by methods, ours beside the paper's, with every column, in percent.

        Args:
            paper: "table1", "table2" or "table3"; by default the one that fits.

        Raises:
            UserError: an unknown table, or trials that do not belong in one.
        """
        from analysis.tables import table

        return table.table(self.trials, paper)

    def best(self, by: str | None = None, per: str = "method", top: int = 1) -> pd.DataFrame:
        """Return the best configurations of the search, as `degan-search best` prints them.

        The columns are run, trial, cell, proxy, lambda_e, lambda_d, the criterion, score, and config, a dict of all
        settings.

        Args:
            by: a criterion, or "score"; by default the best that the run has.
            per: choose within each "proxy" (of trials compared on one bank: within these), or "method" or "cell" there.
            top: how many of each, 1 or more.

        Raises:
            UserError: an unknown criterion or `per`, or no finished trial.
        """
        from degan_search.selection import choose

        trials = self.trials
        return choose.best_table(trials, choose.chosen_by(trials, by), per, top)

    def student(self, trial: str = "best") -> nn.Module:
        """Return a trial's student, on the CPU and in eval mode.

        It takes images, float [N, C, 32, 32] in [-1, 1] with the teacher's C channels, and gives logits [N, classes].

        Args:
            trial: its id, or "best" for the highest score among those whose student is kept.

        Raises:
            UserError: no such trial, or none whose student is kept; true images, which name the classes, not there.
        """
        from degan_search.products.student_file import find_student

        with self._files(stored.networks) as folder:
            return find_student(folder, trial, self.data_dir).student

    def generator(self, trial: str = "best") -> nn.Module:
        """Return a trial's generator, on the CPU and in eval mode.

        It takes noise from N(0, 1), float [N, latent], where latent is the trial's `config_gan_latent`, and gives
        images, float [N, C, size, size] in (-1, 1).

        Args:
            trial: its id, or "best" for the highest score among those whose generator is kept.

        Raises:
            UserError: no such trial, or none that has a generator.
        """
        from degan_search.evaluation import networks
        from degan_search.ledger.columns import config_of

        with self._files(stored.networks) as folder:
            row = networks.find(folder, trial, "generator")
            config = config_of(row)
            return networks.load_generator(folder, str(row["trial_id"]), config)

    def report(self, out: str | os.PathLike[str] | None = None) -> Path:
        """Write the report page, one HTML file, and return its path: `out`, or report.html in the run's folder.

        Raises:
            UserError: no such folder to write into.
        """
        from degan_search.api.conclude import write_report

        with self._files(stored.samples) as folder:
            return write_report(folder, Path(out) if out else None)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return the table for a notebook, or the line that says why there is none."""
        from analysis.tables import table

        try:
            shown = table.render(self.table(), "html")
        except (UserError, OSError) as error:
            shown = f"<p>{escape(str(error))}</p>"
        return f"<p><code>{escape(repr(self))}</code></p>\n{shown}"

    @contextmanager
    def _files(self, wanted: Callable[[str], Path | stored.Stored]) -> Iterator[Path]:
        """Yield the run's folder with the files that are wanted; what is written there is put into the store."""
        with stored.local({"run": wanted(self.address)}) as given:
            yield given["run"]


def data_folder(given: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of image sets: the one given, else that of DATA_DIR, as on the command line."""
    chosen = given if given is not None else os.environ.get("DATA_DIR")
    return Path(whole(os.fspath(chosen))) if chosen else None
