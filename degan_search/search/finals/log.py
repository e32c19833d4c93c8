"""The log of final runs, `finals.json`: which seeds each call ran and which configurations it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any

import pandas as pd

from degan_search.search.finals.lineup import Entrant, Request
from degan_search.system.errors import UserError
from degan_search.system.whole_files import write_bytes

LOG = "finals.json"


def fresh_seeds(frame: pd.DataFrame, number: int) -> list[int]:
    """Return the smallest seeds that no trial of the run had, in either phase and however it ended."""
    used = set(frame["config_seed"])
    return list(islice((seed for seed in count() if seed not in used), number))


class Log:
    """One call's entry in `finals.json`, a list in the run's folder; an unfinished one of the same call goes on."""

    def __init__(self, run: Path, request: Request, lineup: Sequence[Entrant], frame: pd.DataFrame) -> None:
        self.file = run / LOG
        try:
            self.entries: list[dict[str, Any]] = json.loads(self.file.read_text()) if self.file.exists() else []
            seeds = [seed for entry in self.entries for seed in entry.get("seeds_run", [])]
            if not isinstance(self.entries, list) or not all(isinstance(seed, int) for seed in seeds):
                raise ValueError("a list of calls with their seeds is expected")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{self.file} is broken, move it away to go on: {error}") from None
        asked = request.saved() | {
            "by": lineup[0].by,
            "chosen": [entrant.source for entrant in lineup if entrant.source],
        }
        last = self.entries[-1] if self.entries else {}
        same = all(last.get(name, ...) == value for name, value in asked.items())
        self.goes_on = same and "seeds_run" in last and last.get("finished", ...) is None
        if not self.goes_on:
            self.entries.append({**asked, "seeds_run": fresh_seeds(frame, request.seeds), "started": _now()})
        self.seeds: list[int] = self.entries[-1]["seeds_run"]
        self.stopped: dict[str, Any] = {}

    def begin(self) -> None:
        """Write which seeds are run, before the first trial."""
        self._write(None)

    def stop(self, entrant: Entrant, done: Sequence[int], left: Sequence[int]) -> None:
        """Note that a configuration was stopped, after which seeds, and which seeds are not run."""
        self.stopped[str(entrant.source)] = {"after": list(done), "not_run": list(left)}

    def end(self) -> None:
        """Write that all is done, and which configurations were stopped."""
        self._write(_now())

    def _write(self, finished: str | None) -> None:
        self.entries[-1] |= {"stopped": self.stopped, "finished": finished}
        write_bytes(self.file, json.dumps(self.entries, indent=1).encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
