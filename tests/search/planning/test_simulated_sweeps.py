"""The time left in simulated sweeps, with a clock of their own."""

import heapq
import math
from itertools import count

import numpy as np
import pytest

from degan_search.ledger.columns import State
from degan_search.search.planning.cost_model import CostModel, Prior, bounds
from degan_search.search.suggest.asha import Rungs

CELLS = {
    "photos degan": ((30, 30, 40), (90,)),
    "noise degan": ((30, 30, 40), (90,)),
    "photos extended": ((60, 60, 100), (200,)),
    "photos zskd": ((60,), (60,)),
    "photos proxy": ((), (20,)),
}
"""Of a simulated sweep: seconds that are expected of a search trial, of a final."""
TRIALS, SEEDS, FACTOR, NOISE = 16, 3, 2, 0.1


def simulate(seed, slots, until=math.inf):
    """Run a sweep by a clock of its own, up to a moment.

    Machines are slower than timed steps say, cells differ in that, and trials vary by NOISE. Returns the cost model,
    what waits, how many of the phase's trials have ended, of how many, and the ends of the phases.
    """
    rng, rungs, made, ends = np.random.default_rng(seed), Rungs(FACTOR), CostModel(slots, FACTOR), []
    for cell, (search, final) in CELLS.items():
        made.stretches.priors["search", cell] = Prior(search, (100, 200)[: len(search) - 1] if search else ())
        made.stretches.priors["final", cell] = Prior(final)
    pace = rng.lognormal(0.5, 0.5) * rng.lognormal(0, 0.15, len(CELLS))
    paces = dict(zip(CELLS, pace, strict=True))
    search = [("search", cell) for _ in range(TRIALS) for cell in CELLS if CELLS[cell][0]]
    finals = made.after = [("final", cell) for _ in range(SEEDS) for cell in CELLS]
    numbers, now = count(), 0.0
    for phase in (search, finals):
        if phase is finals:
            made.after = []
        waiting, events, ended = list(phase), [], 0
        while waiting or events:
            while waiting and len(events) < slots:
                kind, trial = waiting.pop(0), next(numbers)
                takes = rng.lognormal(0, NOISE) * paces[kind[1]] * np.array(made.stretches.priors[kind].seconds)
                made.begin(trial, kind, now)
                heapq.heappush(events, (now + takes[0], trial, 0, kind, takes))
            if events[0][0] > until:
                return made, waiting, ended, len(phase), ends
            now, trial, passed, kind, takes = heapq.heappop(events)
            stopped = False
            if passed < len(takes) - 1:
                made.reach(trial, (100, 200)[passed], now)
                stopped = rungs.record(kind[1], passed, rng.random()) is not None
                if not stopped:
                    heapq.heappush(events, (now + takes[passed + 1], trial, passed + 1, kind, takes))
            if stopped or passed == len(takes) - 1:
                made.end(trial, State.PRUNED if stopped else State.COMPLETE, now)
                ended += 1
        ends.append(now)
    return made, [], ended, len(finals), ends


def test_after_a_quarter_the_time_left_is_right_within_a_fifth():
    ours, finals_too, mean_trial = [], [], []
    for seed in range(200):
        slots = 2 if seed % 2 else 4
        search, whole = simulate(seed, slots)[-1]
        made, waiting, ended, total, _ = simulate(seed, slots, search / 4)
        ours.append(made.left(waiting, search / 4) / (search * 3 / 4))
        mean_trial.append(search / 4 / ended * (total - ended) / (search * 3 / 4))
        made, waiting, *_, ends = simulate(seed, slots, whole / 4)
        assert not ends, "a quarter of the sweep is amid the search"
        finals_too.append((made.left(waiting, whole / 4) + made.left_after()) / (whole * 3 / 4))
    right = [np.mean(np.abs(np.array(ratios) - 1) < 0.2) for ratios in (ours, finals_too, mean_trial)]
    assert right[0] >= 0.9
    assert right[1] >= 0.9
    assert right[2] < 0.7  # what was shown before: the mean time of a trial that has ended, for each that has not


@pytest.mark.parametrize(("share", "widest"), [(0.5, 0.5), (0.9, 1.2), (0.97, 4.0)])
def test_the_range_holds_to_the_end_and_is_no_wider_than_it_must(share, widest):
    held, widths = [], []
    for seed in range(100):
        slots = 2 if seed % 2 else 4
        *_, ends = simulate(seed, slots)
        now = share * ends[-1]
        made, waiting, *_ = simulate(seed, slots, now)
        least, most = bounds(made, made.left(waiting, now) + made.left_after(), len(waiting), now)
        held.append(least <= ends[-1] - now <= most)
        widths.append((most - least) / (ends[-1] - now))
    assert np.mean(held) >= 0.9
    assert np.median(widths) <= widest
