"""The method `mosaic` in a trial: what it is given, what it leaves, how long it takes."""

import itertools

import pytest
import torch

from degan_search.evaluation import networks
from degan_search.search.planning import step_time, timed_steps
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import UserError
from degan_search.trial import outcome as outcomes
from tests.trial.tiny_trials import MOSAIC_STEPS


def test_its_generator_can_be_loaded_and_makes_the_same_images(run, tiny, tmp_path):
    outcome = run(method="mosaic")
    outcomes.save(outcome, tmp_path / "trials" / "final-0000")
    generator = networks.load_generator(tmp_path, "final-0000", tiny({"method": "mosaic"}))
    z = torch.randn(3, 4, 1, 1)
    assert torch.equal(generator(z), outcome.generator(z))


def test_it_reports_its_steps_as_one_stage(run):
    events = []
    run(report=events.append, method="mosaic")
    assert [(event.stage, event.step, event.gan_steps) for event in events] == [
        *(("mosaic", step, step) for step in range(1, MOSAIC_STEPS + 1)),
        ("done", 1, MOSAIC_STEPS),
    ]
    assert {"d_loss", "g_loss", "adversarial", "entropy", "diversity", "divergence"} <= set(events[0].metrics)


def test_a_proxy_smaller_than_a_batch_is_refused(run):
    with pytest.raises(UserError, match=r"leaves 48 images for distillation, fewer than a batch of 49; lower mosaic\."):
        run({"mosaic.batch_size": 49}, method="mosaic")


def test_other_settings_give_another_student(run):
    students = [
        outcomes.files(run(changes, method="mosaic"))["student.safetensors"]
        for changes in ({}, {"mosaic.balance": 1}, {"mosaic.augment": False}, {"seed": 1})
    ]
    assert len(set(students)) == 4


def test_its_time_is_that_of_its_steps(monkeypatch):
    taken = itertools.cycle(batch / 8 for batch in step_time.BATCHES)
    monkeypatch.setattr(timed_steps, "WHOLE", 1.0)
    monkeypatch.setattr(timed_steps, "ONCE", 0.0)
    monkeypatch.setattr(step_time, "_seconds", lambda act, device: act() or (next(taken),) * 2)
    config = trial_config(
        {
            "method": "mosaic",
            "proxy": "digits",
            "teacher": {"dataset": "digits", "network": "lenet", "width": 2},
            "student": {"network": "lenet", "width": 2},
            "gan.width": 2,
            "mosaic": {"batch_size": 64, "steps": 50},
        }
    )
    assert timed_steps.trial_seconds(config, None) == (50 * 64 / 8, 50 * 64 / 8)
    passes = config.model_copy(update={"count": 100, "mosaic": config.mosaic.model_copy(update={"steps": None})})
    assert timed_steps.trial_seconds(passes, None)[0] == 200 * 2 * 64 / 8
