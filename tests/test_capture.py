"""Steps as they run on a GPU, on a CPU: networks compiled by a stand-in, graphs recorded by one that runs the step."""

from contextlib import contextmanager, nullcontext
from functools import cache, partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from degan_search import capture, degan, fused_stages, runtime
from degan_search.config import DistillConfig, GanConfig
from degan_search.distill import distill
from degan_search.networks.dcgan import build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.layers import Dropout
from degan_search.networks.table import build_classifier
from degan_search.sources import GeneratorSource

LATENT, BATCH, CLASSES, MEMBERS = 4, 4, 5, (0, 1)


def network(seed, build, *arguments):
    with runtime.seeded(seed, "test"):
        return build(*arguments)


def make_gan(seed=0):
    config = GanConfig(lambda_e=1.0, lambda_d=5.0, width=2, latent=LATENT, batch_size=BATCH, batch_of="used", steps=7)
    return degan.build(config, 3, freeze(network(0, build_classifier, "lenet", CLASSES, 2, 3)), seed, "cpu")


def proxy():
    return torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def train_gan(accelerate):
    gan = make_gan()
    progress = list(degan.train(gan, gan.config, proxy(), 10, 0, accelerate=accelerate))
    return repr(progress), gan.generator.state_dict() | gan.discriminator.state_dict()


def train_fused_gans(accelerate):
    gan, roll = fused_stages.FusedGan({member: make_gan(member) for member in MEMBERS}), fused_stages.Roll({0, 1})
    seeds, reports = dict.fromkeys(MEMBERS, 0), []
    for report in fused_stages.train(gan, proxy(), 10, seeds, roll, (), accelerate):
        reports.append(report)
        if len(reports) == 3:
            roll.live.discard(0)
    return repr(reports), gan.generator.state_dict() | gan.discriminator.state_dict()


def distilling():
    settings = {"steps": 8, "steps_per_epoch": 2, "score_images": 8, "pool": 10, "pool_refresh": 0.5}
    return DistillConfig(**settings, batch_size=BATCH, lr=0.01)


def student(member=0):
    return network(member, build_classifier, "alexnet_half", CLASSES, 4, 3)


def distil_alone(accelerate):
    generator, teacher = network(0, build_generator, 3, 2, LATENT), make_gan().teacher
    source, learner = GeneratorSource(generator, LATENT, teacher, distilling()), student()
    progress = list(distill(learner, source, distilling(), 0, "cpu", accelerate=accelerate))
    assert all(layer.noise is None for layer in learner.modules() if isinstance(layer, Dropout))
    return repr(progress), learner.state_dict()


def distil_fused(accelerate):
    generators = {member: network(member, build_generator, 3, 2, LATENT) for member in MEMBERS}
    source = fused_stages.FusedSource(generators, LATENT, make_gan().teacher, distilling())
    students, roll = {member: student(member) for member in MEMBERS}, fused_stages.Roll(set(MEMBERS))
    stage = fused_stages.Distillation(students, source, distilling(), {0: 3, 1: 4}, roll, "cpu", accelerate=accelerate)
    reports = []
    for report in stage:
        reports.append(report)
        if len(reports) == 2:
            roll.live.discard(0)
    return repr(reports), stage.finished[1].state_dict()


STAGES = [train_gan, train_fused_gans, distil_alone, distil_fused]


@cache
def plain(stage):
    return stage("none")


class Graph:
    """Stands in for a CUDA graph: what it replays is the recorded step, on the recorded inputs."""

    def replay(self):
        self.recorded.output.copy_(self.recorded.step(*self.recorded.inputs))


@pytest.fixture
def recordings(monkeypatch):
    """Let steps on a CPU be recorded; the number of steps replayed by each recording."""
    made = []

    class Recorded(capture.Recorded):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.replayed = 0
            made.append(self)

        def __call__(self, *inputs):
            self.replayed += [x.shape for x in inputs] == [x.shape for x in self.inputs or inputs]
            return super().__call__(*inputs)

        def _record(self, inputs):
            super()._record(inputs)
            self.graph.recorded = self

    @contextmanager
    def record(graph, stream):
        tensors = list(made[-1]._all())
        before = [tensor.detach().clone() for tensor in tensors]
        yield
        with torch.no_grad():  # recording runs nothing
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
            made[-1].output.fill_(torch.nan)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {"Stream": lambda: stream, "current_stream": lambda: stream, "stream": lambda _: nullcontext()}
    for name, fake in (fakes | {"CUDAGraph": Graph, "graph": record}).items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def accelerated(step, parts, accelerate):
        return Recorded(step, parts) if accelerate == "graphs" else step

    for module in ("degan", "fit", "fused_stages"):
        monkeypatch.setattr(f"degan_search.{module}.accelerated", accelerated)
    return made


def assert_same(one, other):
    assert one[0] == other[0]
    assert list(one[1]) == list(other[1])
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@pytest.mark.parametrize("stage", STAGES)
def test_recorded_steps_are_the_plain_ones_bit_for_bit(stage, recordings):
    expected = plain(stage)
    assert not recordings
    assert_same(stage("graphs"), expected)
    assert sum(recorded.replayed for recorded in recordings) >= 5
    assert len(recordings) > 1 or stage is train_gan  # another phase, or other members, are recorded anew


@pytest.mark.parametrize("stage", STAGES)
def test_on_a_cpu_nothing_is_recorded(stage, monkeypatch):
    monkeypatch.delattr(torch.cuda, "graph")
    assert_same(stage("graphs"), plain(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_compiled_networks_are_those_that_are_trained(stage, monkeypatch):
    called = []

    class Compiled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            called.append(type(self.model).__name__)
            return self.model(*inputs)

    expected = plain(stage)
    monkeypatch.setattr(torch, "compile", Compiled)
    assert_same(stage("compile"), expected)
    assert len(called) >= 8


def test_what_a_setting_means_on_a_device():
    assert [capture.chosen(setting, "cpu") for setting in ("none", "compile", "graphs")] == ["none"] * 3
    assert [capture.chosen(setting, "cuda:1") for setting in ("none", "compile", "graphs")] == [
        "none",
        "compile",
        "graphs",
    ]


def test_torchscript_is_not_compiled():
    script = torch.jit.script(nn.Linear(2, 2))
    assert capture.compiled(script, "compile") is script


def test_steps_that_draw_random_numbers_are_not_recorded(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    step = partial(print)
    assert isinstance(capture.accelerated(step, [nn.Linear(2, 2)], "graphs"), capture.Recorded)
    assert capture.accelerated(step, [nn.Sequential(nn.Linear(2, 2), nn.Dropout2d())], "graphs") is step
    gan = make_gan()
    assert isinstance(gan.accelerated("graphs"), capture.Recorded)
    gan.rival = degan.Rival(student(), torch.optim.Adam([torch.zeros(1)]), 20.0)
    assert gan.accelerated("graphs") == gan.step


def test_optimisers_say_that_they_can_be_recorded():
    weight = nn.Parameter(torch.zeros(1))
    adam = torch.optim.Adam([weight], fused=True)
    capture.Recorded(print, [adam])
    assert adam.param_groups[0]["capturable"]
