"""Which configurations go into the final runs: the best of the search, and the baselines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from degan_search.ledger.columns import Phase, State, config_of
from degan_search.selection import choose
from degan_search.selection.members import combined_config
from degan_search.settings.combine import Combine, trial_of
from degan_search.settings.methods import METHODS, TUNED, UNTUNED, normalised
from degan_search.settings.resolve import stable_hash, trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError, close_matches
from degan_search.trial import checks
from degan_search.trial.inputs import bank_key

LENGTHS = ("as-is", "paper")
"""How long final runs train, and in what batches: as in the search, or as in the paper."""
BASELINES = {"distillation": ("dcgan", "proxy_matched", "proxy"), "incremental": ("dcgan", "proxy", "finetuning")}
"""Of each task. LwF.MC is not among them, as it has a teacher of its own."""
FROM_SEARCH = {
    "gan": (*UNTUNED, "width", "latent"),
    "distill": ("profile", "mix_proxy"),
    "zskd": ("profile", "scales", "temperature"),
    "mosaic": ("local", "align", "adversary", "balance", "temperature"),
    "incremental": ("joint", "scaling", "scale_weight", "distill_weight", "temperature"),
}
"""Settings of each stage that stay as in the search at the paper's lengths; the stage's others are the paper's."""


@dataclass(frozen=True)
class Request:
    """What to run: which configurations, with how many seeds, at which lengths, beside which baselines."""

    top: int = 1
    per: tuple[str, ...] = choose.PROXY
    """Ledger columns; the best `top` of each group are chosen."""
    seeds: int = 5
    by: str | None = None
    """The measure that chooses; None: `choose.chosen_by`."""
    lengths: str = LENGTHS[0]
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings that replace those, such as `{"gan.steps": 5000}`."""
    baselines: tuple[str, ...] | None = None
    """None: those of `BASELINES`."""
    combine: Combine | None = field(default_factory=Combine)
    """Also a student of the best generators of each group together."""
    must_combine: bool = False
    """Whether a group without two generators is an error; else it has no such student."""
    referee: bool = False
    """Also say how accurate each student is on the test images after each epoch; nothing is chosen by it."""

    def saved(self) -> dict[str, Any]:
        """Return plain values for `finals.json`, where the lengths are called `budget` as in the command's option."""
        names = {"lengths": "budget"}
        values = asdict(replace(self, combine=None))
        del values["must_combine"]
        values["combine"] = self.combine.model_dump() if self.combine else None
        plain: dict[str, Any] = json.loads(json.dumps(values))  # tuples become lists, as in the file
        return {names.get(name, name): value for name, value in plain.items()}


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
        if members := self.config.combine.members:
            names = ", ".join(map(trial_of, members))
            return f"generators of {names}: {self.config.proxy}, {self.config.method}"
        if self.source:
            weights = f" (lambda_e {gan.lambda_e:.3g}, lambda_d {gan.lambda_d:.3g})"
        return f"{self.source or 'baseline'}: {self.config.proxy}, {self.config.method}{weights}"


def check(request: Request) -> None:
    """Refuse a wrong request, before any file is read.

    Raises:
        UserError: says which part is wrong, and what would be right.
    """
    for name, value in (("top", request.top), ("seeds", request.seeds)):
        if value < 1:
            raise UserError(f"--{name} {value}: 1 or more is needed")
    if request.lengths not in LENGTHS:
        raise UserError(f"--budget {request.lengths!r} must be {' or '.join(LENGTHS)}")
    baselines = [
        name
        for name, method in METHODS.items()
        if not method.tuned and method.rule != "sigmoid" and method.source != "members"
    ]
    for name in request.baselines or ():
        if name not in baselines:
            raise UserError(f"--baselines: {name!r} is no baseline; {close_matches(name, baselines)}")
    for name in ("seed", "method"):
        if name in request.changes:
            raise UserError(f"--set {name}: finals choose it themselves, see --seeds and --baselines")


def entrants(frame: pd.DataFrame, request: Request, run: Path) -> list[Entrant]:
    """Return the chosen configurations of methods with weights to tune, then combined students, then baselines.

    Trials that are compared on the same bank share baselines, which have the settings of the best of them. The
    generators that are combined lie in the `run`'s folder.

    Raises:
        UserError: no finished search trial with weights, an unknown criterion, settings that do not fit, or fewer than
            two generators where the request must combine them.
    """
    tuned = frame[frame["config_method"].isin(TUNED)]
    by = choose.chosen_by(tuned, request.by)
    chosen: dict[str, Entrant] = {}
    for _, row in choose.best(tuned, by, request.per, request.top).iterrows():
        config = final_config(config_of(row), request)
        chosen.setdefault(stable_hash(config), Entrant(config, str(row["cell"]), str(row["trial_id"]), by))
    leaders = {bank_key(entrant.config): entrant.config for entrant in reversed(chosen.values())}
    baselines = [
        Entrant(normalised(leader.model_copy(update={"method": name})), f"proxy={leader.proxy} method={name}")
        for leader in reversed(leaders.values())
        for name in dict.fromkeys(BASELINES[leader.task] if request.baselines is None else request.baselines)
    ]
    lineup = [*chosen.values(), *_combined(tuned, by, request, run), *baselines]
    for entrant in lineup:
        checks.check(entrant.config)
        if request.referee:
            checks.check_tested(entrant.config, "--referee")
    return lineup


def _combined(tuned: pd.DataFrame, by: str, request: Request, run: Path) -> list[Entrant]:
    """Return a combined student for each group that configurations are chosen from."""
    found: list[Entrant] = []
    if request.combine is None:
        return found
    ended = tuned[(tuned["phase"] != Phase.FINAL) & (tuned["state"] == State.COMPLETE)]
    if not request.must_combine:
        ended = ended[ended["config_task"] == "distillation"]
    for _, trials in ended.groupby(list(request.per), sort=False, dropna=False):
        config = combined_config(trials, by, request.combine, run)
        if config is None:
            if not request.must_combine:
                continue
            names = ", ".join(map(str, trials["trial_id"]))
            raise UserError(
                f"--combine {request.combine.members}: of the search trials on {trials['compared_on'].iloc[0]} "
                f"({names}) fewer than two have their generator in {run / 'trials'}; a sweep with --keep all keeps all"
            )
        cell = f"proxy={config.proxy} method={config.method}"
        found.append(Entrant(final_config(config, request), cell, by=by))
    return found


def final_config(config: TrialConfig, request: Request) -> TrialConfig:
    """Return a searched configuration at the request's lengths, without rungs and still with the search's seed.

    Raises:
        UserError: an unknown setting, or a value out of range.
    """
    settings = config.model_dump(mode="json")
    if request.lengths == "paper":
        paper = TrialConfig().model_dump(mode="json")
        searched = {stage: {name: settings[stage][name] for name in names} for stage, names in FROM_SEARCH.items()}
        settings |= {name: paper[name] for name in (*FROM_SEARCH, "distill_images")}
        return normalised(trial_config(settings, searched, request.changes, {"probe.at": []}))
    return normalised(trial_config(settings, request.changes, {"probe.at": []}))
