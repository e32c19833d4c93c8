"""What a worker keeps of the inputs that it was given."""

import dataclasses
import gc
import weakref

import pytest
import torch
from ray import cloudpickle

from degan_search.search.workers import worker
from degan_search.trial.inputs import gather, load
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


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("freeze", [False, True])
def test_the_bank_of_a_torchscript_teacher_is_made_by_other_processes(freeze, tiny, teacher, tmp_path):
    script = torch.jit.script(teacher.model().network)
    (torch.jit.freeze(script) if freeze else script).save(str(tmp_path / "own.pt"))
    config = tiny({"teacher": {"path": str(tmp_path / "own.pt"), "trusted": True}})
    (loaded,) = load([config], None, tmp_path)

    def sent(tasks):
        return [cloudpickle.loads(cloudpickle.dumps(task))() for task in tasks]

    given = gather(loaded, tmp_path / "sent", run_all=sent)
    assert len(given.bank) == 8 + 2 * 8
    assert (given.bank == gather(loaded, tmp_path / "here").bank).all()
    assert cloudpickle.loads(cloudpickle.dumps(given)).teacher.hash == loaded.teacher.hash
