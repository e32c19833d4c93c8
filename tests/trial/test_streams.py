"""Every random number of a trial comes from a stream of the trial's own seed, and no two purposes share a stream."""

from collections import Counter
from functools import cache

import pytest

from degan_search.settings.methods import METHODS
from degan_search.system import seeds
from degan_search.system.weights_file import tensors_bytes
from degan_search.trial.inputs import prepare
from degan_search.trial.trial import run as run_trial

SEED, OTHER_SEED = 41, 42
NEW_CLASSES = {"task": "incremental", "teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]"}
CASES = [
    (task, name)
    for name, method in METHODS.items()
    for task in ("distillation", "incremental")
    if (method.distils and name != "combined" if task == "distillation" else method.rule)
]
# Everything that could draw numbers of its own is on. Learning new classes has neither rungs nor another student.
BUSY = {"gan.lambda_s": 3, "distill.mix_proxy": 0.25, "distill.augment": True, "distill_images.augment": True}
RUNGS, LIKE_TEACHER = {"probe.at": [3, 6]}, {"student": {"network": "lenet", "width": 4}}
AGAIN = ("statistics",)
"""The one stream that is begun anew: each rung describes the generator by the same noise."""


@pytest.fixture
def asked(monkeypatch):
    """The (seed, names) of every random stream that is asked for, in order."""
    seen, plain = [], seeds.stream_seed

    def recorded(seed, *names):
        seen.append((seed, names))
        return plain(seed, *names)

    monkeypatch.setattr(seeds, "stream_seed", recorded)
    return seen


@pytest.fixture(scope="module")
def ready(tiny, store):
    """The configuration and the inputs of a tiny trial of either task."""

    def made(task, method, seed):
        if task == "distillation":
            changes = {**BUSY, **RUNGS} if METHODS[method].generates else BUSY
            config = tiny(changes, {"method": method, "seed": seed})
        else:
            config = tiny(NEW_CLASSES, BUSY, LIKE_TEACHER, {"method": method, "seed": seed})
        return config, prepare(config, None, store)

    return made


def needed(task, method):
    """The streams of a trial: what is drawn from them decides its networks."""
    stage = "distill" if task == "distillation" else "incremental"
    streams = {(stage, "images"), (stage, "dropout")}
    streams |= {("distill", "score"), ("student", "weights")} if stage == "distill" else {("incremental", "weights")}
    if stage == "incremental":
        streams.add(("incremental", "augment"))
    if method.source == "zskd":
        streams |= {("zskd", "targets"), ("zskd", "noise")}
    if method.source == "mosaic":
        own = ("generator", "discriminator", "images", "proxy images", "noise", "augment", "dropout")
        streams = {("mosaic", name) for name in own} | {("student", "weights"), ("statistics",), ("samples",)}
    if method.source == "few_true":
        streams.add(("few_shot",))
    if method.generates:
        streams |= {("gan", name) for name in ("generator", "images", "noise")} | {("statistics",), ("samples",)}
        streams |= {("gan", "discriminator")} if method.adversarial else set()
        streams |= {("rival", "weights"), ("gan", "dropout")} if method.tuned else set()
        streams |= {("incremental", "recall")} if stage == "incremental" else set()
        for rung in RUNGS["probe.at"] if stage == "distill" else ():
            streams |= {(f"probe at {rung}", name) for name in ("weights", "images", "score", "dropout")}
    return streams


@pytest.mark.parametrize(("task", "method"), CASES)
def test_each_stream_of_a_trial_has_its_seed_and_one_purpose(task, method, ready, asked):
    students = []
    for seed in (SEED, OTHER_SEED):
        given = ready(task, method, seed)
        asked.clear()
        students.append(student_of(given))
        own = [(used, names) for used, names in asked if names[0] != "teacher"]  # the teacher is given, and has its own
        assert {used for used, _ in own} == {seed}
        times = Counter(names for _, names in own)
        assert needed(task, METHODS[method]) <= set(times)
        assert {names for names, count in times.items() if count > 1} <= {AGAIN}
    assert students[0] != students[1]


@pytest.fixture(scope="module")
def plain_student(ready):
    """The student of a trial whose streams are as they should be."""
    return cache(lambda task, method: student_of(ready(task, method, SEED)))


def student_of(given):
    return tensors_bytes(run_trial(*given).student.state_dict())


DECIDING = {
    ("distillation", "degan"): [
        *(("gan", name) for name in ("generator", "discriminator", "images", "noise")),
        ("rival", "weights"),
        ("student", "weights"),
        ("distill", "images"),
    ],
    ("distillation", "proxy"): [("student", "weights"), ("distill", "images")],
    ("distillation", "few_shot"): [("few_shot",)],
    ("distillation", "zskd"): [("zskd", "targets"), ("zskd", "noise")],
    ("incremental", "degan"): [("incremental", name) for name in ("weights", "images", "augment", "recall")],
    ("incremental", "fixed_representation"): [("incremental", name) for name in ("weights", "images", "augment")],
}


@pytest.mark.parametrize(
    ("task", "method", "names"), [(*case, names) for case, all_ in DECIDING.items() for names in all_]
)
def test_what_a_stream_gives_is_used(task, method, names, ready, plain_student, monkeypatch):
    """With one stream that begins elsewhere the student is another: it is not asked for in vain."""
    given, expected, plain = ready(task, method, SEED), plain_student(task, method), seeds.stream_seed
    monkeypatch.setattr(seeds, "stream_seed", lambda seed, *own: plain(seed + (own == names), *own))
    assert student_of(given) != expected


def test_each_generator_of_the_bank_has_streams_of_its_own(tiny, tmp_path, asked):
    # Of equal weights, so that the seeds alone tell the generators apart.
    config = tiny({"bank.generators": [[0, 5]] * 3, "seed": SEED})
    inputs = prepare(config, None, tmp_path)
    made = [inputs.bank[start : start + 8].tobytes() for start in range(inputs.bank_proxy_images, len(inputs.bank), 8)]
    assert len(made) == len(set(made)) == 3
    whole = [(config.bank.seed, ("bank", index)) for index in range(3)]
    assert [one for one in asked if one[0] == config.bank.seed] == whole
    own = [seeds.stream_seed(*one[:1], *one[1]) for one in whole]
    parts = {("gan", name) for name in ("generator", "discriminator", "images", "noise")} | {("bank", "noise")}
    for seed in own:
        times = Counter(names for used, names in asked if used == seed)
        assert parts <= set(times)
        assert set(times.values()) == {1}
    assert not {SEED, inputs.teacher.config.seed} & {used for used, names in asked if names[0] in ("bank", "gan")}
