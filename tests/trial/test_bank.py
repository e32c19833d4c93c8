"""The bank: which images, made once and shared, and what is measured on them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from degan_search.networks.table import build_classifier
from degan_search.settings.trial import TrialConfig
from degan_search.stages import gan
from degan_search.system import seeds
from degan_search.training.measures import agreement, class_certainty, infomax, predict, soft_neighbourhood_density
from degan_search.trial import bank as banks
from degan_search.trial.checks import HELD_OUT_OBJECTIVES
from degan_search.trial.trial import run as run_trial


def test_the_bank_is_held_out_proxy_images_then_generated_ones(make_bank):
    inputs, trained, files = make_bank({})
    assert trained == 2
    assert len(files) == 1
    assert inputs.bank_proxy_images == 8
    assert inputs.bank.shape == (8 + 2 * 8, 1, 32, 32)
    assert np.array_equal(inputs.bank[:8], inputs.proxy.images[inputs.proxy.held_out][:8])
    proxy = {image.tobytes() for image in inputs.proxy.images}
    assert not any(image.tobytes() in proxy for image in inputs.bank[8:])
    assert not np.array_equal(inputs.bank[8:16], inputs.bank[16:])


def test_the_bank_is_made_once_and_the_same_anew(make_bank):
    first, trained, files = make_bank({})
    again, trained_again, files_again = make_bank({})
    assert trained > 0
    assert trained_again == 0
    assert files_again == files
    anew, trained_anew, _ = make_bank({}, cache="other")
    assert trained_anew == trained
    assert first.bank.tobytes() == again.bank.tobytes() == anew.bank.tobytes()


def test_the_order_in_which_generators_train_does_not_matter(make_bank, prepare, tiny):
    assert make_bank({})[0].bank.tobytes() == prepare(tiny()).bank.tobytes()


def test_trials_share_a_bank_whatever_their_seed_and_weights(make_bank):
    first, *_ = make_bank({})
    for change in ({"seed": 1}, {"gan.lambda_d": 1}, {"gan.lambda_e": 2, "seed": 3}, {"method": "proxy"}):
        inputs, trained, files = make_bank(change)
        assert trained == 0
        assert len(files) == 1
        assert inputs.bank.tobytes() == first.bank.tobytes()


def test_other_seeds_weights_or_images_make_another_bank(make_bank, own_proxy):
    banks_made = [
        make_bank(change) for change in ({}, {"bank.seed": 1}, {"bank.generators": [[0, 0], [1, 5]]}, {"bank.steps": 3})
    ]
    assert all(trained > 0 for _, trained, _ in banks_made)
    assert len({inputs.bank[8:].tobytes() for inputs, *_ in banks_made}) == 4
    name = own_proxy()
    one, trained, files = make_bank({"proxy": name, "count": None})
    other, trained_too, files_too = make_bank({"proxy": own_proxy(change=1), "count": None})
    assert trained == trained_too > 0
    assert len(files_too) == len(files) + 1
    assert (one.proxy.images != other.proxy.images).any()


def test_the_banks_generators_are_not_a_trials(make_bank, run):
    # Even with the trial's own seed and weights.
    inputs, *_ = make_bank({"bank.seed": 0, "bank.generators": [[0, 5]], "bank.generated_images": 64})
    outcome = run({"seed": 0, "gan.lambda_d": 5})
    assert not {image.tobytes() for image in inputs.bank[8:]} & {image.numpy().tobytes() for image in outcome.samples}
    assert TrialConfig().bank.seed != TrialConfig().seed


def test_a_bank_of_proxy_images_alone(make_bank, tiny):
    changes = {"bank.generators": []}
    inputs, trained, _ = make_bank(changes)
    assert trained == 0
    assert inputs.bank.shape == (8, 1, 32, 32)
    metrics = run_trial(tiny(changes), inputs).metrics
    assert metrics["agreement"] == metrics["holdout_agreement"]


def test_a_bank_has_no_more_proxy_images_than_are_held_out(make_bank):
    inputs, *_ = make_bank({"bank.proxy_images": 2000})
    assert inputs.bank_proxy_images == len(inputs.proxy.held_out) == 12
    assert len(inputs.bank) == 12 + 16


def test_a_bank_without_proxy_images(make_bank, tiny):
    changes = {"bank.proxy_images": 0}
    inputs, *_ = make_bank(changes)
    assert inputs.bank.shape == (16, 1, 32, 32)
    metrics = run_trial(tiny(changes), inputs).metrics
    assert all(math.isnan(metrics[name]) for name in HELD_OUT_OBJECTIVES)
    assert math.isfinite(metrics["score"])


def test_a_collapsed_generator_adds_nothing_to_the_bank(make_bank, monkeypatch):
    build = gan.build

    def first_collapsed(config, *rest, **named):
        networks = build(config, *rest, **named)
        if config.lambda_d == 0:
            nn.init.zeros_(networks.generator[-2].weight)
        return networks

    monkeypatch.setattr(gan, "build", first_collapsed)
    inputs, *_ = make_bank({})
    assert len(inputs.bank) == 8 + 8


def test_the_bank_compares_students_on_the_images_that_each_measure_takes(teacher, make_bank):
    inputs, *_ = make_bank({})
    images = torch.from_numpy(inputs.bank)
    model = teacher.model()
    bank = banks.Bank(images, predict(model, images), inputs.bank_proxy_images)
    assert {value for name, value in bank.compare(model).measures.items() if "agreement" in name} == {1.0}
    with seeds.seeded(3, "student"):
        student = build_classifier("lenet_half", 10, 2)
    logits, (measured, by_class) = predict(student, images), bank.compare(student)
    assert measured["agreement"] == agreement(logits, bank.logits)
    assert measured["holdout_agreement"] == agreement(logits[:8], bank.logits[:8])
    assert measured["infomax"] == infomax(logits[:8])
    assert measured["snd"] == soft_neighbourhood_density(logits[:8])
    assert measured["mcc"] == class_certainty(logits[:8])
    assert measured["agreement"] < 1
    known = [share for share in by_class if share is not None]
    assert len(by_class) == 10 and 0 < len(known) == len(bank.logits.argmax(1).unique())
    assert sum(known) / len(known) == pytest.approx(measured["balanced_agreement"])
