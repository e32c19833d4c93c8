"""What is wrong is refused before anything trains: settings, numbers of images, a teacher that does not fit."""

import numpy as np
import pytest

from degan_search.settings.methods import normalised
from degan_search.system.errors import UserError
from degan_search.trial import checks
from degan_search.trial.checks import HELD_OUT_OBJECTIVES
from degan_search.trial.images import load_proxy
from degan_search.trial.trial import run as run_trial

NEW = {"task": "incremental", "teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]"}


@pytest.mark.parametrize("method", ["finetuning", "degan"])
def test_new_classes_without_labels_are_refused(method, tiny, prepare):
    for proxy in ("noise/uniform", "digits/[7]"):
        with pytest.raises(UserError, match="it must be labelled, with at least two"):
            prepare(tiny(NEW, {"method": method, "proxy": proxy, "count": 40}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "degann"}, "method 'degann' is unknown; did you mean degan or dcgan? known: true, "),
        ({"method": "lwf_mc"}, "method 'lwf_mc' is none of task 'distillation'; its methods: true, "),
        ({"method": "zskd", "task": "incremental"}, "is none of task 'incremental'; its methods: finetuning, "),
        (
            NEW | {"teacher": {"dataset": None, "path": "w.pt", "network": "lenet"}},
            "task incremental measures the old classes on true images, and there are none: name them in teacher",
        ),
        ({"task": "incremental", "probe.at": [3]}, "probe.at = [3]: task incremental has no rungs"),
        ({"gan.lambda_bn": 2}, "gan.lambda_bn = 2 needs a teacher with BatchNorm layers"),
        ({"gan.lambda_bn": 2, "method": "classifier_only", "task": "incremental"}, "lenet has none: set it to 0"),
        ({"proxy": "noise"}, "no image set or subset 'noise'"),
        ({"proxy": "glyphs/[?]"}, "glyphs has no class '?'"),
        ({"teacher.dataset": "mnist"}, "'mnist'"),
        ({"teacher.network": "vgg"}, "unknown classifier 'vgg'"),
        ({"student.network": "lenet_hal"}, "unknown classifier 'lenet_hal'"),
        ({"teacher.holdout": 0}, "only task incremental has none"),
        (NEW | {"teacher.holdout": 0, "objective": "oracle_accuracy"}, "'oracle_accuracy' is measured on held-out"),
        (NEW | {"teacher.holdout": 0, "objective": "holdout_agreement"}, "'holdout_agreement' is measured on held-out"),
        (NEW | {"teacher.holdout": 0, "bank.generators": []}, "no images but generated ones; give it generators"),
        *(
            ({"objective": objective, "bank.proxy_images": 0}, "raise bank.proxy_images")
            for objective in HELD_OUT_OBJECTIVES
        ),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_refused_at_once(change, said, tiny):
    with pytest.raises(UserError) as error:
        checks.check(tiny(change))
    assert said in str(error.value)


@pytest.mark.parametrize("change", [{"method": "dcgan"}, {"method": "proxy"}, {"teacher.network": "resnet32"}])
def test_a_weight_that_has_no_effect_is_not_refused(change, tiny):
    checks.check(tiny({"gan.lambda_bn": 2}, change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "zskd"}, "cannot look into a TorchScript teacher"),
        ({"method": "zskd_matched"}, "cannot look into a TorchScript teacher"),
        ({"gan.lambda_bn": 2}, r"gan\.lambda_bn = 2 needs .*teacher\.pt has none"),
        ({"task": "incremental", "method": "finetuning"}, "TorchScript network cannot learn new classes"),
    ],
)
def test_a_teacher_that_cannot_be_looked_into_is_refused_before_training(change, said, script, tiny, true):
    config = normalised(tiny(script[0], change))
    with pytest.raises(UserError, match=said):  # some of it shows before the file is read
        checks.check(config)
        checks.check_inputs(config, load_proxy(config, None), true, script[1])


def test_a_torchscript_teacher_is_fought_with_a_rival(script, tiny, prepare):
    config = tiny(script[0], {"gan.lambda_s": 2})
    assert run_trial(config, prepare(config)).metrics["divergence"] >= 0


@pytest.mark.parametrize("method", ["few_shot", "few_shot_matched"])
def test_more_shots_than_there_are_images_are_refused(method, tiny, prepare, true):
    fewest = int(np.bincount(true.labels[true.train]).min())
    with pytest.raises(UserError, match=f"shots = {fewest + 1} .* a class has {fewest}; lower shots"):
        prepare(tiny({"method": method, "shots": fewest + 1}))
    assert prepare(tiny({"method": method, "shots": fewest})).true_labels is not None


def test_too_few_images_to_hold_some_out_are_refused_before_training(tiny, prepare):
    with pytest.raises(UserError, match="of 1 images leaves"):
        prepare(tiny({"method": "zskd", "zskd.images": 1}))


def test_a_proxy_with_too_few_images_is_refused(tiny, prepare):
    with pytest.raises(UserError, match=r"the proxy has 60 images, fewer than gan\.batch_size = 64"):
        prepare(tiny({"gan.batch_size": 64}))
    with pytest.raises(UserError, match=r"leaves 48 images for distillation.*distill_images\.batch_size"):
        prepare(tiny({"method": "proxy", "distill_images.batch_size": 70}))


def test_new_classes_that_are_known_already_are_refused(tiny, true, teacher):
    config = normalised(tiny({"task": "incremental", "method": "finetuning", "proxy": "digits/[5,6]"}))
    with pytest.raises(UserError, match=r"5, 6 of proxy .* are classes of 'digits' already"):
        checks.check_inputs(config, load_proxy(config, None), true, teacher)
