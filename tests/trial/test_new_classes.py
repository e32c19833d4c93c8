"""A whole trial of the task `incremental`: every method, the same bits again, its bank and its recalled images."""

import pytest
import torch
from same_bits import bits

from degan_search.settings.methods import METHODS
from degan_search.stages import teacher as teachers
from degan_search.stages.image_sources import GeneratorSource
from degan_search.stages.true_images import true_images
from degan_search.system.weights_file import read_tensors
from degan_search.training.measures import predict
from degan_search.trial import student_stage
from degan_search.trial.trial import Trial
from degan_search.trial.trial import run as run_trial
from tests.trial.tiny_trials import GAN_STEPS

LEARNING = [name for name, method in METHODS.items() if method.rule]
NEW = {"task": "incremental", "teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]"}


@pytest.fixture(scope="module")
def old_true(tiny):
    return true_images(tiny(NEW).teacher, None)


@pytest.fixture(scope="module")
def old_teacher(tiny, old_true, store):
    return teachers.obtain(tiny(NEW).teacher, old_true, store)


@pytest.fixture(scope="module")
def ready(tiny, prepare):
    """The configuration and the inputs of a trial that learns new digits."""

    def made(changes=None, **more):
        config = tiny(NEW, changes or {}, more)
        return config, prepare(config)

    return made


@pytest.fixture(scope="module")
def learn(ready):
    return lambda changes=None, report=None, **more: run_trial(*ready(changes, **more), report)


@pytest.mark.parametrize("method", LEARNING)
def test_every_method_learns_new_classes(method, learn, old_teacher, old_true):
    events = []
    outcome = learn(method=method, report=events.append)
    metrics, generates = outcome.metrics, METHODS[method].generates
    images = torch.from_numpy(old_true.images[:6])
    assert predict(outcome.student, images).shape == (6, 10)
    assert predict(outcome.student, images).isfinite().all()
    assert not any(module.training for module in outcome.student.modules())
    assert 0 <= metrics["score"] <= 1
    assert metrics["score"] == metrics["balanced_soft_agreement"]
    assert metrics["distill_steps"] == 8
    assert metrics["gan_steps"] == (GAN_STEPS if generates else 0)
    assert (outcome.generator is not None) == (outcome.samples is not None) == generates
    assert outcome.early is None  # generators are combined for a smaller student alone
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == [*(["gan"] if generates else []), "incremental", "done"]
    assert [event.stage for event in events if "score" in event.metrics] == ["done"]
    # A copy of the teacher, whose weights stay.
    fresh = read_tensors(old_teacher.data, "teacher")
    state = outcome.student.state_dict()
    assert {name for name in fresh if state[name].shape != fresh[name].shape} == {"11.weight", "11.bias"}
    still = all(torch.equal(state[name][: len(value)], value) for name, value in fresh.items())
    assert still == (METHODS[method].rule == "new_outputs")


@pytest.mark.parametrize("method", LEARNING)
def test_learning_gives_the_same_bits_again(method, learn):
    first = bits(learn(method=method))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert bits(learn(method=method)) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert bits(learn(method=method, seed=1))[1] != first[1]


def test_methods_of_learning_differ(learn):
    students = {bits(learn(method=method, **{"gan.lambda_e": 1}))[1] for method in LEARNING}
    assert len(students) == len(LEARNING) - 1  # `extended` with the same settings is `degan`


@pytest.mark.parametrize(
    "change",
    [
        {"incremental.lr": 0.02},
        {"incremental.augment": False},
        {"incremental.temperature": 5},
        {"incremental.distill_weight": 1},
        {"incremental.scaling": "none"},
        {"incremental.scaling": "aligned"},
        {"incremental.scale_weight": 9},
        {"incremental.profile": "sgd_augmented"},
        {"gan.lambda_s": 3},
        {"distill.mix_proxy": 0.5},
    ],
)
def test_each_setting_of_learning_changes_the_student(change, learn):
    assert bits(learn(change))[1] != bits(learn())[1]


def test_a_student_of_new_classes_is_the_teachers_network_whatever_is_asked(learn):
    assert bits(learn({"student.network": "lenet", "student.width": 9})) == bits(learn())


def test_the_bank_tells_new_classes_and_what_the_teacher_says_of_the_rest(ready):
    config, inputs = ready(method="finetuning")
    trial = Trial(config, inputs)
    first = inputs.bank_proxy_images
    assert first == 6 == len(inputs.proxy.held_out) // 2  # the others are the oracle's
    expected = inputs.proxy.labels[inputs.proxy.held_out[:first]]
    assert (inputs.bank[:first] == inputs.proxy.images[inputs.proxy.held_out[:first]]).all()
    outputs = trial.common.bank.logits.softmax(1)
    assert outputs.shape == (len(inputs.bank), 10)
    assert outputs[:first].argmax(1).tolist() == (5 + expected).tolist()
    assert outputs[:first].amax(1).eq(1).all()
    old = predict(inputs.teacher.model(), torch.from_numpy(inputs.bank[first:]))
    torch.testing.assert_close(outputs[first:, :5], old.softmax(1))
    assert outputs[first:, 5:].eq(0).all()


def test_a_bank_without_proxy_images_judges_old_classes_alone(ready):
    config, inputs = ready(method="finetuning", **{"bank.proxy_images": 0})
    assert Trial(config, inputs).common.bank.logits.argmax(1).max() < 5
    assert 0 <= run_trial(config, inputs).metrics["score"] <= 1


def test_without_held_out_images_everything_is_trained_on(ready, old_true, tmp_path):
    config, inputs = ready(method="proxy", **{"teacher.holdout": 0, "bank.proxy_images": 2000, "teacher.fit.steps": 20})
    true = true_images(config.teacher, None)
    assert sorted(true.train) == list(range(len(old_true.images)))
    assert sorted(inputs.proxy.train) == list(range(len(inputs.proxy.images))) and len(inputs.proxy.held_out) == 0
    assert (inputs.teacher.holdout_accuracy, inputs.bank_proxy_images, len(inputs.bank)) == (None, 0, 16)
    # The last weights of the teacher stay, not those of the best epoch: there is nothing that could say which that is.
    training = teachers.TeacherTraining(config.teacher, true)
    while not training.done:
        training.step()
    last = read_tensors(inputs.teacher.data, "teacher")
    assert all(torch.equal(value, last[name]) for name, value in training.network.state_dict().items())
    assert training.fitting.best_score == training.fitting.steps == 20
    metrics = run_trial(config, inputs).metrics
    assert 0 <= metrics["score"] <= 1 and metrics["distill_steps"] == 8


@pytest.mark.parametrize("generated", [8, 3])
def test_recalled_images_are_the_generators_and_its_batch_the_new_ones(generated, ready, monkeypatch):
    config, inputs = ready({"incremental.batch_size": generated, "distill.pool_refresh": 1, "precision": "float32"})
    batches, plain = [], student_stage.RecallFromGenerator.__call__

    def heard(recall, batch):
        made, logits = plain(recall, batch)
        batches.append((made, logits, recall.teacher(made)))
        return made, logits

    monkeypatch.setattr(student_stage.RecallFromGenerator, "__call__", heard)
    run_trial(config, inputs)
    assert len(batches) == 8
    for made, logits, expected in batches:
        assert len(made) == generated
        assert logits.shape == (generated, 5)
        torch.testing.assert_close(logits, expected)
    seen = [image.numpy().tobytes() for made, *_ in batches for image in made]
    assert len(set(seen)) == len(seen)


def test_new_images_take_the_place_of_generated_ones_which_are_not_made(ready, monkeypatch):
    changes = {"incremental.batch_size": 8, "distill.mix_proxy": 0.25, "distill.pool": 12, "distill.pool_refresh": 1}
    config, inputs = ready({**changes, "precision": "float32"})
    made, batches = [], []
    plain, make = student_stage.RecallFromGenerator.__call__, GeneratorSource.make

    def counted(source, count, *rest):
        made.append(count)
        return make(source, count, *rest)

    def heard(recall, new):
        with monkeypatch.context() as patched:
            patched.setattr(GeneratorSource, "make", counted)
            images, logits = plain(recall, new)
        batches.append((new, images, logits, recall.teacher(images)))
        return images, logits

    monkeypatch.setattr(student_stage.RecallFromGenerator, "__call__", heard)
    run_trial(config, inputs)
    assert len(batches) == 8
    for new, images, logits, expected in batches:
        assert torch.equal(images[:2], new[:2])
        assert len(images) == 8
        torch.testing.assert_close(logits, expected)
    assert made == [12] * 4  # each two batches of 6 generated images
