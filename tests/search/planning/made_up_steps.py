"""Seconds of steps as a test makes them up, in place of those that would be timed."""

from degan_search.search.planning import timed_steps
from degan_search.search.planning.step_time import StepTime


def steps_take(monkeypatch, generator, distillation):
    """Let a generator's and a distillation step take so many seconds an image, and trials nothing besides."""
    monkeypatch.setattr(timed_steps, "ONCE", 0.0)
    monkeypatch.setattr(timed_steps, "generator_step", lambda *_: StepTime(0, generator))
    monkeypatch.setattr(timed_steps, "distillation_step", lambda *_: StepTime(0, distillation))
