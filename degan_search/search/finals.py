"""Final runs: chosen configurations with fresh seeds beside their baselines, in the folder of their run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from rich.console import Console

from degan_search import ledger, runtime
from degan_search.atomic import write_bytes
from degan_search.config import TrialConfig, stable_hash, trial_config
from degan_search.errors import IncompleteError, UserError, close_matches
from degan_search.methods import METHODS, UNTUNED, normalised
from degan_search.records import Phase, State, config_of
from degan_search.search import jobs as job_files
from degan_search.search.asha import CellAsha
from degan_search.search.cluster import ray_cluster, together
from degan_search.search.jobs import Job
from degan_search.search.options import Options
from degan_search.search.outbox import Outbox
from degan_search.search.prepare import prepare
from degan_search.search.run_folder import check_writable
from degan_search.search.searcher import GivenJobs
from degan_search.search.sweep import Prepared, check_slots, opened, read_jobs, run_phase, score
from degan_search.selection import choose, paired_test
from degan_search.trial import checks
from degan_search.trial.inputs import inputs_key

LOG = "finals.json"
BUDGETS = ("as-is", "paper")
BASELINES = {"distillation": ("dcgan", "proxy_matched", "proxy"), "incremental": ("dcgan", "proxy", "finetuning")}
"""Of each task. LwF.MC is none of them: it has a teacher of its own."""
KEPT = {
    "gan": (*UNTUNED, "width", "latent"),
    "distill": ("profile", "mix_proxy"),
    "zskd": ("scales", "temperature"),
    "incremental": ("joint", "scaling", "scale_weight", "distill_weight", "temperature"),
}
"""Settings that the paper's budget leaves as they were found; of these stages, all others are the paper's."""
FIRST_LOOK = 3
"""Seeds before a configuration may be stopped."""


@dataclass(frozen=True)
class Request:
    """What to run: whose configurations, how many seeds, at which budget, beside what."""

    top: int = 1
    per: tuple[str, ...] = choose.PROXY
    """Ledger columns; the best `top` of each group are chosen."""
    seeds: int = 5
    by: str | None = None
    """The measure that chooses; None: `choose.chosen_by`."""
    budget: str = BUDGETS[0]
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings over the budget's, such as `{"gan.steps": 5000}`."""
    baselines: tuple[str, ...] | None = None
    """None: those of `BASELINES`."""


@dataclass(frozen=True)
class Entrant:
    """A configuration that is run with each seed; `source` is the search trial it comes from, None: a baseline."""

    config: TrialConfig
    cell: str
    source: str | None = None
    by: str | None = None
    """The measure that chose it."""

    @property
    def label(self) -> str:
        """Such as `search-0012: glyphs/[K-Z], degan (lambda_e 5, lambda_d 20)`."""
        gan, weights = self.config.gan, ""
        if self.source:
            weights = f" (lambda_e {gan.lambda_e:.3g}, lambda_d {gan.lambda_d:.3g})"
        return f"{self.source or 'baseline'}: {self.config.proxy}, {self.config.method}{weights}"


def finals(request: Request, options: Options, console: Console) -> None:
    """Run the chosen configurations and their baselines with fresh seeds.

    Rows of phase `final` go into the run's own folder, `options.folder`, with trial ids after the last. What is
    finished there already is not run again: a call that was cut short takes its own seeds up again. Seeds come
    in rounds; from the third on, of the configurations on one bank those stop that `paired_test.losers` says cannot
    win by `score`, the search's objective, which needs no true data unless the user asked for one that does.
    Baselines never stop. `finals.json` says what each call ran.

    Raises:
        UserError: a wrong request, a run without finished search trials, data or a folder that do not serve,
            before any trial starts; at the end, rows that could not be written.
    """
    check(request)
    run = options.folder
    frame = ledger.load(run)
    lineup = entrants(frame, request)
    log = Log(run, request, lineup, frame)
    check_writable(run, str(run))
    check_slots(options)
    runtime.set_up_torch(options.cpus_per_trial)  # as in a trial, so that the teacher is the same
    _announce(lineup, log, console)
    with (
        opened(options, console, "degan-search finals") as opened_run,
        ray_cluster(options, console, opened_run.interruption.listen),
    ):
        inputs = prepare([entrant.config for entrant in lineup], options, console)
        prepared = Prepared({key: ray.put(value) for key, value in inputs.items()})
        log.begin()
        running = lineup
        for done, batch in rounds(log.seeds, bool(competing(lineup))):
            jobs = waiting(running, batch, ledger.load(run), read_jobs(opened_run), run)
            if jobs:
                name, work = f"final-from-{jobs[0].id}", GivenJobs(jobs, Outbox(), partial(together, options))
                run_phase(Phase.FINAL, opened_run, prepared, CellAsha(None), work, name)
            left = log.seeds[len(done) :]
            beaten = stops(running, done, ledger.load(run)) if left else []
            running = [entrant for entrant in running if entrant not in beaten]
            for entrant in beaten:
                log.stop(entrant, done, left)
                console.print(
                    f"{entrant.label} cannot win by score after seeds {_listed(done)}; not run: seeds {_listed(left)}",
                    highlight=False,
                    soft_wrap=True,
                )
        score(opened_run)
        log.end()
        if opened_run.faulty:
            name, reason = next(iter(opened_run.faulty.items()))
            raise IncompleteError(
                f"{len(opened_run.faulty)} final runs failed by a fault, such as {name} ({reason}); the same command "
                "again runs what is missing"
            )


def check(request: Request) -> None:
    """Refuse a request that can be seen to be wrong before anything is read.

    Raises:
        UserError: says which part, and what would be right.
    """
    for name, value in (("top", request.top), ("seeds", request.seeds)):
        if value < 1:
            raise UserError(f"--{name} {value}: 1 or more is needed")
    if request.budget not in BUDGETS:
        raise UserError(f"--budget {request.budget!r} must be {' or '.join(BUDGETS)}")
    baselines = [name for name, method in METHODS.items() if not method.tuned and method.rule != "sigmoid"]
    for name in request.baselines or ():
        if name not in baselines:
            raise UserError(f"--baselines: {name!r} is no baseline; {close_matches(name, baselines)}")
    for name in ("seed", "method"):
        if name in request.changes:
            raise UserError(f"--set {name}: finals choose it themselves, see --seeds and --baselines")


def entrants(frame: pd.DataFrame, request: Request) -> list[Entrant]:
    """Return the chosen configurations of methods with weights to tune, then their baselines.

    Trials that are compared on one bank share baselines: those of the best of them.

    Raises:
        UserError: no finished search trial with weights, an unknown criterion, or settings that do not fit.
    """
    tuned = frame[frame["config_method"].isin([name for name, method in METHODS.items() if method.tuned])]
    by = choose.chosen_by(tuned, request.by)
    chosen: dict[str, Entrant] = {}
    for _, row in choose.best(tuned, by, request.per, request.top).iterrows():
        config = final_config(config_of(row), request)
        chosen.setdefault(stable_hash(config), Entrant(config, str(row["cell"]), str(row["trial_id"]), by))
    leaders = {inputs_key(entrant.config): entrant.config for entrant in reversed(chosen.values())}
    baselines = [
        Entrant(normalised(leader.model_copy(update={"method": name})), f"proxy={leader.proxy} method={name}")
        for leader in reversed(leaders.values())
        for name in dict.fromkeys(BASELINES[leader.task] if request.baselines is None else request.baselines)
    ]
    lineup = [*chosen.values(), *baselines]
    for entrant in lineup:
        checks.check(entrant.config)
    return lineup


def final_config(config: TrialConfig, request: Request) -> TrialConfig:
    """Return a searched configuration at the request's budget, without rungs, its seed still the search's.

    Raises:
        UserError: an unknown setting, or a value out of range.
    """
    settings = config.model_dump(mode="json")
    if request.budget == "paper":
        paper = TrialConfig().model_dump(mode="json")
        kept = {stage: {name: settings[stage][name] for name in names} for stage, names in KEPT.items()}
        settings |= {name: paper[name] for name in (*KEPT, "distill_images")}
        return normalised(trial_config(settings, kept, request.changes, {"probe.at": []}))
    return normalised(trial_config(settings, request.changes, {"probe.at": []}))


def fresh_seeds(frame: pd.DataFrame, number: int) -> list[int]:
    """Return the smallest seeds that no trial of the run had, in whatever phase and however it ended."""
    used = set(frame["config_seed"])
    return list(islice((seed for seed in count() if seed not in used), number))


def rounds(seeds: Sequence[int], compete: bool) -> list[tuple[list[int], list[int]]]:
    """Return (seeds done at its end, seeds run in it) for each round; one round where nothing may be stopped."""
    first = FIRST_LOOK if compete else len(seeds)
    ends = [*range(min(first, len(seeds)), len(seeds) + 1)]
    return [(list(seeds[:end]), list(seeds[0 if end == ends[0] else end - 1 : end])) for end in ends]


def competing(lineup: Sequence[Entrant]) -> dict[str, list[Entrant]]:
    """Return the chosen configurations that share a bank with another one, by `inputs_key`."""
    groups: dict[str, list[Entrant]] = {}
    for entrant in lineup:
        if entrant.source:
            groups.setdefault(inputs_key(entrant.config), []).append(entrant)
    return {key: group for key, group in groups.items() if len(group) > 1}


def waiting(
    lineup: Sequence[Entrant], seeds: Sequence[int], frame: pd.DataFrame, known: Mapping[str, Job], run: Path
) -> list[Job]:
    """Return a job for each entrant and seed that is no finished final run yet.

    Those that began keep their names, and with them their checkpoints; the others are numbered after the last.
    """
    done = final_scores(frame)
    begun = {stable_hash(one.config): one for one in job_files.unfinished(known, frame, Phase.FINAL)}
    numbers = count(job_files.next_number(run, known, frame, Phase.FINAL))
    jobs: list[Job] = []
    for seed in seeds:
        for entrant in lineup:
            config = entrant.config.model_copy(update={"seed": seed})
            name = stable_hash(config)
            if name not in done:
                jobs.append(
                    begun.get(name) or job_files.job(Phase.FINAL, next(numbers), entrant.cell, config, entrant.by)
                )
    return jobs


def stops(lineup: Sequence[Entrant], seeds: Sequence[int], frame: pd.DataFrame) -> list[Entrant]:
    """Return the entrants that cannot win any more by the scores of the finished final runs with these seeds.

    Chosen configurations compete with those on their bank; nobody stops before `FIRST_LOOK` seeds.
    """
    if len(seeds) < FIRST_LOOK:
        return []
    done = final_scores(frame)
    beaten: list[Entrant] = []
    for group in competing(lineup).values():
        scores = {
            entrant.source: [
                done.get(stable_hash(entrant.config.model_copy(update={"seed": seed})), float("nan")) for seed in seeds
            ]
            for entrant in group
        }
        names = paired_test.losers(pd.DataFrame(scores, index=list(seeds)))
        beaten += [entrant for entrant in group if entrant.source in names]
    return beaten


def final_scores(frame: pd.DataFrame) -> dict[str, float]:
    """Return the score of each finished final run by the hash of its configuration, the seed included.

    The hash is taken anew: rows of an older version were hashed without newer settings.
    """
    done = frame[(frame["phase"] == Phase.FINAL) & (frame["state"] == State.COMPLETE)]
    return {stable_hash(config_of(row)): float(row["score"]) for _, row in done.iterrows()}


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
        asked = json.loads(json.dumps(asdict(request)))  # tuples become lists, as in the file
        asked |= {"by": lineup[0].by, "chosen": [entrant.source for entrant in lineup if entrant.source]}
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
        """Note that a configuration was stopped: after which seeds, and which are not run."""
        self.stopped[str(entrant.source)] = {"after": list(done), "not_run": list(left)}

    def end(self) -> None:
        """Write that all is done, and which configurations were stopped."""
        self._write(_now())

    def _write(self, finished: str | None) -> None:
        self.entries[-1] |= {"stopped": self.stopped, "finished": finished}
        write_bytes(self.file, json.dumps(self.entries, indent=1).encode())


def _announce(lineup: Sequence[Entrant], log: Log, console: Console) -> None:
    took = "of the call that was cut short" if log.goes_on else "that no trial of this run had"
    title = f"Chosen by {lineup[0].by}, and their baselines:"
    lines = [title, *(entrant.label for entrant in lineup), f"Seeds {took}: {_listed(log.seeds)}"]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
