"""What a GPU must not change: steps as on a CPU, recorded ones as plain, the same bits twice and side by side."""

import pytest
import torch

from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig, GanConfig
from degan_search.stages.distillation import Distillation
from degan_search.stages.gan import build
from degan_search.stages.gan_training import GanTraining
from degan_search.stages.image_sources import GeneratorSource
from degan_search.system import seeds
from degan_search.system.device import set_up_torch
from degan_search.training import cuda_graph
from degan_search.training.context import Context
from degan_search.training.loop import progress_of
from degan_search.training.turns import Turns
from degan_search.trial.trial import Trial, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")

LAMBDAS = ((0.0, 0.0), (1.0, 5.0), (0.0, 10.0))
SEEDS = dict(enumerate((3, 1, 2)))
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
"""Of float32 sums in another order, after a few of Adam's steps."""


@pytest.fixture(autouse=True)
def as_in_a_worker():
    set_up_torch(1)


def make_gan(member=1, device="cuda", precision="float32", **changes):
    lambda_e, lambda_d = LAMBDAS[member]
    sizes = {"width": 8, "latent": 8, "batch_size": 16, "batch_of": "used", "steps": 7} | changes
    config = GanConfig(lambda_e=lambda_e, lambda_d=lambda_d, **sizes)
    with seeds.seeded(0, "teacher"):
        teacher = freeze(build_classifier("alexnet", 5, 8), fold_norms=True).to(device)
    gan = build(config, (3, 32, 32), teacher, Context(SEEDS[member], device, precision))
    gan.generator[-2].weight.data *= 10  # images with contrast
    return gan


def proxy():
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images.cuda()


def losses(progress):
    return torch.tensor([*(progress.losses[name] for name in ("d_loss", "g_loss", "adversarial")), progress.spread])


def train_gan(accelerate="none", member=1, **changes):
    gan = make_gan(member, **changes)
    training = GanTraining(gan, proxy(), 40, Context(SEEDS[member], "cuda", accelerate=accelerate))
    return torch.stack([losses(one) for one in progress_of(training)]), gan


def distilling(**changes):
    settings = {"steps": 12, "steps_per_epoch": 3, "score_images": 64, "pool": 32, "pool_refresh": 0.5}
    return DistillConfig(**settings | {"batch_size": 16, "lr": 1e-3} | changes)


def student(member=0):
    with seeds.seeded(member, "student"):
        return build_classifier("alexnet_half", 5, 8).cuda().to(memory_format=torch.channels_last)


def distil(accelerate="none", precision="float32"):
    gan, learner = make_gan(), student()
    source = GeneratorSource(gan.generator, 8, gan.teacher, distilling(), precision)
    stage = Distillation(learner, source, distilling(), Context(0, "cuda", precision, accelerate))
    return torch.tensor([progress.loss for progress in progress_of(stage)]), learner


def weights(model):
    return torch.cat([weight.detach().flatten().float().cpu() for weight in model.parameters()])


def test_a_step_is_the_same_as_on_a_cpu():
    real, z = torch.rand(16, 3, 32, 32) * 2 - 1, torch.randn(16, 8, 1, 1)
    on_cpu, on_gpu = make_gan(device="cpu").step(real, z), make_gan().step(real.cuda(), z.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, equal_nan=True, **CLOSE)


def test_recorded_steps_give_the_plain_losses():
    torch.testing.assert_close(train_gan("graphs")[0], train_gan()[0], **CLOSE)
    torch.testing.assert_close(distil("graphs")[0], distil()[0], rtol=1e-2, atol=1e-3)


def test_a_recorded_step_is_replayed(monkeypatch):
    replayed = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(cuda_graph.torch.cuda.CUDAGraph, "replay", lambda graph: (replayed.append(1), replay(graph)))
    train_gan("graphs")
    assert len(replayed) > 2


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("accelerate", ["none", "graphs"])
def test_the_same_trial_gives_the_same_bits(precision, accelerate):
    (first, one), (second, other) = (train_gan(accelerate, precision=precision) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(weights(one.generator), weights(other.generator))
    (first, learner), (second, twin) = (distil(accelerate, precision) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(weights(learner), weights(twin))
    assert first.isfinite().all()


@pytest.mark.parametrize("accelerate", ["none", "graphs"])
def test_trials_side_by_side_have_the_bits_of_each_alone(accelerate, tiny, prepare):
    short = {"gan.lr": 1e-3, "gan.steps": 150, "gan.width": 8, "probe.at": [2, 5], "accelerate": accelerate}
    configs = [
        tiny(short, {"gan.lambda_e": lambda_e, "gan.lambda_d": lambda_d, "seed": seed})
        for (lambda_e, lambda_d), seed in zip(LAMBDAS, SEEDS.values(), strict=True)
    ]
    inputs = prepare(configs[0])
    trials = [Trial(config, inputs, "cuda") for config in configs]
    turns, dropped = Turns(dict(enumerate(trials)), "cuda"), []
    while not turns.done:
        reports = turns.step()
        if 1 in reports and reports[1].step > 100 and not dropped:
            dropped.append(reports[1])
            turns.drop(1)
    assert dropped
    for member in (0, 2):
        alone, ours = run(configs[member], inputs, device="cuda"), trials[member].outcome
        assert {n: v for n, v in ours.metrics.items() if "seconds" not in n} == pytest.approx(
            {n: v for n, v in alone.metrics.items() if "seconds" not in n}, rel=0, abs=0, nan_ok=True
        )
        assert torch.equal(weights(ours.student), weights(alone.student))
        assert torch.equal(weights(ours.generator), weights(alone.generator))
        assert torch.equal(ours.samples, alone.samples)


def test_a_trial_that_is_cut_goes_on_with_the_same_bits(tiny, prepare):
    config = tiny({"gan.lr": 1e-3})
    inputs = prepare(config)
    whole = run(config, inputs, device="cuda")
    trial = Trial(config, inputs, "cuda")
    for _ in range(4):
        trial.step()
    rest = Trial(config, inputs, "cuda")
    rest.load_state_dict(trial.state_dict())
    list(progress_of(rest))
    assert torch.equal(weights(rest.outcome.student), weights(whole.student))
