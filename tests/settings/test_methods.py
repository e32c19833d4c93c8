"""The table of methods: what each one is, of which task, and which settings count for it."""

import pytest

from degan_search.settings.methods import METHODS, TUNED, UNTUNED, method_of, normalised
from degan_search.settings.resolve import stable_hash, trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError

DISTILLING = {name for name, method in METHODS.items() if method.distils}
LEARNING = {name for name, method in METHODS.items() if method.rule}
GENERATING = {"classifier_only", "dcgan", "degan", "extended"}
OF_TASK = [("distillation", name) for name in METHODS if name in DISTILLING] + [
    ("incremental", name) for name in METHODS if name in LEARNING
]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_one(name):
    method = METHODS[name]
    assert method.distils or method.rule
    assert method.generates == (name in GENERATING)
    assert method.from_generators == (name in GENERATING or name == "combined")
    assert method.tuned == (name in TUNED) == (name in {"classifier_only", "degan", "extended"})
    assert method.adversarial or method.generates  # only a GAN can lack a discriminator
    assert not (method.matched and method.generates)  # a generator's students have that budget already
    assert name.endswith("_matched") == method.matched
    if method.matched:
        assert METHODS[name.removesuffix("_matched")].source == method.source
    if method.source == "nothing":
        assert not method.distils  # there would be no image


def test_the_tasks_have_their_methods():
    assert {"true", "few_shot", "zskd", "proxy", *GENERATING} <= DISTILLING
    assert {"finetuning", "fixed_representation", "lwf_mc", "proxy", *GENERATING} == LEARNING
    assert [name for name, method in METHODS.items() if not method.adversarial] == ["classifier_only"]
    assert set(UNTUNED) == {"lambda_e", "lambda_d", "lambda_s", "lambda_bn"}
    assert set(UNTUNED.values()) == {0}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("task", ["distillation", "incremental"])
def test_a_method_of_another_task_is_refused_with_those_of_this_one(task, name):
    config = trial_config({"task": task, "method": name})
    if (task, name) in OF_TASK:
        assert method_of(config) is METHODS[name]
        return
    for refusing in (method_of, normalised):
        with pytest.raises(UserError) as error:
            refusing(config)
        said, _, methods = str(error.value).partition("; its methods: ")
        assert said == f"method {name!r} is none of task {task!r}"
        assert methods.split(", ") == [other for of, other in OF_TASK if of == task]


def test_an_unknown_method_is_refused_with_what_was_probably_meant():
    with pytest.raises(UserError, match=r"method 'lwf' is unknown; did you mean lwf_mc\? known: true, "):
        method_of(trial_config({"method": "lwf"}))
    with pytest.raises(UserError, match=r"'zksd' is unknown; did you mean zskd"):
        normalised(trial_config({"method": "zksd", "task": "incremental"}))


@pytest.mark.parametrize(("task", "name"), OF_TASK)
def test_normalising_again_changes_nothing(task, name):
    busy = {
        "task": task,
        "method": name,
        "shots": 3,
        "distill.mix_proxy": 0.5,
        "zskd.images": 99,
        "mosaic.steps": 9,
        "combine": {"members": ["search-0001@0123456789abcdef"], "balance": True},
        "incremental.lr": 0.5,
        **{f"gan.{weight}": 2.0 for weight in UNTUNED},
    }
    once = normalised(trial_config(busy))
    assert normalised(once) == once
    assert trial_config(once.model_dump(mode="json")) == once
    assert (once.task, once.method) == (task, name)


EVERY_LEARNING = {("incremental", name) for name in LEARNING}
SHOTS = {("distillation", "few_shot"), ("distillation", "few_shot_matched")}
ZSKD = {("distillation", "zskd"), ("distillation", "zskd_matched")}
MOSAIC = {("distillation", "mosaic")}
TUNING = {(task, name) for task, name in OF_TASK if name in ("classifier_only", "degan", "extended")}
COMBINED = {("distillation", "combined")}
COUNTS_FOR = {
    "shots": (3, SHOTS),
    "zskd.images": (99, ZSKD),
    "zskd.temperature": (3.0, ZSKD),
    "mosaic.balance": (3.0, MOSAIC),
    "mosaic.student_steps": (2, MOSAIC),
    "incremental.lr": (0.5, EVERY_LEARNING),
    "incremental.scaling": ("none", EVERY_LEARNING),
    "distill.mix_proxy": (0.5, TUNING | COMBINED),
    "combine.balance": (True, COMBINED),
    **{f"gan.{weight}": (2.0, TUNING) for weight in UNTUNED},
    "student.width": (5, {("distillation", name) for name in DISTILLING}),
    "student.network": ("lenet", {("distillation", name) for name in DISTILLING}),
    "seed": (4, set(OF_TASK)),
    "proxy": ("digits", set(OF_TASK)),
}


@pytest.mark.parametrize("setting", COUNTS_FOR)
def test_a_setting_changes_the_hash_only_where_it_counts(setting):
    value, users = COUNTS_FOR[setting]
    for task, name in OF_TASK:
        plain, changed = (
            stable_hash(normalised(trial_config({"task": task, "method": name}, change)))
            for change in ({}, {setting: value})
        )
        assert (plain != changed) == ((task, name) in users), (task, name)


@pytest.mark.parametrize("name", sorted(LEARNING))
def test_a_student_of_new_classes_is_the_teachers_network(name):
    config = trial_config(
        {"task": "incremental", "method": name, "teacher": {"network": "resnet32", "width": 4}, "student.width": 9}
    )
    student = normalised(config).student
    assert (student.network, student.width) == ("resnet32", 4)
    assert normalised(trial_config({"student.width": 9})).student.width == 9


def test_the_default_trial_is_normal_already():
    assert normalised(TrialConfig()) == TrialConfig()
