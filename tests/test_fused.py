"""Fused trials against the same trials alone: layers, Adam, both stages in float64, whole trials in float32."""

import copy
import dataclasses
import math
from functools import partial

import pytest
import torch
from torch import nn

from degan_search import degan, fused, fused_stages, pipeline, runtime
from degan_search.config import DistillConfig, GanConfig
from degan_search.distill import distill
from degan_search.errors import UserError
from degan_search.fit import DivergedError
from degan_search.methods import METHODS
from degan_search.networks.dcgan import build_discriminator, build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.layers import Dropout
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.sources import GeneratorSource
from degan_search.stack import Stack, StackedAdam, unstackable

K, CLASSES, LATENT, BATCH = 3, 5, 4, 4
LAMBDAS = ((0.0, 0.0), (1.0, 5.0), (0.0, 10.0))
SEEDS = dict(enumerate((3, 1, 2)))


@pytest.fixture
def exact(monkeypatch):
    """Float64 throughout, in which whatever is the same mathematics agrees to many digits."""
    torch.set_default_dtype(torch.float64)
    for module in (degan, fused_stages):
        monkeypatch.setattr(module, "normalise", lambda images: images.double() / 127.5 - 1)
    yield
    torch.set_default_dtype(torch.float32)


def built(seed, build, *arguments):
    with runtime.seeded(seed, "test"):
        return build(*arguments)


def assert_same_weights(ours, theirs, **tolerance):
    theirs = theirs.state_dict()
    assert list(ours.state_dict()) == list(theirs)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs[name], msg=name, **tolerance)


# Layers and Adam

NETWORKS = {
    "generator": (lambda: build_generator(3, 2, LATENT), (LATENT, 1, 1)),
    "discriminator": (lambda: build_discriminator(3, 2), (3, 32, 32)),
    "folded generator": (lambda: freeze(build_generator(3, 2, LATENT), fold_norms=True), (LATENT, 1, 1)),
    **{
        name: (lambda name=name: build_classifier(name, CLASSES, 4, 3), (3, 32, 32))
        for name in ("lenet", "alexnet", "resnet18")
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stack_computes_what_its_networks_do(name, exact):
    build, shape = NETWORKS[name]
    models = [built(seed, build) for seed in range(K)]
    stack = Stack(models)
    x = torch.randn(K, BATCH, *shape, generator=torch.Generator().manual_seed(0))
    rngs = [torch.Generator().manual_seed(seed) for seed in range(K)]
    for layer, noise in zip(stack.dropouts(), stack.draw_noise(BATCH, rngs), strict=True):
        layer.noise = noise
    y = stack(x)
    if trained := any(weight.requires_grad for weight in stack.parameters()):
        y.square().sum().backward()
    for row, model in enumerate(models):
        torch.manual_seed(row)  # for its dropout
        own = model(x[row])
        torch.testing.assert_close(y[row].reshape(own.shape), own)
        assert_same_weights(stack.model(row), model)  # with the norms' statistics
        if trained:
            own.square().sum().backward()
            gradients = stack.rows([weight.grad for weight in stack.parameters()])[row]
            for ours, weight in zip(gradients, model.parameters(), strict=True):
                torch.testing.assert_close(ours.reshape(weight.shape), weight.grad)
    stack.eval()
    taken = stack.take([2, 0])
    torch.testing.assert_close(taken(x[[2, 0]]), stack(x)[[2, 0]])
    taken.put(1, models[1])
    assert_same_weights(taken.model(1), models[1])


def test_networks_whose_layers_touch_other_channels_are_not_stacked():
    unstacked = {name: unstackable(build_classifier(name, CLASSES)) for name in CLASSIFIERS}
    assert {name: kind for name, kind in unstacked.items() if kind} == {
        "inception_v3": "BasicConv2d",
        "resnet32": "ZeroPadding",
    }


def test_dropout_is_torchs_bit_for_bit_and_its_noise_can_be_given():
    x, layer = torch.randn(BATCH, 6), Dropout(0.3, 6)
    for given in (x, x.bfloat16()):
        torch.manual_seed(1)
        expected = nn.functional.dropout(given, 0.3)
        torch.manual_seed(1)
        assert torch.equal(layer(given), expected)
        layer.noise = layer.draw(BATCH, "cpu", torch.Generator().manual_seed(1))
        assert torch.equal(layer(given), expected)
        layer.noise = None
    assert layer.eval()(x) is x


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_stacked_adam_is_torchs_with_each_networks_own_rate_and_count(decay):
    models = [built(seed, nn.Linear, 3, 2) for seed in range(K)]
    stack, rates = Stack(models), [0.01, 0.1, 0.01]
    ours = StackedAdam(stack, 0.01, (0.5, 0.9), decay)
    options = {"betas": (0.5, 0.9), "weight_decay": decay}
    theirs = [torch.optim.Adam(model.parameters(), lr=0.01, **options) for model in models]
    for step in range(8):
        if step == 3:  # one begins its second phase
            ours.restart(1, rates[1])
            theirs[1] = torch.optim.Adam(models[1].parameters(), lr=rates[1], **options)
        if step == 5:  # one is dropped
            stack = stack.take([1, 2])
            ours.take(stack, [1, 2])
            del models[0], theirs[0]
        x = torch.randn(len(models), BATCH, 3)
        ours.zero_grad()
        stack(x).square().sum().backward()
        ours.step()
        for row, (model, adam) in enumerate(zip(models, theirs, strict=True)):
            adam.zero_grad()
            model(x[row]).square().sum().backward()
            adam.step()
            assert_same_weights(stack.model(row), model)


# The stages, in float64


def teacher(name="alexnet"):
    model = built(0, build_classifier, name, CLASSES, 4, 3)
    for weight in model.parameters():
        weight.data *= 3  # outputs that differ from image to image
    return freeze(model)


def gans(**changes):
    found, judge = {}, teacher()
    for member, (lambda_e, lambda_d) in enumerate(LAMBDAS):
        config = GanConfig(
            lambda_e=lambda_e, lambda_d=lambda_d, width=2, latent=LATENT, batch_size=BATCH, batch_of="used", **changes
        )
        gan = degan.build(config, 3, judge, SEEDS[member], "cpu")
        gan.generator[-2].weight.data *= 10  # images with contrast
        found[member] = gan
    return found


def proxy():
    return torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def numbers(progress):
    return torch.tensor([math.nan if value is None else value for value in dataclasses.astuple(progress)[1:]])


def assert_same_progress(ours, theirs, **tolerance):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(numbers(one), numbers(other), equal_nan=True, **tolerance)


def train_gans(dropped=None, **changes):
    """Train the GANs alone and fused, where one may be dropped after its second report; assert that they agree."""
    alone, rungs = gans(steps=6, **changes), (2, 3)
    together, roll = fused_stages.FusedGan(gans(steps=6, **changes)), fused_stages.Roll(set(SEEDS))
    reports = {member: [] for member in SEEDS}
    for count, report in enumerate(fused_stages.train(together, proxy(), 20, SEEDS, roll, rungs), start=1):
        for member, progress in report.items():
            reports[member].append(progress)
        if count == 2 and dropped is not None:
            roll.live.discard(dropped)
    for member, gan in alone.items():
        expected = list(degan.train(gan, gan.config, proxy(), 20, SEEDS[member], rungs))
        if member == dropped:
            assert_same_progress(reports[member], expected[:2])
        else:
            assert_same_progress(reports[member], expected)
            assert_same_weights(together.generated(member), gan.generator)
            row = together.members.index(member)
            assert_same_weights(together.discriminator.model(row), gan.discriminator)
    return together


@pytest.mark.parametrize("dropped", [None, 1])
def test_gans_train_as_alone_though_one_is_dropped(dropped, exact):
    together = train_gans(dropped)
    assert together.members == [member for member in SEEDS if member != dropped]


def test_gans_without_lambdas_train_as_alone(exact, monkeypatch):
    monkeypatch.setattr(f"{__name__}.LAMBDAS", ((0.0, 0.0),) * K)
    assert not train_gans().classified


def test_a_gan_that_diverges_leaves_the_others_as_they_are(exact):
    sick = gans(steps=6)
    next(sick[1].generator.parameters()).data.fill_(math.nan)
    together, roll = fused_stages.FusedGan(sick), fused_stages.Roll(set(SEEDS))
    reports = list(fused_stages.train(together, proxy(), 20, SEEDS, roll))
    assert all(list(report) == [0, 2] for report in reports)
    assert isinstance(roll.failed[1], DivergedError)
    assert "not finite at step 1" in str(roll.failed[1])
    alone = gans(steps=6)[2]
    expected = list(degan.train(alone, alone.config, proxy(), 20, SEEDS[2]))
    assert_same_progress([report[2] for report in reports], expected)


def contrasting(generator, seed):
    """A generator whose norms know the statistics of its images, of which the teacher sees several classes."""
    norms = [layer for layer in generator if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    generator(torch.randn(64, LATENT, 1, 1, generator=torch.Generator().manual_seed(seed)))
    for norm in norms:
        norm.momentum = 0.1
    return generator


def distil(students="lenet", dropped=None, precision="float32", tolerance=None, **changes):
    """Distil alone and fused, where one may be dropped after its second report; assert that they agree."""
    settings = {"steps": 6, "steps_per_epoch": 2, "score_images": 12, "pool": 8, "pool_refresh": 0.5}
    config = DistillConfig(**settings | {"batch_size": BATCH, "temperature": 2} | changes)
    tolerance, judge = tolerance or {"rtol": 1e-5, "atol": 1e-8}, teacher("lenet")
    generators = {member: contrasting(gan.generator, member) for member, gan in gans().items()}

    def fresh(member):
        return built(SEEDS[member], build_classifier, students, CLASSES, 4, 3)

    source = fused_stages.FusedSource(generators, LATENT, judge, config, precision)
    roll = fused_stages.Roll(set(SEEDS))
    stage = fused_stages.Distillation(
        {member: fresh(member) for member in SEEDS}, source, config, SEEDS, roll, "cpu", "some stage"
    )
    reports = {member: [] for member in SEEDS}
    for count, report in enumerate(stage, start=1):
        for member, progress in report.items():
            reports[member].append(progress)
        if count == 2 and dropped is not None:
            roll.live.discard(dropped)
    for member, generator in generators.items():
        student = fresh(member)
        own = GeneratorSource(generator, LATENT, judge, config, precision)
        expected = list(distill(student, own, config, SEEDS[member], "cpu", "some stage", precision=precision))
        if member == dropped:
            assert_same_progress(reports[member], expected[:2], **tolerance)
            assert member not in stage.finished
        else:
            assert_same_progress(reports[member], expected, **tolerance)
            assert_same_weights(stage.finished[member], student, **tolerance)
            assert not any(module.training for module in stage.finished[member].modules())
    return reports


@pytest.mark.parametrize("dropped", [None, 0])
def test_students_learn_as_alone_though_one_is_dropped(dropped, exact):
    distil(dropped=dropped)


def test_each_student_has_its_own_patience_and_phases(exact):
    reports = distil(steps=None, patience=2, epochs=8, steps_per_epoch=2, lr=0.01)
    assert len({len(report) for report in reports.values()}) > 1


def test_phases_end_within_an_epoch_for_some(exact):
    reports = distil(steps=14, patience=1, steps_per_epoch=3, first_phase=0.8, lr=0.03)
    ends = [[progress.step for progress in report] for report in reports.values()]
    assert len({tuple(steps) for steps in ends}) > 1


def distil_with_dropout(**changes):
    # AlexNet's first biases move nothing but the norm behind them: their gradients are rounding, of which Adam makes
    # whole steps. So the steps are small here; the losses still show every bit of noise.
    distil("alexnet_half", lr=1e-7, tolerance={"rtol": 1e-5, "atol": 1e-5}, **changes)


def test_students_with_dropout_learn_as_alone(exact):
    distil_with_dropout(dropped=1)


@pytest.mark.parametrize(
    ("train", "stream"),
    [
        (train_gans, "images"),
        (train_gans, "noise"),
        (distil, "images"),
        (partial(distil, lr=0.01), "score"),
        (distil_with_dropout, "dropout"),
    ],
)
def test_agreement_is_lost_if_members_share_a_stream(train, stream, exact, monkeypatch):
    plain = runtime.generator

    def mixed_up(seed, *names, **more):
        return plain(SEEDS[2] if names[1] == stream else seed, *names, **more)

    monkeypatch.setattr(fused_stages, "runtime", type("MixedUp", (), vars(runtime) | {"generator": mixed_up}))
    with pytest.raises(AssertionError):
        train()


def test_bf16_is_near_what_it_is_alone():
    distil(precision="bf16", steps=4, tolerance={"rtol": 0.1, "atol": 0.02})


# Whole trials, in float32


@pytest.fixture(scope="module")
def given(tiny, prepare):
    """The configurations and the inputs of a pack of short trials."""

    def made(*changes):
        short = {"gan.lr": 1e-3, "gan.steps": 8, "probe.at": [2, 5], "distill.lr": 3e-3, "precision": "float32"}
        configs = [
            tiny(short, {"gan.lambda_e": lambda_e, "gan.lambda_d": lambda_d, "seed": seed}, *changes)
            for (lambda_e, lambda_d), seed in zip(LAMBDAS, SEEDS.values(), strict=True)
        ]
        return configs, prepare(configs[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "STATISTICS_IMAGES", 32)
        yield made


@pytest.fixture(scope="module")
def alone(given):
    """What the trials report and leave alone."""
    configs, inputs = given()
    trials = [pipeline.Trial(config, inputs) for config in configs]
    return [(list(trial), trial.outcome) for trial in trials]


def comparable(metrics):
    return {name: value for name, value in metrics.items() if not name.endswith("seconds")}


def assert_same_event(ours, theirs):
    assert (ours.stage, ours.step, ours.of, ours.budget) == (theirs.stage, theirs.step, theirs.of, theirs.budget)
    assert set(ours.metrics) == set(theirs.metrics)
    assert comparable(ours.metrics) == pytest.approx(comparable(theirs.metrics), rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("dropped", [{}, {1: ("probe at 5", 4), 0: ("distill", 4)}])
def test_a_pack_is_its_trials(dropped, given, alone):
    pack = fused.Pack(*given())
    events = {member: [] for member in range(K)}
    for report in pack:
        assert report
        for member, event in report.items():
            events[member].append(event)
            if dropped.get(member) == (event.stage, event.step):
                pack.drop(member)
    assert set(pack.outcomes) == set(range(K)) - set(dropped)
    for member, (expected, trials) in enumerate(alone):
        if member in dropped:
            last = events[member][-1]
            assert (last.stage, last.step) == dropped[member]
            expected = expected[: len(events[member])]
        else:
            ours = pack.outcomes[member]
            assert_same_weights(ours.student, trials.student, rtol=1e-4, atol=1e-5)
            assert_same_weights(ours.generator, trials.generator, rtol=1e-4, atol=1e-5)
            assert comparable(ours.metrics) == comparable(events[member][-1].metrics)
            assert set(pipeline.files(ours)) == set(pipeline.files(trials))
            assert (ours.samples.int() - trials.samples.int()).abs().max() <= 1
        for ours, theirs in zip(events[member], expected, strict=True):
            assert_same_event(ours, theirs)


def test_a_pack_of_which_all_are_dropped_ends(given):
    configs, inputs = given()
    pack, seen = fused.Pack(configs, inputs), []
    for report in pack:
        seen.append(report)
        for member in report:
            pack.drop(member)
    assert [set(report) for report in seen] == [set(range(K))]
    assert not pack.outcomes


def test_a_member_that_collapses_is_named_and_the_others_end(given, monkeypatch):
    configs, inputs = given({"probe.at": []})
    plain = degan.check

    def check(progress):
        if progress.step == 3 and math.isnan(progress.entropy):  # the first member's, without lambdas
            raise DivergedError("gan: the generator makes one image only")
        plain(progress)

    monkeypatch.setattr(fused_stages.degan, "check", check)
    pack = fused.Pack(configs, inputs)
    assert {member for report in pack for member, event in report.items() if event.stage == "done"} == {1, 2}
    assert set(pack.failed) == {0}
    assert set(pack.outcomes) == {1, 2}


# Which trials can be fused


def test_trials_have_one_key_if_they_differ_in_lambdas_and_seed_alone(tiny):
    key = fused.fusion_key(tiny())
    assert key is not None
    same = {"gan.lambda_e": 3, "gan.lambda_d": 4, "seed": 5}
    assert fused.fusion_key(tiny(same)) == key
    for change in (
        {"method": "dcgan"},
        {"proxy": "photos"},
        {"count": 50},
        {"gan.lr": 0.01},
        {"gan.width": 3},
        {"gan.steps": 11},
        {"distill.lr": 0.01},
        {"probe.at": [3]},
        {"teacher.seed": 1},
        {"student.width": 3},
        {"objective": "agreement"},
        {"precision": "bf16"},
    ):
        assert fused.fusion_key(tiny(same, change)) not in (None, key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(
            ({"method": name}, "no generator" if not method.generates else "no discriminator")
            for name, method in METHODS.items()
            if method.distils and not (method.generates and method.adversarial)
        ),
        ({"gan.lambda_s": 1}, "lambda_s"),
        ({"gan.lambda_bn": 1}, "lambda_bn"),
        ({"distill.mix_proxy": 0.5}, "mix_proxy"),
        ({"distill.profile": "sgd_augmented"}, "augment"),
        ({"distill.optimiser": "sgd"}, "sgd"),
        ({"student.network": "inception_v3"}, "BasicConv2d"),
        ({"task": "incremental", "proxy": "digits/[5-9]"}, "incremental"),
    ],
)
def test_what_cannot_be_fused_is_said(change, said, tiny, given):
    config = tiny(change)
    assert said in fused.fusable(config)
    assert fused.fusion_key(config) is None
    with pytest.raises(UserError, match=said):
        fused.Pack([tiny(), config], None)


def test_trials_of_two_keys_are_no_pack(tiny):
    with pytest.raises(UserError, match="alone"):
        fused.Pack([tiny(), tiny({"gan.lr": 0.01})], None)
    assert fused.fusable(tiny({"gan.lambda_s": 1, "method": "dcgan"})) is None  # where it counts for nothing


def test_networks_given_to_a_stack_stay_as_they_are():
    model = built(0, build_generator, 1, 2, LATENT)
    before = copy.deepcopy(model.state_dict())
    stack = Stack([model, model])
    stack(torch.randn(2, BATCH, LATENT, 1, 1)).sum().backward()
    for weight in stack.parameters():
        weight.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
