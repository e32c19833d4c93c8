"""Studies rebuilt from the ledger against those that the search itself told."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_ledger import made_ledger
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from ray.tune.search import Searcher
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from degan_search import ledger
from degan_search.ledger.columns import Phase, config_columns
from degan_search.search import remaining
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.run import tune_dicts
from degan_search.search.run.options import Options
from degan_search.search.run.results import TrialResult
from degan_search.search.space import cell as spaces
from degan_search.search.space import check, schema
from degan_search.search.space import file as space_file
from degan_search.search.suggest import studies
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.search.sweep import sweep
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError
from tests.search.tiny_sweep import DIVERGES, GOOD, SPACE, UNTRAINED, share

CONDITIONAL = {
    "trial": {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}},
    "cells": {"proxy": ["digits", "photos"]},
    "parameters": {"method": ["dcgan", "degan"], "gan.latent": {"int": [2, 8]}, "gan.lr": {"log": [1e-4, 1e-2]}},
    "when": [
        {
            "if": {"method": "degan"},
            "parameters": {"gan.lambda_e": {"zero_or_log": [0.1, 10]}, "gan.lambda_d": {"range": [1, 50]}},
        },
        {"if": {"gan.latent": [2, 3, 4, 5]}, "parameters": {"gan.batch_size": [16, 32]}},
    ],
    "first": [{"method": "degan", "gan.lambda_e": 0, "gan.lambda_d": 5}],
    "search": {"trials": 16},
}


class Remembers(CellSearcher):
    """The searcher, which remembers Optuna's trial of each job."""

    def __init__(self, *given):
        super().__init__(*given)
        self.given_trials = {}

    def suggest(self, trial_id):
        job = super().suggest(trial_id)
        if isinstance(job, dict):
            self.given_trials[job["id"]] = self.asked[job["id"]]
        return job

    def told(self):
        """Optuna's trials by job: as the studies hold them at the end."""
        return {name: asked.study.trials[asked.trial.number] for name, asked in self.given_trials.items()}


def drive(space, folder):
    """Search with made-up scores and every kind of end, as Tune would drive it; rows are written as in a sweep."""
    searcher = Remembers(spaces.cells(space))
    recorder = Recorder(folder, {}, searcher, Rules(retries=0), searcher.total, "Search", Console(file=io.StringIO()))
    ends = ["complete", "pruned", "complete", "diverged", "unmeasured", "complete", "lost"]
    number = 0
    while (config := searcher.suggest(str(number))) != Searcher.FINISHED:
        end, scores = ends[number % len(ends)], [0.1 + 0.02 * number, 0.2 + 0.01 * number]
        (job,) = tune_dicts.from_config(config)
        trial = SimpleNamespace(config=config, error_file=None)
        recorder.on_trial_start(0, [], trial)
        told = 0

        def tell(curve, state=None, trial=trial, job=job, **result):
            told = TrialResult(id=job.id, reports=curve, state=state, **result)
            trial.last_result = tune_dicts.to_result([told], [] if state else [job.id], 1)
            recorder.on_trial_result(0, [], trial, trial.last_result)

        for rung, score in enumerate(scores if end != "lost" else scores[:1], 1):
            report = {"stage": "gan", "budget": 10 * rung, "seconds": float(rung), "score": score}
            curve = [report | {"budget": 10 * rung - 5, "score": math.nan}, report]
            tell(curve, score=score, gan_steps=10 * rung, reports_from=told)
            told += len(curve)
            if not (end == "pruned" and rung == 2):  # Tune stops it there, and tells the searcher of its end alone
                searcher.on_trial_result(str(number), trial.last_result)
        if end == "lost":
            searcher.on_trial_complete(str(number), error=True)
            recorder.on_trial_error(0, [], trial)
        else:
            if end != "pruned":
                state = "FAIL" if end == "diverged" else "COMPLETE"
                score = 0.5 + 0.01 * number if end == "complete" else math.nan
                done = {"stage": "done", "budget": 30, "seconds": 3.0, "score": score}
                tell([done], state, score=score, gan_steps=30, reports_from=told)
            searcher.on_trial_complete(str(number), trial.last_result)
            recorder.on_trial_complete(0, [], trial)
        number += 1
    assert recorder.outbox.flush() == []
    return searcher


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driven")
    space = schema.Space.model_validate(CONDITIONAL)
    check.check(space)
    (folder / "space.yaml").write_text(space_file.dump(space))
    return folder, drive(space, folder)


def assert_equal(rebuilt, told, but=()):
    """All that a sampler looks at."""
    assert rebuilt.state == told.state
    assert rebuilt.values == told.values
    assert rebuilt.intermediate_values == told.intermediate_values
    assert rebuilt.params == {name: value for name, value in told.params.items() if not name.startswith(but)}
    assert rebuilt.distributions == {name: told.distributions[name] for name in rebuilt.params}


def test_a_search_of_a_conditional_space_is_rebuilt_trial_by_trial(driven):
    folder, searcher = driven
    told = searcher.told()
    rebuilt = {trial.user_attrs["trial_id"]: trial for one in studies.studies(folder).values() for trial in one.trials}
    assert list(studies.studies(folder)) == ["proxy=digits", "proxy=photos"]
    assert rebuilt.keys() == told.keys()
    for name, trial in rebuilt.items():
        # DCGAN uses no weights: its rows hold none, whatever was drawn.
        plain = told[name].params["method"] == 0
        assert_equal(trial, told[name], ("gan.lambda_e", "gan.lambda_d") if plain else ())
    # So that the comparison means something: every branch and every end was there.
    assert {trial.state for trial in rebuilt.values()} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert {frozenset(trial.params) & {"gan.lambda_e", "gan.batch_size"} for trial in rebuilt.values()} == {
        frozenset(names) for names in ((), ("gan.lambda_e",), ("gan.batch_size",), ("gan.lambda_e", "gan.batch_size"))
    }


def test_order_times_and_measures_are_the_ledgers(driven):
    folder, _ = driven
    frame = ledger.load(folder).set_index("trial_id")
    for study in studies.studies(folder).values():
        rows = frame.loc[[trial.user_attrs["trial_id"] for trial in study.trials]]
        assert rows["number"].is_monotonic_increasing
        for trial, (_, row) in zip(study.trials, rows.iterrows(), strict=True):
            assert trial.datetime_start.timestamp() == pytest.approx(row["started"].timestamp())
            assert trial.datetime_complete.timestamp() == pytest.approx(row["finished"].timestamp())
            assert trial.user_attrs.get("score", math.nan) == pytest.approx(row["score"], nan_ok=True)
            assert trial.user_attrs.get("reason", "") == ("" if pd.isna(row["reason"]) else row["reason"])


def test_a_rebuilt_study_goes_on(driven):
    folder, _ = driven
    space = space_file.load(str(folder / "space.yaml"))
    frame, curves = ledger.load(folder), ledger.curves(folder)
    for cell in spaces.cells(space):
        first, again = (studies.from_ledger(cell, frame, curves) for _ in range(2))
        drawn = [cell.configure(first.ask()) for _ in range(3)]
        assert drawn == [cell.configure(again.ask()) for _ in range(3)]
        # A sampler that began again with its first seed would repeat what the search drew first.
        fresh = studies.create(cell)
        assert drawn[0] not in [cell.configure(fresh.ask()) for _ in range(3)]


def test_a_row_that_the_space_cannot_give_is_named(driven):
    folder, _ = driven
    space = schema.Space.model_validate({**CONDITIONAL, "parameters": {"gan.lr": {"log": [1e-9, 1e-8]}}, "first": []})
    cell = spaces.cells(space)[0]
    with pytest.raises(UserError, match=r"search-0000 does not fit the space of its run: gan.lr = .* outside"):
        studies.from_ledger(cell, ledger.load(folder), ledger.curves(folder))


def test_five_hundred_rows_are_rebuilt_as_drawn(driven):
    space = schema.Space.model_validate({**CONDITIONAL, "cells": {"method": ["degan"]}, "first": [], "parameters": {}})
    cell = spaces.cells(space)[0]
    live = studies.create(cell)
    live.sampler = RandomSampler(seed=0)
    rows = []
    for number in range(500):
        config = cell.configure(trial := live.ask())
        live.tell(trial, number / 500)
        row = {"trial_id": f"search-{number:04d}", "number": number, "phase": "search", "cell": cell.label}
        row |= {"state": "COMPLETE", "reason": None, "score": number / 500, **config_columns(config)}
        rows.append(row | dict.fromkeys(("started", "finished"), pd.Timestamp("2026-01-01", tz="UTC")))
    frame = pd.DataFrame(rows, columns=ledger.load(driven[0]).columns)
    rebuilt = studies.from_ledger(cell, frame, ledger.curves(driven[0]).iloc[:0]).get_trials(deepcopy=False)
    assert len(rebuilt) == 500
    for one, told in zip(rebuilt, live.get_trials(deepcopy=False), strict=True):
        assert_equal(one, told)


def test_importances_find_the_parameter_that_matters(tmp_path):
    settings = {"gan.lambda_e": {"range": [0, 10]}, "gan.lambda_d": {"zero_or_log": [0.1, 50]}}
    space = schema.Space.model_validate({"cells": {"proxy": ["digits", "photos"]}, "parameters": settings})
    (tmp_path / "space.yaml").write_text(space_file.dump(space))
    rng = np.random.default_rng(0)
    base = TrialConfig()
    for number in range(60):
        cell = "proxy=photos" if number < 9 else "proxy=digits"  # nine are too few
        weights = {"lambda_e": rng.uniform(0, 10), "lambda_d": float(np.exp(rng.uniform(np.log(0.1), np.log(50))))}
        config = base.model_copy(update={"gan": base.gan.model_copy(update=weights)})
        row = {"trial_id": f"search-{number:04d}", "attempt": 1, "number": number, "phase": Phase.SEARCH, "cell": cell}
        row |= {"state": "COMPLETE", "score": 1 - abs(weights["lambda_d"] - 20) / 50, **config_columns(config)}
        ledger.write_row(tmp_path, row | dict.fromkeys(("started", "finished"), pd.Timestamp("2026-01-01", tz="UTC")))
    found = studies.importances(tmp_path)
    assert list(found.columns) == ["cell", "parameter", "importance", "n"]
    assert set(found["cell"]) == {"proxy=digits"}
    assert set(found["n"]) == {51}
    weights = found.set_index("parameter")["importance"]
    assert set(weights.index) == {"gan.lambda_e", "gan.lambda_d", "gan.lambda_d is 0"}
    assert weights.sum() == pytest.approx(1)
    assert weights["gan.lambda_d"] > 0.7


def test_importances_of_few_trials_are_an_empty_table(tmp_path):
    found = studies.importances(made_ledger(tmp_path, 30))
    assert found.empty
    assert list(found.columns) == ["cell", "parameter", "importance", "n"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A real sweep, tracked for TensorBoard: trials that end, stop at a rung and diverge, and a conditional weight."""
    when = [{"if": {"distill.lr": 0.002}, "parameters": {"gan.lambda_d": {"zero_or_log": [0.1, 50]}}}]
    first = [GOOD, {**GOOD, "probe.lr": UNTRAINED}, {**GOOD, "gan.lr": DIVERGES}]
    first += [{**GOOD, "distill.lr": 0.002, "gan.lambda_d": 5}]
    space = schema.Space.model_validate({**SPACE, "when": when, "first": first, "finals": None})
    check.check(space)
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remaining, "CellSearcher", lambda *given: kept.append(Remembers(*given)) or kept[0])
        storage = tmp_path_factory.mktemp("swept")
        share(SPACE, storage / "cache")
        options = Options(storage=storage, name="tiny", max_concurrent=1, track="tensorboard")
        folder = sweep(space, options, Console(file=io.StringIO()))
    return folder, kept[0]


def test_a_real_sweep_is_rebuilt_trial_by_trial(swept):
    folder, searcher = swept
    told = searcher.told()
    (rebuilt,) = studies.studies(folder).values()
    assert [trial.user_attrs["trial_id"] for trial in rebuilt.trials] == list(told)
    for trial, live in zip(rebuilt.trials, told.values(), strict=True):
        assert_equal(trial, live)
    complete, pruned, fail = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    assert [trial.state for trial in rebuilt.trials][:3] == [complete, pruned, fail]
    assert "gan.lambda_d" in rebuilt.trials[3].params


def test_what_is_tracked_are_the_ledgers_numbers(swept):
    folder, _ = swept
    frame = ledger.load(folder)
    tracked = []
    for file in sorted(folder.glob("ray/search/*/events.*"), key=lambda file: file.stat().st_mtime_ns):
        events = EventAccumulator(str(file))
        events.Reload()
        tags = {tag: events.Scalars(tag)[-1] for tag in events.Tags()["scalars"]}
        if "ray/tune/score" in tags:
            tracked.append(tags)
    rows = frame[frame["score"].notna()].sort_values("score")
    assert len(tracked) == len(rows) == 3
    tracked.sort(key=lambda tags: tags["ray/tune/score"].value)
    for tags, (_, row) in zip(tracked, rows.iterrows(), strict=True):
        assert tags["ray/tune/score"].value == pytest.approx(row["score"], rel=1e-6)
        assert tags["ray/tune/score"].step == row["gan_steps"]
        if row["state"] == "COMPLETE":
            assert tags["ray/tune/agreement"].value == pytest.approx(row["agreement"], rel=1e-6)
        assert not any("provenance" in tag or "reports" in tag or "config" in tag for tag in tags)
