"""What trials on the same inputs share on a device."""

import dataclasses
import pickle
import weakref

from same_bits import bits

from degan_search.system.weights_file import tensors_bytes
from degan_search.trial.trial import Trial
from degan_search.trial.trial import run as run_trial


def everything(shared, with_true=True):
    """The bytes of all that trials share."""
    teachers_ = {
        f"{name}.{key}": value
        for name in ("teacher", "fast_teacher")
        for key, value in getattr(shared, name).state_dict().items()
    }
    images, logits = shared.bank
    named = {"bank": images, "bank_logits": logits, "proxy": shared.proxy}
    for name in ("proxy_logits", *(["true_logits"] if with_true else [])):
        named |= {f"{name}_{part}": value for part, value in enumerate(getattr(shared, name))}
    return tensors_bytes(teachers_ | named)


def test_trials_share_what_none_of_them_changes_and_give_the_same_bits(tiny, prepare):
    inputs = prepare(tiny({"method": "true"}))
    configs = [
        tiny({"method": "true"}),
        tiny({"method": "proxy"}),
        tiny({"distill.mix_proxy": 0.5, "distill.augment": True, "gan.lambda_s": 1}),
    ]
    first = [bits(run_trial(config, inputs)) for config in configs]
    shared = inputs.on("cpu")
    before = everything(shared)
    assert [bits(run_trial(config, inputs)) for config in configs] == first
    assert everything(shared) == before
    for config, expected in zip(configs, first, strict=True):
        alone = dataclasses.replace(inputs)  # the same arrays, but nothing made of them yet
        assert bits(run_trial(config, alone)) == expected


def test_trials_on_the_same_inputs_hold_one_copy(tiny, prepare):
    inputs = prepare(tiny())
    one, other = Trial(tiny(), inputs).common, Trial(tiny({"seed": 1}), inputs).common
    assert one.teacher is other.teacher
    assert one.fast_teacher is other.fast_teacher
    assert one.bank.images is other.bank.images
    assert one.bank.logits is other.bank.logits
    assert one.shared.proxy is other.shared.proxy
    another = Trial(tiny(), dataclasses.replace(inputs)).common
    assert another.teacher is not one.teacher


def test_what_is_shared_goes_with_the_inputs(tiny, prepare):
    inputs = dataclasses.replace(prepare(tiny()))
    kept = weakref.ref(inputs.on("cpu"))
    assert kept().bank is inputs.on("cpu").bank
    del inputs
    assert kept() is None  # at once: no circle of references waits for the garbage collector


def test_what_is_shared_stays_on_its_machine(tiny, prepare):
    inputs = dataclasses.replace(prepare(tiny()))
    before = len(pickle.dumps(inputs))
    shared = inputs.on("cpu")
    assert len(shared.bank[0]) == len(inputs.bank)
    data = pickle.dumps(inputs)
    assert len(data) == before
    sent = pickle.loads(data)
    assert sent.on("cpu") is not shared
    assert everything(sent.on("cpu"), with_true=False) == everything(shared, with_true=False)
    assert inputs.on("cpu") is shared
