"""Going on with a run that was cut short, or adding trials to it. It is rebuilt from its ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import Phase
from degan_search.search.callbacks.trackers import tracking
from degan_search.search.open_run import check_slots, open_run
from degan_search.search.planning.money import with_time
from degan_search.search.run import folder as run_folder
from degan_search.search.run import jobs
from degan_search.search.run.options import Options, loaded
from degan_search.search.space.cell import shared_configs
from degan_search.search.space.check import check_budget, check_numbers
from degan_search.search.space.schema import Space
from degan_search.search.sweep import Conclude, carry_out
from degan_search.system import provenance
from degan_search.system.errors import UserError
from degan_search.system.whole_files import remove_torn
from degan_search.trial import named_files


def resume(
    where: Options,
    console: Console,
    changes: Mapping[str, Any],
    trials: int | None = None,
    file: str | None = None,
    allow_changed: bool = False,
    retry_failed: bool = False,
    conclude: Conclude | None = None,
) -> Path:
    """Do the parts of a run that are not done yet, and return its folder.

    Finished trials stay as they are. Unfinished ones come first, each from its last whole checkpoint, and have the
    results that they would have had without the interruption. Then the search goes on to its number of trials; its
    studies and rungs are rebuilt from the ledger.

    Args:
        where: names the run's folder.
        console: for progress.
        changes: options in place of those that the run was begun with.
        trials: of each cell in all; more than the run was begun with.
        file: a space to go on with; the run's own by default.
        allow_changed: accept a space, or files that it names, other than those that the run was begun with.
        retry_failed: run trials again that a fault ended, but not those that diverged.
        conclude: as `sweep` takes it.

    Raises:
        UserError: no run there, another process writing it, a changed space or file, or as `sweep`.
        IncompleteError: as `sweep`.
        InterruptedRun: Ctrl-C or SIGTERM.
    """
    if not where.remote and not where.folder.is_dir():
        raise UserError(f"no run at {where.folder}")
    with open_run(where, console) as run:
        run.copy.pull()
        remove_torn(where.folder)
        found = run_folder.begun(where.folder, file)
        fixed = {"storage": where.storage, "name": where.name, "remote": where.remote}
        options = loaded(found.options, {**changes, **fixed})
        files = _unchanged_files(where.folder, found, options.data_dir, allow_changed)
        planned = found.options.get("budget") is not None  # then the budget chose the number of trials, not the space
        space = _with_trials(found.space, trials, planned)
        new_budget = "budget" in changes or "spend" in changes
        if new_budget:
            check_budget(space)
            options = with_time(options, console)
        check_slots(options)
        check_numbers(space, options.data_dir)
        _say_versions(found.versions, console)
        for broken in run_folder.set_aside_broken(where.folder):
            console.print(f"{broken} could not be read and is set aside", highlight=False, soft_wrap=True)
        options = with_time_budget(options, new_budget, trials)
        trackers = [tracking(options.track, where.folder, console)] if options.track else []
        run_folder.start(space, options, files)
        done = len(ledger.load(where.folder))
        console.print(f"Going on with {where.folder}: {done} trials have ended", highlight=False, soft_wrap=True)
        carry_out(space, replace(run, options=options, trackers=trackers), conclude, retry_failed)
    return where.folder


def _unchanged_files(
    folder: Path, found: run_folder.Begun, data_dir: Path | None, allow_changed: bool
) -> dict[str, str]:
    """Return the hashes of the files that the space names; unless allowed, refuse a space or file that has changed."""
    anyway = "With --allow-changed the run goes on with the new one"
    if found.changed and not allow_changed:
        raise UserError(f"the space is not the one that {folder} was begun with: {'; '.join(found.changed)}. {anyway}")
    files = named_files.fingerprints(shared_configs(found.space), data_dir)
    if (other := named_files.differences(named_files.recorded(folder), files)) and not allow_changed:
        what = named_files.shown(other, data_dir)
        raise UserError(f"{what}: the content is not what {folder} was begun with; put it back. {anyway}")
    return files


def _with_trials(space: Space, trials: int | None, planned: bool) -> Space:
    if trials is None:
        return space
    if space.search.sampler == "grid":
        raise UserError(f"--trials {trials}: sampler grid runs every combination; add values to the lists instead")
    if trials < space.search.trials and not planned:
        raise UserError(f"--trials {trials}: the run has {space.search.trials} in each cell already; give more")
    return space.model_copy(update={"search": space.search.model_copy(update={"trials": trials})})


def with_time_budget(options: Options, new: bool, trials: int | None) -> Options:
    """Return the options with a time budget that begins now: a new one, or what the last driver left of the run's own.

    Once repeats or final runs have begun, no time is left for search trials. If `trials` is given, there is no time
    budget any more.

    Raises:
        UserError: `trials` beside a new budget.
    """
    if trials is not None:
        if new:
            raise UserError(f"--trials {trials}: --budget chooses the number of trials itself; give one of the two")
        return replace(options, budget=None)
    left = options.budget
    if left is not None and not new:
        frame = ledger.load(options.folder)
        finished = [moment.timestamp() for moment in frame["finished"].dropna()]
        left = max(0.0, left - max(0.0, max(finished, default=0.0) - options.budget_begun))
        if any(job.phase != Phase.SEARCH for job in jobs.read(options.folder)[0].values()):
            left = 0.0
    return replace(options, budget=left, budget_begun=time.time())


def _say_versions(before: Mapping[str, Any], console: Console) -> None:
    now = provenance.provenance()
    old = before.get("versions")
    old = old if isinstance(old, dict) else {}
    new = now["versions"]
    assert isinstance(new, dict)
    other = [f"{name} {old[name]} then, {new[name]} now" for name in new if name in old and old[name] != new[name]]
    commit = before.get("git_commit")
    if commit and commit != now["git_commit"]:
        other.append(f"commit {str(commit)[:12]} then, {str(now['git_commit'])[:12]} now")
    if other:
        console.print(f"Begun with other versions: {'; '.join(other)}", highlight=False, soft_wrap=True)
