"""The stop of a sweep that is told to: workers write checkpoints first."""

from __future__ import annotations

import time
from collections.abc import Callable

from degan_search.search.callbacks.progress_bar import ProgressBar
from degan_search.search.run.faults import STOP_SECONDS
from degan_search.search.run.interrupt import Interruption
from degan_search.search.suggest.job_queue import Jobs


class Stop:
    """Waits, once Ctrl-C or SIGTERM came, until no trial runs any more."""

    def __init__(
        self, interruption: Interruption, ask_to_end: Callable[[], None], jobs: Jobs, bar: ProgressBar
    ) -> None:
        self.interruption, self.ask_to_end, self.jobs, self.bar = interruption, ask_to_end, jobs, bar
        self.since: float | None = None
        """When, on the monotonic clock, workers were told to end; None while the sweep goes on."""

    def check(self, running: int) -> None:
        """Tell workers to end if a signal came; raise once none runs a trial, or `STOP_SECONDS` later.

        Raises:
            InterruptedRun: a signal came.
        """
        if self.interruption.caught is None:
            return
        if self.since is None:
            self.since = time.monotonic()
            self.jobs.closed = True
            if running:
                self.ask_to_end()
                trials = "1 trial has" if running == 1 else f"{running} trials have"
                self.bar.say(f"Stopping, once {trials} written a checkpoint; again to stop at once", "yellow")
        if not running or time.monotonic() - self.since > STOP_SECONDS:
            self.interruption.raise_if_caught()
