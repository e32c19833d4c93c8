"""What a worker keeps of the inputs that it was given."""

import dataclasses
import gc
import weakref

from degan_search.search.workers import worker
from degan_search.trial.trial import Trial


def test_only_the_last_inputs_are_kept(tiny, prepare, monkeypatch):
    inputs, kept_at_once = prepare(tiny()), worker.MAX_INPUTS
    monkeypatch.setattr(worker.ray, "get", lambda reference: dataclasses.replace(inputs))
    worker.fetch_inputs.cache_clear()

    def begun(reference):
        """A trial on the inputs of a reference, as a worker begins it."""
        return Trial(tiny(), worker.fetch_inputs(reference))

    kept = [weakref.ref(begun(number).common.shared) for number in range(kept_at_once + 1)]
    gc.collect()
    assert [reference() is not None for reference in kept] == [False] + [True] * kept_at_once
    begun(1)
    begun("another")
    gc.collect()
    assert [reference() is not None for reference in kept] == [False, True, False] + [True] * (kept_at_once - 2)
    worker.fetch_inputs.cache_clear()
