"""Recorded steps, tested on a CPU: a stand-in for a CUDA graph runs the step again."""

from contextlib import contextmanager, nullcontext
from functools import cache, partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from degan_search.networks.dcgan import build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.layers import Dropout
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig, GanConfig, TeacherConfig
from degan_search.stages.distillation import Distillation
from degan_search.stages.gan import Rival, build
from degan_search.stages.gan_training import GanTraining
from degan_search.stages.image_sources import GeneratorSource
from degan_search.stages.teacher import train
from degan_search.stages.true_images import true_images
from degan_search.system import seeds
from degan_search.training import cuda_graph
from degan_search.training.context import Context
from degan_search.training.loop import progress_of

LATENT, BATCH, CLASSES = 4, 4, 5


def network(seed, build, *arguments):
    with seeds.seeded(seed, "test"):
        return build(*arguments)


def make_gan(seed=0):
    config = GanConfig(lambda_e=1.0, lambda_d=5.0, width=2, latent=LATENT, batch_size=BATCH, batch_of="used", steps=7)
    return build(config, (3, 32, 32), freeze(network(0, build_classifier, "lenet", CLASSES, 2, 3)), Context(seed))


def proxy():
    return torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def train_gan(accelerate):
    gan = make_gan()
    progress = list(progress_of(GanTraining(gan, proxy(), 10, Context(0, accelerate=accelerate))))
    return repr(progress), gan.generator.state_dict() | gan.discriminator.state_dict()


def distilling():
    settings = {"steps": 8, "steps_per_epoch": 2, "score_images": 8, "pool": 10, "pool_refresh": 0.5}
    return DistillConfig(**settings, batch_size=BATCH, lr=0.01)


def student(member=0):
    return network(member, build_classifier, "alexnet_half", CLASSES, 4, 3)


def distil(accelerate):
    generator, teacher = network(0, build_generator, 3, 2, LATENT), make_gan().teacher
    source, learner = GeneratorSource(generator, LATENT, teacher, distilling()), student()
    progress = list(progress_of(Distillation(learner, source, distilling(), Context(0, accelerate=accelerate))))
    assert all(layer.noise is None for layer in learner.modules() if isinstance(layer, Dropout))
    return repr(progress), learner.state_dict()


def train_teacher(accelerate):
    fit = {"batch_size": 8, "steps": 12, "steps_per_epoch": 5}
    config = TeacherConfig(dataset="digits", network="alexnet", width=4, count=44, fit=fit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("degan_search.stages.teacher.acceleration_of", lambda setting, device: accelerate)
        return "", train(config, true_images(config, None)).state_dict()


STAGES = [train_gan, distil, train_teacher]


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

    class Recorded(cuda_graph.Recorded):
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

    for module in ("stages.gan", "training.loop"):
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
    assert len(recordings) > 1 or stage is train_gan  # another phase is recorded anew


@pytest.mark.parametrize("stage", STAGES)
def test_on_a_cpu_nothing_is_recorded(stage, monkeypatch):
    monkeypatch.delattr(torch.cuda, "graph")
    assert_same(stage("graphs"), plain(stage))


def test_what_a_setting_means_on_a_device():
    assert [cuda_graph.acceleration_of(setting, "cpu") for setting in ("none", "graphs")] == ["none"] * 2
    assert [cuda_graph.acceleration_of(setting, "cuda:1") for setting in ("none", "graphs")] == ["none", "graphs"]


def test_steps_that_draw_random_numbers_are_not_recorded(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    step = partial(print)
    assert isinstance(cuda_graph.accelerated(step, [nn.Linear(2, 2)], "graphs"), cuda_graph.Recorded)
    assert cuda_graph.accelerated(step, [nn.Sequential(nn.Linear(2, 2), nn.Dropout2d())], "graphs") is step
    gan = make_gan()
    assert isinstance(gan.accelerated("graphs"), cuda_graph.Recorded)
    gan.rival = Rival(student(), torch.optim.Adam([torch.zeros(1)]), 20.0)
    assert gan.accelerated("graphs") == gan.step


def test_torchscript_is_not_recorded(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    gan = make_gan()
    gan.teacher = torch.jit.script(nn.Flatten())
    assert gan.accelerated("graphs") == gan.step


def test_optimisers_say_that_they_can_be_recorded():
    weight = nn.Parameter(torch.zeros(1))
    adam = torch.optim.Adam([weight], fused=True)
    cuda_graph.Recorded(print, [adam])
    assert adam.param_groups[0]["capturable"]
