"""A search that goes on where an earlier one was cut short."""

import math

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from degan_search.ledger.columns import METRICS, Phase, config_columns
from degan_search.search.run.jobs import new_job
from degan_search.search.space import cell as spaces
from degan_search.search.space import schema
from degan_search.search.suggest.cell_searcher import CellSearcher, Past
from degan_search.settings.trial import TrialConfig
from tests.search.suggest.as_tune import run_all, searcher, suggest

CURVES = pd.DataFrame({"trial_id": [], "cell": [], "phase": [], "stage": [], "budget": [], "score": []})


def rows_of(jobs, state="COMPLETE", score=0.5):
    moment = pd.Timestamp("2026-01-01", tz="UTC")
    about = dict.fromkeys(METRICS, math.nan) | {"score": score, "state": state, "started": moment, "finished": moment}
    return pd.DataFrame(
        [
            {**about, **config_columns(one.config), "trial_id": one.id}
            | {name: getattr(one, name) for name in ("cell", "phase", "number", "attempt")}
            | {"reason": None}
            for one in jobs
        ]
    )


@given(done=st.integers(0, 6), begun=st.integers(0, 3), more=st.integers(0, 3))
@settings(max_examples=25)
def test_a_search_that_goes_on_meets_its_budget_and_repeats_nothing(done, begun, more):
    first = [{"gan.lambda_e": 1, "gan.lambda_d": float(n)} for n in (1, 2, 3)]
    cut = searcher(first=first, search={"trials": 6, "sampler": "tpe"})
    jobs = [suggest(cut, str(n)) for n in range(done + begun)]
    frame = rows_of(jobs[:done]) if done else rows_of([new_job(Phase.SEARCH, 0, "a", TrialConfig())])[:0]
    rungs = {one.id: {10: 0.25} for one in jobs[done:]}
    past = Past(frame, CURVES, jobs[done:], rungs, done + begun)
    space = cut.cells["proxy=digits"].space.model_copy(
        update={"search": schema.SearchConfig(trials=6 + more, sampler="tpe")}
    )
    on = CellSearcher(spaces.cells(space), past=past)
    assert on.total == 2 * (6 + more) - done
    later = run_all(on)
    assert later[:begun] == jobs[done:]
    everything = [*jobs[:done], *later]
    assert [one.number for one in everything] == [*range(2 * (6 + more))]
    for cell in on.studies:
        gans = [one.config.gan for one in everything if one.cell == cell]
        assert [gan.lambda_d for gan in gans[:3]] == [1, 2, 3]
        assert len({(gan.lambda_e, gan.lambda_d) for gan in gans}) == 6 + more
        told = on.studies[cell].get_trials()
        assert len(told) == 6 + more
        assert {trial.state for trial in told} == {TrialState.COMPLETE}
        assert sum(10 in trial.intermediate_values for trial in told) == sum(one.cell == cell for one in jobs[done:])
