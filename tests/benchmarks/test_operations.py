"""Counted operations against those worked out by hand, and Table 2's against its parts."""

import numpy as np
import pytest
import torch

from benchmarks import operations
from benchmarks.operations import costs, going_on, table2
from degan_search.networks.dcgan import build_discriminator, build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.search.suggest.asha import Rungs
from degan_search.settings.trial import DistillConfig, GanConfig
from degan_search.stages.distillation import Distillation
from degan_search.stages.gan import build
from degan_search.stages.image_sources import GeneratorSource
from degan_search.training.context import Context
from degan_search.training.loop import progress_of

# Multiply-adds of an image's way forward, layer by layer: places x inputs x outputs x kernel.
GENERATOR = [
    1 * 100 * 512 * 16,
    4**2 * 512 * 256 * 16,
    8**2 * 256 * 128 * 16,
    16**2 * 128 * 64 * 16,
    32**2 * 64 * 3,
]
DISCRIMINATOR = [
    16**2 * 3 * 64 * 16,
    8**2 * 64 * 128 * 16,
    4**2 * 128 * 256 * 16,
    2**2 * 256 * 512 * 16,
    512 * 4,
]


def alexnet(*channels: int, hidden: tuple[int, int]) -> list[int]:
    first, second, third, fourth, fifth = channels
    return [
        32**2 * 3 * first * 25,
        15**2 * first * second * 25,
        7**2 * second * third * 9,
        7**2 * third * fourth * 9,
        7**2 * fourth * fifth * 9,
        3**2 * fifth * hidden[0],
        hidden[0] * hidden[1],
        hidden[1] * 10,
    ]


TEACHER = alexnet(48, 128, 192, 192, 128, hidden=(512, 256))
STUDENT = alexnet(24, 64, 96, 96, 64, hidden=(256, 128))


def trained(layers: list[int]) -> int:
    """Forward, and backward to weights and inputs; nobody wants the gradient of the first layer's inputs."""
    return 3 * sum(layers) - layers[0]


@pytest.mark.parametrize(
    ("network", "shape", "layers", "millions"),
    [
        (build_generator(3), (2, 100), GENERATOR, 101.7),
        (build_discriminator(3), (2, 3, 32, 32), DISCRIMINATOR, 26.0),
        (build_classifier("alexnet", 10), (2, 3, 32, 32), TEACHER, 76.9),
        (build_classifier("alexnet_half", 10), (2, 3, 32, 32), STUDENT, 20.1),
    ],
)
def test_a_way_forward_is_what_its_layers_come_to(network, shape, layers, millions):
    counted = operations.operations(lambda: network(torch.zeros(shape)))
    assert counted == 2 * shape[0] * sum(layers)
    assert sum(layers) / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_step_does_nothing_that_nobody_uses():
    through_discriminator = 2 * sum(DISCRIMINATOR)  # frozen: to its inputs alone
    dcgan = trained(GENERATOR) + 2 * trained(DISCRIMINATOR) + through_discriminator
    cost = costs()
    assert cost.dcgan == 2 * dcgan
    assert cost.degan == 2 * (dcgan + 2 * sum(TEACHER))
    assert cost.make == 2 * (sum(GENERATOR) + sum(TEACHER))
    assert cost.student_step == 2 * trained(STUDENT)
    assert cost.student_forward == 2 * sum(STUDENT)
    assert cost.teacher_step == 2 * trained(TEACHER)
    assert cost.teacher_forward == 2 * sum(TEACHER)


def test_operations_grow_with_the_batch_alone():
    gan = build(GanConfig(width=4, lambda_e=1.0), (3, 32, 32), freeze(build_classifier("alexnet", 10, 6)), Context(0))
    two, six = (
        operations.operations(lambda n=n: gan.step(torch.zeros(n, 3, 32, 32), torch.randn(n, 100, 1, 1)))
        for n in (2, 6)
    )
    assert six == 3 * two


@pytest.mark.parametrize("pool_refresh", [1.0, 0.5, 0.25])
def test_distillation_is_counted_as_it_runs(pool_refresh):
    cost = costs("lenet", "lenet_half", 10, 4)
    teacher, student = freeze(build_classifier("lenet", 10)), build_classifier("lenet_half", 10)
    config = DistillConfig(
        batch_size=4, pool=8, pool_refresh=pool_refresh, score_images=6, steps=16, steps_per_epoch=8, first_phase=0.5
    )
    source = GeneratorSource(build_generator(1, 4), 100, teacher, config)
    counted = operations.operations(lambda: list(progress_of(Distillation(student, source, config, Context(0)))))
    scoring = 2 * 6 * (cost.make + cost.student_forward)
    assert counted == 16 * 4 * cost.distillation(pool_refresh) + scoring


def test_trials_going_on_are_those_that_the_scheduler_lets_go_on():
    rng, rungs, cells = np.random.default_rng(0), (625, 1250, 2500), 400
    asha, counts = Rungs(2), np.zeros(4)
    for cell in range(cells):
        for trial in range(16):
            for number, rung in enumerate(rungs):
                counts[number] += 1
                if asha.record(str(cell), rung, rng.random(), f"{cell}-{trial}"):
                    break
            else:
                counts[3] += 1
    assert going_on(16, 3, 2) == [16, 8.5, 4.75, 2.875]
    assert counts / cells == pytest.approx(going_on(16, 3, 2), rel=0.03)
    assert going_on(16, 3, 1) == [16, 16, 16, 16]


def test_table_2_is_the_sum_of_its_runs():
    # The released code's batches and steps for each proxy; SVHN has more images, and so longer epochs.
    gans = [(1843, 5000), (819, 5000), (123, 5000), *5 * [(205, 5000)], (2048, 7200), (2048, 5000)]
    cost, whole, stopped = costs(), table2(200, stopping=False), table2(200)

    def total(work, part, kind):
        return sum(steps.total for steps in work if (steps.part, steps.kind) == (part, kind))

    images = sum(batch * steps for batch, steps in gans)
    assert total(whole, "bank", "gan") == images * (cost.dcgan + 2 * cost.degan)
    assert total(whole, "finals", "gan") == 3 * images * (cost.dcgan + cost.degan)
    assert total(whole, "search", "gan") == 16 * images * cost.degan
    left = [batch * (16 * 1250 + 8.5 * 1250 + 4.75 * (steps - 2500)) for batch, steps in gans]
    assert total(stopped, "search", "gan") == sum(left) * cost.degan
    probed, finished = 1000 * 64 * (16 + 8.5), 200 * 256 * 64 * 4.75
    assert total(stopped, "search", "student") == 10 * (probed + finished) * cost.student_step
    assert total(stopped, "search", "images") == 10 * (probed + finished) * cost.make


def test_less_is_left_where_trials_stop_and_where_images_are_used_again():
    whole, stopped, again = (
        sum(steps.total for steps in work) for work in (table2(400, stopping=False), table2(400), table2(400, 0.25))
    )
    assert again < stopped < whole
