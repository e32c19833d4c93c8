"""Estimates of time against a clock that the test turns: what steps and trials took is what those to come will take."""

import io
import time
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from degan_search.cli.main import app
from degan_search.ledger.columns import Phase
from degan_search.search.callbacks.recorder import Recorder, Rules
from degan_search.search.planning import timed_steps
from degan_search.search.planning.cost_model import CostModel
from degan_search.search.planning.stretches import Prior
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import new_job
from degan_search.search.run.results import TrialResult
from degan_search.search.space import schema
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.settings.trial import TrialConfig
from degan_search.stages.gan import Gan

BATCH = 16
GAN_STEP, DISTIL_STEP = 3.2, 1.6
"""Seconds that a step of 16 images takes here: 0.2 and 0.1 an image."""


@pytest.fixture
def clock(monkeypatch):
    """All clocks but that of the calendar, in seconds; they stand still until a test turns them."""
    made = SimpleNamespace(now=1000.0)
    for name in ("monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(time, name, lambda: made.now)
    return made


class TestSteps:
    """Timed steps, scaled to trials and to sweeps."""

    @pytest.fixture(autouse=True)
    def slow_steps(self, monkeypatch, clock):
        step, loss = Gan.step, timed_steps.distillation_loss

        def turn(seconds, act, *given):
            clock.now += seconds
            return act(*given)

        monkeypatch.setattr(Gan, "step", lambda gan, real, z: turn(GAN_STEP * len(z) / BATCH, step, gan, real, z))
        monkeypatch.setattr(
            timed_steps,
            "distillation_loss",
            lambda logits, *rest: turn(DISTIL_STEP * len(logits) / BATCH, loss, logits, *rest),
        )
        monkeypatch.setattr(timed_steps, "WHOLE", 1.0)  # nothing else turns the clock
        monkeypatch.setattr(timed_steps, "ONCE", 0.0)
        cached = timed_steps.generator_step, timed_steps.distillation_step
        for timing in cached:
            timing.cache_clear()
        yield
        for timing in cached:
            timing.cache_clear()

    @pytest.mark.parametrize(
        ("changes", "seconds"),
        [
            ({}, 12 * 8 * 0.2 + 8 * 8 * 0.1),
            ({"probe.at": [4, 10]}, 12 * 8 * 0.2 + (2 * 4 * 8 + 8 * 8) * 0.1),
            ({"method": "proxy"}, 8 * 8 * 0.1),
            ({"method": "zskd"}, (80 * 3 + 8 * 8) * 0.1),
            ({"method": "combined"}, 8 * 8 * 0.1),
        ],
    )
    def test_a_trial_takes_its_images_times_an_images_seconds(self, changes, seconds, tiny):
        config = tiny(changes)
        assert timed_steps.trial_seconds(config, None) == pytest.approx((seconds, seconds))
        assert sum(timed_steps.prior(config, None).seconds) == pytest.approx(seconds)

    def test_every_weight_that_varies_is_above_0_in_the_steps(self, tiny, monkeypatch):
        plain, asked = timed_steps.generator_step, []
        varied = {f"gan.{name}": {"range": [0, 5]} for name in ("lambda_e", "lambda_s")}
        config = tiny({"method": "extended", "gan.lambda_d": 0})
        with monkeypatch.context() as patched:
            patched.setattr(timed_steps, "generator_step", lambda *given: asked.append(given[2]) or plain(*given))
            timed_steps.cost_model(schema.Space(trial=config.model_dump(mode="json"), parameters=varied), None)
        assert {(one.lambda_e, one.lambda_d, one.lambda_s) for one in asked} == {(1, 0, 1)}

    def test_a_dry_run_says_the_sum_of_the_trials(self, tiny, tmp_path):
        settings = {"trial": tiny().model_dump(mode="json"), "parameters": {"gan.lambda_d": {"range": [0, 5]}}}
        settings |= {"search": {"trials": 100}, "finals": {"seeds": [1, 2], "combine": None}}
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(settings))
        runner = CliRunner(env={"TERM": "dumb", "NO_COLOR": "1"})
        result = runner.invoke(app, ["sweep", str(file), "--dry-run", "--max-concurrent", "3"])
        assert result.exit_code == 0, result.output
        assert round(102 * (19.2 + 6.4) / 3 / 60) == 15  # minutes
        assert "about 9 to 20 min on 3 slots" in result.output

    def test_combined_students_are_planned_without_a_gan(self, tiny, tmp_path):
        settings = {"trial": tiny().model_dump(mode="json"), "cells": {"method": ["proxy", "degan"]}}
        settings["when"] = [{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": {"range": [0, 5]}}}]
        plain = schema.Space.model_validate(settings | {"finals": {"seeds": [1, 2], "combine": None}})
        space = schema.Space.model_validate(settings | {"finals": {"seeds": [1, 2], "combine": {"members": 3}}})
        made, kind = timed_steps.cost_model(space, None), ("final", "method=combined")
        assert sum(made.stretches.priors[kind].seconds) == pytest.approx(6.4)
        assert made.start == timed_steps.START
        assert (made.after.count(kind), len(made.after)) == (2, 6)
        more = timed_steps.sweep_seconds(space, 1, None)[0] - timed_steps.sweep_seconds(plain, 1, None)[0]
        assert more == pytest.approx(2 * 6.4)


def jobs_of(count):
    return [new_job(Phase.SEARCH, number, "all", TrialConfig()) for number in range(count)]


class TestTimeLeft:
    """What a sweep says while it runs."""

    @pytest.fixture
    def sweep(self, tmp_path):
        """A recorder of five jobs, two at a time, whose timed steps promised 1000 s for each; and what it prints."""
        out, searcher = io.StringIO(), GivenJobs(jobs_of(5))
        cost = CostModel(slots=2, priors={(Phase.SEARCH, "all"): Prior((400.0, 600.0), (10,))})
        made = Recorder(tmp_path, {}, searcher, Rules(), 5, "Search", Console(file=out, width=200), cost)
        return made, searcher, out

    def begin(self, made, searcher, name):
        work = searcher.suggest(name)
        trial = SimpleNamespace(config=work, last_result={}, error_file=None)
        made.on_trial_start(0, [], trial)
        return trial

    def tell(self, made, trial, state, gan_steps):
        result = TrialResult(id=trial.config["id"], state=state, score=0.5, gan_steps=gan_steps)
        trial.last_result = tune_dicts.to_result([result], [] if state else [result.id], 1)
        made.on_trial_result(0, [], trial, trial.last_result)
        if state:
            made.on_trial_complete(0, [], trial)

    def test_it_is_that_of_the_trials_that_have_ended(self, sweep, clock):
        made, searcher, out = sweep
        first, second = (self.begin(made, searcher, name) for name in "ab")
        assert made._show().endswith("2 running, about 32 to 68 min left")  # 3 rounds of 1000 s, as was promised
        clock.now += 4
        self.tell(made, first, None, 10)
        self.tell(made, second, None, 10)
        assert made._show().endswith("about 17 to 35 s left")  # a hundredth: 6 s, then two rounds of 10 s
        clock.now += 12
        self.tell(made, first, "COMPLETE", 20)
        # The second needs 0.6 s still, however late it is; the others 4 s + 12 s each, two of them one after the other.
        assert out.getvalue().splitlines()[-1].endswith("about 21 to 43 s left [1/5]")
        third = self.begin(made, searcher, "c")
        clock.now += 6
        self.tell(made, second, "COMPLETE", 20)
        assert made.cost.seconds((Phase.SEARCH, "all")) == pytest.approx(4 + (12 + 18) / 2)
        self.tell(made, third, None, 10)
        assert made.cost.seconds((Phase.SEARCH, "all")) == pytest.approx((4 + 4 + 6) / 3 + (12 + 18) / 2)
