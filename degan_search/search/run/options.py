"""Options: where and how a sweep runs. They are saved in its `run.json`, so that `resume` uses the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from degan_search.storage import Place, RemotePlace, place
from degan_search.system.errors import UserError, command


@dataclass(frozen=True)
class Options:
    """Where a sweep runs, where its results go, and what it does when something breaks."""

    storage: Path = Path("runs")
    """A folder; of a run in an object store, its working copy here."""
    name: str = "sweep"
    data_dir: Path | None = None
    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    fuse: int | None = None
    """Trials of a cell that run side by side in one process; None: `slots.trials_per_process` chooses."""
    address: str | None = None
    track: str | None = None
    retries: int = 2
    """Further attempts of a trial whose worker, memory or disk failed."""
    time_limit: float | None = None
    """Seconds after which an attempt of a trial is ended; None: no limit."""
    checkpoint_every: float = 60.0
    """Seconds between two checkpoints of a trial."""
    keep: int | None = 5
    """Search trials of each cell whose networks are kept; None: all."""
    budget: float | None = None
    """Time budget of the sweep, or of the rest of a resumed one, in seconds; it decides how many trials there are."""
    spend: str | None = None
    """Budget in money, such as `10eur`; when a driver begins, `budget` is made of it."""
    price: str | None = None
    """Of a core-hour and a GPU-hour, see `cost.Price`; tables and reports show money by it."""
    budget_begun: float = 0.0
    """When the time budget began, in seconds since 1970."""
    remote: str | None = None
    """Where the run is kept, such as `s3://bucket/runs`; None: in `storage`."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.storage / self.name

    def place(self) -> Place:
        """Return where workers write trials' files."""
        if self.remote:
            return place(self.remote).at(self.name).at("trials")
        return place(str((self.folder / "trials").absolute()))

    def where(self) -> str:
        """Return what the user calls the run, without secrets."""
        if not self.remote:
            return str(self.folder)
        found = place(self.remote).at(self.name)
        assert isinstance(found, RemotePlace)
        return found.uri if "@" not in found.uri else found.address

    def resume(self, *options: str) -> str:
        """Return the command that goes on with the run, as it can be pasted into a shell."""
        return command("resume", self.where(), *options)

    def saved(self) -> dict[str, Any]:
        """Return plain values for `run.json`."""
        plain: dict[str, Any] = TypeAdapter(Options).dump_python(self, mode="json")
        return plain | {"remote": None}  # the address may hold a secret, and whoever resumes gives it anew


def loaded(saved: Mapping[str, Any], changes: Mapping[str, Any], what: str = "run.json: options") -> Options:
    """Return the options of `run.json` with changes over them; unknown ones, of another version, are left out.

    `what` names them in messages.

    Raises:
        UserError: values of a wrong kind.
    """
    known = TypeAdapter(Options).json_schema()["properties"]
    values = {name: value for name, value in saved.items() if name in known and value != "None"} | dict(changes)
    try:
        return TypeAdapter(Options).validate_python(values)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{what}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
