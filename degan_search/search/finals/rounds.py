"""Rounds of seeds: which configurations go on to more seeds, and which cannot win any more."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from degan_search.ledger.columns import Phase, State
from degan_search.search.finals.lineup import Entrant
from degan_search.selection import paired_test
from degan_search.settings.resolve import stable_hash
from degan_search.trial.inputs import bank_key

MIN_SEEDS = 3
"""Seeds that a configuration has before it may be stopped."""


def rounds(seeds: Sequence[int], compete: bool) -> list[tuple[list[int], list[int]]]:
    """Return (seeds done at its end, seeds run in it) for each round; without competition there is one round."""
    first = MIN_SEEDS if compete else len(seeds)
    ends = [*range(min(first, len(seeds)), len(seeds) + 1)]
    return [(list(seeds[:end]), list(seeds[0 if end == ends[0] else end - 1 : end])) for end in ends]


def competing(lineup: Sequence[Entrant]) -> dict[str, list[Entrant]]:
    """Return the chosen configurations that share a bank with another one, by `bank_key`."""
    groups: dict[str, list[Entrant]] = {}
    for entrant in lineup:
        if entrant.source:
            groups.setdefault(bank_key(entrant.config), []).append(entrant)
    return {key: group for key, group in groups.items() if len(group) > 1}


def stops(lineup: Sequence[Entrant], seeds: Sequence[int], frame: pd.DataFrame) -> list[Entrant]:
    """Return the entrants that cannot win any more by the scores of the finished final runs with these seeds.

    Chosen configurations compete with those on their bank; nobody stops before `MIN_SEEDS` seeds.
    """
    if len(seeds) < MIN_SEEDS:
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
    """Return the score of each finished final run by the hash of its configuration, the seed included."""
    done = frame[(frame["phase"] == Phase.FINAL) & (frame["state"] == State.COMPLETE)]
    return {str(row["config_hash"]): float(row["score"]) for _, row in done.iterrows()}
