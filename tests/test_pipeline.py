"""A whole trial: every method, the same bits again, its events, the bank, what it saves, and no Ray."""

import dataclasses
import json
import math
import random
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from degan_search import bank as banks
from degan_search import degan, foreground, pipeline, runtime
from degan_search.checkpoint import read_tensors, tensors_bytes
from degan_search.config import TrialConfig, stable_hash
from degan_search.data import proxies
from degan_search.errors import UserError
from degan_search.fit import DivergedError
from degan_search.metrics import accuracy, agreement, class_certainty, infomax, predict, soft_neighbourhood_density
from degan_search.networks.table import build_classifier

GAN_STEPS, DISTILL_STEPS = 12, 8
OBJECTIVES = get_args(TrialConfig.model_fields["objective"].annotation)
DROPOUT = {"student.network": "alexnet_half"}  # a student whose training needs torch's global generator


def bits(outcome):
    """All that a trial ends with, but for the time that it took."""
    metrics = {name: value for name, value in outcome.metrics.items() if not name.endswith("seconds")}
    tensors = {f"student.{name}": value for name, value in outcome.student.state_dict().items()}
    if outcome.generator is not None:
        tensors |= {f"generator.{name}": value for name, value in outcome.generator.state_dict().items()}
        tensors["samples"] = outcome.samples
    return repr(sorted(metrics.items())), tensors_bytes(tensors)


@pytest.fixture(scope="module")
def run(tiny, prepare):
    """Run a tiny trial with some changes."""

    def run_(changes=None, report=None, **more):
        config = tiny(changes or {}, more)
        return pipeline.run(config, prepare(config), report)

    return run_


# Contract over the methods


@pytest.mark.parametrize("method", pipeline.METHODS)
def test_every_method_runs_and_says_what_it_did(method, run, true):
    outcome = run(method=method)
    metrics, from_generator = outcome.metrics, pipeline.METHODS[method].images is None
    assert metrics["score"] == metrics["balanced_soft_agreement"]
    assert 0 <= metrics["score"] <= 1
    assert metrics["gan_steps"] == (GAN_STEPS if from_generator else 0)
    assert metrics["distill_steps"] == DISTILL_STEPS
    assert metrics["seconds"] >= metrics["distill_seconds"] > 0
    assert ("gan_seconds" in metrics) == ("d_loss" in metrics) == ("coverage" in metrics) == from_generator
    assert predict(outcome.student, torch.from_numpy(true.images[:3])).shape == (3, 10)
    assert not any(module.training for module in outcome.student.modules())
    if from_generator:
        assert outcome.samples.shape == (64, 1, 32, 32)
        assert outcome.samples.dtype == torch.uint8
        assert not outcome.generator.training
    else:
        assert outcome.generator is outcome.samples is None


@pytest.mark.parametrize("method", pipeline.METHODS)
def test_weights_count_only_where_the_method_uses_them(method, tiny):
    configs = [
        pipeline.normalised(tiny({"method": method, "gan.lambda_e": lambda_e, "gan.lambda_d": lambda_d}))
        for lambda_e, lambda_d in ((0, 0), (0, 5), (1, 5))
    ]
    hashes = {stable_hash(config) for config in configs}
    if pipeline.METHODS[method].tuned:
        assert len(hashes) == 3
    else:
        assert len(hashes) == 1
        assert all((config.gan.lambda_e, config.gan.lambda_d) == (0, 0) for config in configs)


@pytest.mark.parametrize("method", pipeline.METHODS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_oracle_gets_labels_and_only_true_methods_true_images(method, objective, tiny, prepare, true):
    config = tiny({"method": method, "objective": objective})
    pipeline.check(config)
    inputs = prepare(config)
    assert (inputs.oracle is not None) == (objective == "oracle_accuracy")
    uses_true = method in ("true", "true_matched")
    assert (inputs.true_train is not None) == (inputs.true_held_out is not None) == uses_true
    if uses_true:
        assert np.array_equal(inputs.true_train, true.images[true.train])
        assert np.array_equal(inputs.true_held_out, true.images[true.held_out])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_score_is_the_objective(objective, run, true):
    outcome = run(objective=objective, method="proxy")
    if objective == "oracle_accuracy":
        images, labels = (torch.from_numpy(part[true.held_out]) for part in (true.images, true.labels))
        expected = accuracy(predict(outcome.student, images), labels)
    else:
        expected = outcome.metrics[objective]
    assert outcome.metrics["score"] == expected


def test_methods_differ_in_what_the_student_sees(run):
    students = {bits(run(method=method))[1] for method in ("degan", "dcgan", "proxy", "proxy_matched", "true")}
    assert len(students) == 5


def test_dcgan_is_degan_with_both_weights_0(run):
    plain = run({"gan.lambda_e": 0, "gan.lambda_d": 0})
    assert bits(run({"gan.lambda_e": 3, "gan.lambda_d": 4, "method": "dcgan"})) == bits(plain)
    assert math.isnan(plain.metrics["diversity"])


# The same bits again


def test_the_same_trial_gives_the_same_bits_whatever_came_before(run):
    first = bits(run(DROPOUT))
    torch.manual_seed(123)
    torch.rand(7), np.random.rand(3), random.random()  # noqa: NPY002
    before = torch.get_rng_state()
    run({"method": "dcgan", "seed": 5} | DROPOUT)
    assert bits(run(DROPOUT)) == first
    assert torch.equal(torch.get_rng_state(), before)  # and the global generator is left alone


def test_reports_and_what_they_do_change_nothing(run):
    first, done = bits(run(DROPOUT)), []

    def report(event):
        if event.step in (4, 5):
            done.append(run(seed=9, probe={"at": (2,)}))

    assert bits(run(DROPOUT, report)) == first
    assert len(done) == 3  # two beside the GAN, one beside the student


def test_rungs_change_nothing(run):
    without, events = run(DROPOUT), []
    probed = run(DROPOUT, report=events.append, probe={"at": (3, 6)})
    assert any(event.stage == "probe at 3" for event in events)
    assert bits(probed) == bits(without)


def test_a_stopped_trial_leaves_the_next_one_as_it_is(tiny, prepare, run):
    config = tiny(DROPOUT)
    first = bits(run(DROPOUT))
    before = torch.get_rng_state()
    for stage in ("gan", "distill"):
        events = iter(pipeline.Trial(config, prepare(config)))
        while next(events).stage != stage:
            pass
        del events
        assert torch.equal(torch.get_rng_state(), before)
        assert bits(run(DROPOUT)) == first


@pytest.mark.parametrize("change", [{"seed": 1}, {"gan.lambda_d": 4}, {"gan.steps": 11}, {"distill.temperature": 5}])
def test_other_settings_give_another_student(change, run):
    assert bits(run(change))[1] != bits(run())[1]


# Events


def test_scores_come_at_each_rung_and_at_the_end(run):
    events = []
    outcome = run(report=events.append, probe={"at": (3, 6, GAN_STEPS)})
    scored = [(event.stage, event.step, event.budget) for event in events if "score" in event.metrics]
    assert scored == [("gan", 3, 3), ("gan", 6, 6), ("gan", 12, 12), ("done", 1, 12)]
    assert all(0 <= event.metrics["score"] <= 1 for event in events if "score" in event.metrics)
    assert events[-1].metrics == outcome.metrics
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["gan", "probe at 3", "probe at 6", "probe at 12", "distill", "done"]
    assert [event.step for event in events if event.stage == "gan"] == list(range(1, GAN_STEPS + 1))
    assert [event.seconds for event in events] == sorted(event.seconds for event in events)
    assert [event.budget for event in events] == sorted(event.budget for event in events)
    probes = [event.step for event in events if event.stage == "probe at 3"]
    assert probes[-1] == 4


def test_without_rungs_the_only_score_is_the_last(run):
    for method in pipeline.METHODS:
        events = []
        run(report=events.append, method=method)
        assert [event.stage for event in events if "score" in event.metrics] == ["done"]


# Failures


def test_a_collapsed_generator_ends_the_trial(run, monkeypatch):
    build = degan.build

    def collapsed(*arguments):
        gan = build(*arguments)
        nn.init.zeros_(gan.generator[-2].weight)
        return gan

    run()  # the bank is there already
    monkeypatch.setattr(degan, "build", collapsed)
    with pytest.raises(DivergedError, match="gan: the generator makes one image only"):
        run()


@pytest.mark.parametrize(("method", "stage"), [("degan", "gan"), ("dcgan", "distill"), ("proxy", "distill")])
def test_a_loss_that_is_not_finite_ends_the_trial(method, stage, tiny, prepare):
    config = tiny({"method": method})
    inputs = prepare(config)
    state = read_tensors(inputs.teacher.data, "teacher")
    state["11.bias"][0] = math.nan
    broken = dataclasses.replace(inputs, teacher=dataclasses.replace(inputs.teacher, data=tensors_bytes(state)))
    with pytest.raises(DivergedError, match=f"{stage}: loss is n"):
        pipeline.run(config, broken)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "degann"}, "method 'degann' is unknown; known: degan, dcgan"),
        ({"proxy": "noise"}, "no image set or subset 'noise'"),
        ({"proxy": "glyphs/[?]"}, "glyphs has no class '?'"),
        ({"teacher.dataset": "mnist"}, "'mnist'"),
        ({"teacher.network": "vgg"}, "'vgg' is unknown"),
        ({"student.network": "lenet_hal"}, "unknown classifier 'lenet_hal'"),
        *(
            ({"objective": objective, "bank.proxy_images": 0}, "raise bank.proxy_images")
            for objective in pipeline.HELD_OUT_OBJECTIVES
        ),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_refused_at_once(change, said, tiny):
    with pytest.raises(UserError) as error:
        pipeline.check(tiny(change))
    assert said in str(error.value)


def test_a_proxy_with_too_few_images_is_refused(tiny, prepare):
    with pytest.raises(UserError, match=r"the proxy has 60 images, fewer than gan\.batch_size = 64"):
        prepare(tiny({"gan.batch_size": 64}))
    with pytest.raises(UserError, match=r"leaves 48 images for distillation.*distill_images\.batch_size"):
        prepare(tiny({"method": "proxy", "distill_images.batch_size": 70}))


@pytest.mark.parametrize("proxy", ["glyphs/[A-C]", "noise/uniform"])
def test_proxies_of_other_kinds_are_turned_to_the_teachers_channels(proxy, tiny, prepare, run):
    config = tiny({"proxy": proxy, "count": 40})
    inputs = prepare(config)
    assert inputs.proxy.images.shape == (40, 1, 32, 32)
    assert inputs.proxy.set_images == 40
    assert sorted([*inputs.proxy.train, *inputs.proxy.held_out]) == list(range(40))
    assert 0 <= pipeline.run(config, inputs).metrics["score"] <= 1


def test_the_batch_is_counted_in_the_whole_set(tiny, prepare):
    assert prepare(tiny({"proxy": "digits/[0-2]", "count": None})).proxy.set_images == 1437


# The bank


@pytest.fixture
def own_proxy(tmp_path):
    """Write a proxy of the user's own; returns its name."""
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)

    def write(change=0):
        images[3, 4, 5] ^= change
        np.savez(tmp_path / "own.npz", images=images)
        return f"npz:{tmp_path / 'own.npz'}"

    return write


@pytest.fixture
def make_bank(tiny, true, teacher, tmp_path):
    """Prepare inputs with a cache of their own; returns them, how many generators were trained, and the files."""

    def make(changes, cache="banks"):
        trained = []

        def backwards(tasks):  # as side by side: in any order
            trained.extend(tasks)
            return [task() for task in tasks[::-1]][::-1]

        inputs = pipeline.prepare(
            tiny(changes),
            pipeline.load_proxy(tiny(changes), None),
            true,
            teacher,
            tmp_path / cache,
            run_all=backwards,
        )
        return (
            inputs,
            len(trained),
            {path: path.stat().st_mtime_ns for path in (tmp_path / cache).glob("*.safetensors")},
        )

    return make


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
    metrics = pipeline.run(tiny(changes), inputs).metrics
    assert metrics["agreement"] == metrics["holdout_agreement"]


def test_a_bank_has_no_more_proxy_images_than_are_held_out(make_bank):
    inputs, *_ = make_bank({"bank.proxy_images": 2000})
    assert inputs.bank_proxy_images == len(inputs.proxy.held_out) == 12
    assert len(inputs.bank) == 12 + 16


def test_a_bank_without_proxy_images(make_bank, tiny):
    changes = {"bank.proxy_images": 0}
    inputs, *_ = make_bank(changes)
    assert inputs.bank.shape == (16, 1, 32, 32)
    metrics = pipeline.run(tiny(changes), inputs).metrics
    assert all(math.isnan(metrics[name]) for name in pipeline.HELD_OUT_OBJECTIVES)
    assert math.isfinite(metrics["score"])


def test_a_collapsed_generator_adds_nothing_to_the_bank(tiny, true, teacher, tmp_path, monkeypatch):
    build = degan.build

    def first_collapsed(config, *rest):
        gan = build(config, *rest)
        if config.lambda_d == 0:
            nn.init.zeros_(gan.generator[-2].weight)
        return gan

    monkeypatch.setattr(degan, "build", first_collapsed)
    inputs = pipeline.prepare(tiny(), pipeline.load_proxy(tiny(), None), true, teacher, tmp_path)
    assert len(inputs.bank) == 8 + 8


def test_the_bank_compares_students_on_the_images_that_each_measure_takes(teacher, make_bank):
    inputs, *_ = make_bank({})
    images = torch.from_numpy(inputs.bank)
    model = teacher.model()
    bank = banks.Bank(images, predict(model, images), inputs.bank_proxy_images)
    assert {value for name, value in bank.compare(model).items() if "agreement" in name} == {1.0}
    with runtime.seeded(3, "student"):
        student = build_classifier("lenet_half", 10, 2)
    logits, measured = predict(student, images), bank.compare(student)
    assert measured["agreement"] == agreement(logits, bank.logits)
    assert measured["holdout_agreement"] == agreement(logits[:8], bank.logits[:8])
    assert measured["infomax"] == infomax(logits[:8])
    assert measured["snd"] == soft_neighbourhood_density(logits[:8])
    assert measured["mcc"] == class_certainty(logits[:8])
    assert measured["agreement"] < 1


# In the foreground


def test_a_trial_is_saved_and_its_folder_not_taken_twice(tiny, tmp_path, monkeypatch):
    asked, load = [], proxies.load
    monkeypatch.setattr(
        proxies,
        "load",
        lambda name, split="train", *rest, **named: asked.append(split) or load(name, split, *rest, **named),
    )
    config, shown = tiny({"gan.lambda_e": 0.5}), []
    out = tmp_path / "out"
    metrics = foreground.run(config, out, tmp_path / "runs", show=lambda *what: shown.append(what))
    assert sorted(path.name for path in out.iterdir()) == [
        "generator.safetensors",
        "result.json",
        "samples.png",
        "student.safetensors",
    ]
    assert set(asked) == {"train"}  # the test split is for the final evaluation alone
    about = json.loads((out / "result.json").read_text())
    assert TrialConfig.model_validate(about["config"]) == config
    assert about["metrics"] == metrics
    assert "torch" in about["about"]["versions"]
    student = build_classifier("lenet_half", 10, 2, 1)
    student.load_state_dict(load_file(out / "student.safetensors"))
    generator = degan.build_generator(1, 2, 4)
    generator.load_state_dict(load_file(out / "generator.safetensors"))
    with Image.open(out / "samples.png") as picture:
        assert picture.format == "PNG"
        picture.load()
        assert picture.size == (2 * (8 * 34 + 2), 2 * (8 * 34 + 2))
    assert {stage for stage, *_ in shown} == {"teacher", "comparison images", "gan", "distill", "done"}

    files = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(UserError, match=r"out is already there"):
        foreground.run(config, out, tmp_path / "runs")
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == files

    (tmp_path / "empty").mkdir()
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert len(cached) == 2  # a teacher and a bank
    shown.clear()
    again = foreground.run(config, tmp_path / "empty", tmp_path / "runs", show=lambda *what: shown.append(what))
    assert {stage for stage, *_ in shown} == {"comparison images", "gan", "distill", "done"}  # the teacher is there
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")} == cached
    assert again["score"] == metrics["score"]
    for name in ("student.safetensors", "generator.safetensors", "samples.png"):
        assert (tmp_path / "empty" / name).read_bytes() == (out / name).read_bytes()


def test_a_student_of_images_has_no_generator_to_save(tiny, tmp_path):
    foreground.run(tiny({"method": "proxy", "bank.generators": []}), tmp_path / "out", tmp_path / "runs")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["result.json", "student.safetensors"]


def test_a_folder_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="already there"):
        foreground.run(tiny(), tmp_path / "out", tmp_path / "runs")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_failed_trial_speaks_to_the_user_and_saves_nothing(tiny, tmp_path):
    config = tiny({"gan.lr": 10, "gan.lambda_e": 1e6, "bank.generators": []})
    with pytest.raises(UserError, match="the trial failed: gan: "):
        foreground.run(config, tmp_path / "out", tmp_path / "runs")
    assert not (tmp_path / "out").exists()


ALONE = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = None
from pathlib import Path
from degan_search import foreground
from degan_search.config import TrialConfig
metrics = foreground.run(TrialConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
print(metrics["score"], metrics["gan_steps"])
"""


def test_a_trial_runs_without_ray_and_optuna_and_gives_the_same(tiny, tmp_path):
    config = tiny()
    command = [sys.executable, "-c", ALONE, config.model_dump_json(), str(tmp_path / "out"), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = foreground.run(config, tmp_path / "here", tmp_path / "here-runs")
    assert done.stdout.split() == [str(here["score"]), str(GAN_STEPS)]
    for name in ("student.safetensors", "generator.safetensors", "samples.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_the_tiny_teacher_and_generator_are_worth_learning_from(teacher, run):
    # So that what the other tests compare is not one class for every image.
    assert teacher.held_out_accuracy > 0.5
    assert run().samples.float().std(0).mean() > 1  # nor one image
