"""A trial's images: the proxy as the teacher takes it, a few of each class, and those of the oracle."""

import numpy as np
import pytest
import torch

from degan_search.stages.true_images import true_images
from degan_search.system.errors import UserError
from degan_search.training.measures import accuracy, predict
from degan_search.trial.images import few_of_each, load_proxy
from degan_search.trial.numbers import check_numbers
from degan_search.trial.trial import run as run_trial

NEW = {"task": "incremental", "teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]"}


def test_few_true_images_are_of_each_class_and_drawn_by_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), (9, 5, 7, 3)))
    draws = [few_of_each(labels, 3, seed) for seed in range(20)]
    for drawn in draws:
        assert len(set(drawn.tolist())) == 12
        assert np.bincount(labels[drawn]).tolist() == [3, 3, 3, 3]
    assert len({tuple(sorted(drawn)) for drawn in draws}) > 15
    assert np.array_equal(draws[4], few_of_each(labels, 3, 4))
    assert set(np.concatenate(draws).tolist()) == set(range(len(labels)))
    with pytest.raises(UserError, match=r"shots = 4 .*a class has 3; lower shots"):
        few_of_each(labels, 4, 0)


def test_the_oracle_of_new_classes_has_images_of_both_kinds(tiny, prepare):
    config = tiny(NEW, {"method": "finetuning", "objective": "oracle_accuracy"})
    inputs, old_true = prepare(config), true_images(config.teacher, None)
    images, labels = inputs.judged_on
    old, new = old_true.held_out, inputs.proxy.held_out[inputs.bank_proxy_images :]
    assert np.array_equal(images, np.concatenate([old_true.images[old], inputs.proxy.images[new]]))
    assert np.array_equal(labels, np.concatenate([old_true.labels[old], 5 + inputs.proxy.labels[new]]))
    outcome = run_trial(config, inputs)
    assert outcome.metrics["score"] == accuracy(
        predict(outcome.student, torch.from_numpy(images)), torch.from_numpy(labels)
    )


@pytest.mark.parametrize("proxy", ["glyphs/[A-C]", "noise/uniform", "digits/[0-4]+photos@20"])
def test_proxies_of_other_kinds_are_turned_to_the_teachers_channels(proxy, tiny, prepare, run):
    config = tiny({"proxy": proxy, "count": 40, "gan.lr": 0.01})
    inputs = prepare(config)
    assert inputs.proxy.images.shape == (40, 1, 32, 32)
    assert inputs.proxy.set_images == 40
    assert sorted([*inputs.proxy.train, *inputs.proxy.held_out]) == list(range(40))
    assert 0 <= run_trial(config, inputs).metrics["score"] <= 1


def test_the_batch_is_counted_in_the_whole_set(tiny, prepare):
    assert prepare(tiny({"proxy": "digits/[0-2]", "count": None})).proxy.set_images == 1437


def test_a_proxy_of_fewer_images_gives_all_where_count_is_the_most(tiny):
    some = {"proxy": "digits/[0]+noise/uniform", "count": 10**6}
    with pytest.raises(UserError, match=r"count must be 1 to that, not 1000000"):
        load_proxy(tiny(some), None)
    whole = load_proxy(tiny(some | {"count": None}), None)
    assert len(load_proxy(tiny(some | {"count_is": "most"}), None).images) == len(whole.images)
    check_numbers(tiny({"proxy": "digits", "count": 1700, "count_is": "most"}), None)
