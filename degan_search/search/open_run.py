"""Opening a run: its folder is locked for this process, signals are handled, and files go to its store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from ray import tune
from rich.console import Console

from degan_search.search.run import folder as run_folder
from degan_search.search.run.interrupt import Interruption
from degan_search.search.run.options import Options
from degan_search.search.run.remote_copy import Copy
from degan_search.search.workers.slots import slots
from degan_search.system import cpus
from degan_search.system.errors import command


@dataclass(frozen=True)
class Run:
    """What the phases of a sweep share."""

    options: Options
    console: Console
    interruption: Interruption
    copy: Copy
    trackers: Sequence[tune.Callback] = ()
    faulty: dict[str, str] = field(default_factory=dict)
    """Trials that a fault ended, and their reasons."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.options.folder


def check_slots(options: Options) -> None:
    """Refuse trials that need more than this machine has; for a cluster, `ray_cluster` checks it."""
    if not options.address:
        slots(options, here())


def here() -> dict[str, float]:
    """Return this machine's resources as Ray names them."""
    return {"CPU": cpus.usable(), "GPU": torch.cuda.device_count()}


@contextmanager
def open_run(
    options: Options,
    console: Console,
    subcommand: str = "resume",
    trackers: Sequence[tune.Callback] = (),
) -> Iterator[Run]:
    """Be the only process that writes the run. Ctrl-C and SIGTERM end it cleanly with a hint: `subcommand` goes on."""
    interruption = Interruption(f"nothing that ended is lost; go on with: {command(subcommand, options.where())}")
    with interruption.handled(), run_folder.writer(options.folder), Copy(options) as copy:
        yield Run(options, console, interruption, copy, trackers)
