"""Final runs: the chosen configurations with fresh seeds and their baselines, in the folder of their run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import pandas as pd
import ray
from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import Phase
from degan_search.networks.named import networks_named
from degan_search.search.finals.lineup import Entrant, Request, check, entrants
from degan_search.search.finals.log import Log
from degan_search.search.finals.rounds import competing, final_scores, rounds, stops
from degan_search.search.open_run import check_slots, open_run
from degan_search.search.phase import Prepared, measure_accuracies, run_phase
from degan_search.search.prepare import prepare
from degan_search.search.remaining import read_jobs
from degan_search.search.run import jobs as job_files
from degan_search.search.run.folder import add_class_names, check_writable
from degan_search.search.run.jobs import Job
from degan_search.search.run.options import Options
from degan_search.search.run.outbox import Outbox
from degan_search.search.suggest.asha import CellAsha
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.search.workers.cluster import ray_cluster
from degan_search.search.workers.slots import trials_per_process
from degan_search.settings.resolve import stable_hash
from degan_search.system import device
from degan_search.system.errors import IncompleteError
from degan_search.trial import named_files


def finals(request: Request, options: Options, console: Console) -> None:
    """Run the chosen configurations and their baselines with fresh seeds.

    Rows of phase `final` go into the run's own folder, `options.folder`; trial ids go on after the last. Finished runs
    are not run again, and a call that was cut short goes on with its own seeds. Seeds are run in rounds. From the third
    seed on, configurations that cannot win by `score` any more (`paired_test.losers`) stop; only those with the same
    bank compete. The score is the search's objective, which needs no true data unless the user asked for one that does.
    Baselines never stop. `finals.json` says what each call ran.

    Raises:
        UserError: a wrong request, a run without finished search trials, data or a folder that do not serve,
            before any trial starts; at the end, rows that could not be written.
    """
    check(request)
    folder = options.folder
    frame = ledger.load(folder)
    lineup = entrants(frame, request, folder)
    configs = [entrant.config for entrant in lineup]
    named_files.check(
        folder,
        (config.teacher.path for config in configs),
        [name for config in configs for name in named_files.sets_of(config)],
        options.data_dir,
    )
    log = Log(folder, request, lineup, frame)
    check_writable(folder, str(folder))
    check_slots(options)
    device.set_up_torch(options.cpus_per_trial)  # as in a trial, so that the teacher is the same
    _announce(lineup, log, console)
    with (
        open_run(options, console, "finals") as run,
        ray_cluster(options, console, run.interruption.listen, networks_named([one.model_dump() for one in configs])),
    ):
        inputs = prepare(configs, options, console)
        add_class_names(run.folder, {one.teacher.hash: one.teacher.class_names for one in inputs.values()})
        prepared = Prepared({key: ray.put(value) for key, value in inputs.items()})
        log.begin()
        running = lineup
        for done, batch in rounds(log.seeds, bool(competing(lineup))):
            jobs = waiting(running, batch, ledger.load(folder), read_jobs(run), folder, request.referee)
            if jobs:
                name, work = f"final-from-{jobs[0].id}", GivenJobs(jobs, Outbox(), partial(trials_per_process, options))
                run_phase(Phase.FINAL, run, prepared, CellAsha(None), work, name=name)
            left = log.seeds[len(done) :]
            beaten = stops(running, done, ledger.load(folder)) if left else []
            running = [entrant for entrant in running if entrant not in beaten]
            for entrant in beaten:
                log.stop(entrant, done, left)
                _say_stopped(entrant, done, left, console)
        measure_accuracies(run)
        log.end()
        if run.faulty:
            name, reason = next(iter(run.faulty.items()))
            raise IncompleteError(
                f"{len(run.faulty)} final runs failed by a fault, such as {name} ({reason}); the same command "
                "again runs what is missing"
            )


def waiting(
    lineup: Sequence[Entrant],
    seeds: Sequence[int],
    frame: pd.DataFrame,
    known: Mapping[str, Job],
    run: Path,
    referee: bool = False,
) -> list[Job]:
    """Return a job for each entrant and seed without a finished final run.

    Those that began keep their names and so their checkpoints; the others are numbered after the last, and have a
    `referee` if that is asked for.
    """
    done = final_scores(frame)
    begun = {stable_hash(job.config): job for job in job_files.unfinished(known, frame, Phase.FINAL)}
    numbers = count(job_files.next_number(run, known, frame, Phase.FINAL))
    jobs: list[Job] = []
    for seed in seeds:
        for entrant in lineup:
            config = entrant.config.model_copy(update={"seed": seed})
            name = stable_hash(config)
            if name not in done:
                jobs.append(
                    begun.get(name)
                    or job_files.new_job(Phase.FINAL, next(numbers), entrant.cell, config, entrant.by, referee)
                )
    return jobs


def _announce(lineup: Sequence[Entrant], log: Log, console: Console) -> None:
    took = "of the call that was cut short" if log.goes_on else "that no trial of this run had"
    title = f"Chosen by {lineup[0].by}, and their baselines:"
    lines = [title, *(entrant.label for entrant in lineup), f"Seeds {took}: {_listed(log.seeds)}"]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _say_stopped(entrant: Entrant, done: Sequence[int], left: Sequence[int], console: Console) -> None:
    said = f"{entrant.label} cannot win by score after seeds {_listed(done)}; not run: seeds {_listed(left)}"
    console.print(said, highlight=False, soft_wrap=True)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
