"""Inception-V3 is the released code's: every operation in order, by its kind, its sizes and its numbers."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from degan_search.networks.table import build_classifier

Operation = tuple[object, ...]
Conv = tuple[int, int | tuple[int, int], int, int | tuple[int, int]]
"""Outputs, kernel, stride, padding."""
AVERAGE = ("average", 3, 1, 1)
UP_DOWN, ACROSS = ((7, 1), (3, 0)), ((1, 7), (0, 3))


class Recorder(TorchDispatchMode):
    """Writes down the operations that a network is made of."""

    def __init__(self):
        super().__init__()
        self.seen: list[Operation] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "convolution":
            weight = args[1]
            assert args[2] is None and not args[6] and args[8] == 1  # no bias, not transposed, one group
            self.seen.append(("conv", *weight.shape[:2], tuple(weight.shape[2:]), tuple(args[3]), tuple(args[4])))
        elif "batch_norm" in name:
            self.seen.append(("norm", len(args[1]), args[-1]))
        elif name in ("relu", "relu_"):
            self.seen.append(("relu",))
        elif name.startswith("max_pool2d"):
            self.seen.append(("maximum", *(value[0] for value in args[1:])))
        elif name.startswith("avg_pool2d"):
            self.seen.append(("average", args[1][0], *(value[0] for value in args[2:4])))
        elif name == "cat":
            self.seen.append(("cat", *(part.shape[1] for part in args[0])))
        return func(*args, **(kwargs or {}))


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def chain(inputs: int, *convolutions: Conv) -> list[Operation]:
    """What convolutions in a row do, each with BatchNorm (eps 1e-5) and ReLU."""
    found: list[Operation] = []
    for outputs, kernel, stride, padding in convolutions:
        found += [("conv", outputs, inputs, pair(kernel), pair(stride), pair(padding)), ("norm", outputs, 1e-5)]
        found += [("relu",)]
        inputs = outputs
    return found


def seven(outputs: int, way: tuple[tuple[int, int], tuple[int, int]]) -> Conv:
    return outputs, way[0], 1, way[1]


def block_a(inputs: int, pooled: int) -> list[Operation]:
    return [
        *chain(inputs, (64, 1, 1, 0)),
        *chain(inputs, (48, 1, 1, 0), (64, 5, 1, 2)),
        *chain(inputs, (64, 1, 1, 0), (96, 3, 1, 1), (96, 3, 1, 1)),
        AVERAGE,
        *chain(inputs, (pooled, 3, 1, 1)),
        ("cat", 64, 64, 96, pooled),
    ]


def block_b(inputs: int) -> list[Operation]:
    return [
        *chain(inputs, (384, 3, 2, 0)),
        *chain(inputs, (64, 1, 1, 0), (96, 3, 1, 1), (96, 3, 2, 0)),
        ("maximum", 3, 2),
        ("cat", 384, 96, inputs),
    ]


def block_c(inner: int) -> list[Operation]:
    return [
        *chain(768, (192, 1, 1, 0)),
        *chain(768, (inner, 1, 1, 0), seven(inner, UP_DOWN), seven(192, ACROSS)),
        *chain(
            768,
            (inner, 1, 1, 0),
            seven(inner, UP_DOWN),
            seven(inner, ACROSS),
            seven(inner, UP_DOWN),
            seven(192, ACROSS),
        ),
        AVERAGE,
        *chain(768, (192, 1, 1, 0)),
        ("cat", 192, 192, 192, 192),
    ]


def block_d() -> list[Operation]:
    return [
        *chain(768, (192, 1, 1, 0), (320, 3, 2, 0)),
        *chain(768, (192, 1, 1, 0), seven(192, ACROSS), seven(192, UP_DOWN), (192, 3, 2, 0)),
        ("average", 3, 2),
        ("cat", 320, 192, 768),
    ]


def block_e(inputs: int) -> list[Operation]:
    halves = [*chain(384, (384, (1, 3), 1, (0, 1))), *chain(384, (384, (3, 1), 1, (1, 0))), ("cat", 384, 384)]
    return [
        *chain(inputs, (320, 1, 1, 0)),
        *chain(inputs, (384, 1, 1, 0)),
        *halves,
        *chain(inputs, (448, 1, 1, 0), (384, 3, 1, 1)),
        *halves,
        AVERAGE,
        *chain(inputs, (192, 1, 1, 0)),
        ("cat", 320, 768, 768, 192),
    ]


RELEASED = [
    *chain(3, (32, 3, 1, 1), (32, 3, 1, 1), (64, 3, 1, 1), (80, 1, 1, 0), (192, 3, 1, 0)),
    *block_a(192, 32),
    *block_a(256, 64),
    *block_a(288, 64),
    *block_b(288),
    *block_c(128),
    *block_c(160),
    *block_c(160),
    *block_c(192),
    *block_d(),
    *block_e(1280),
    *block_e(2048),
]


def test_every_operation_is_the_released_codes():
    with torch.device("meta"):
        model, images = build_classifier("inception_v3", 100).eval(), torch.zeros(2, 3, 32, 32)
    with torch.no_grad(), Recorder() as recorder:
        model(images)
    for place, (found, expected) in enumerate(zip(recorder.seen, RELEASED, strict=True)):
        assert found == expected, f"operation {place}"
    rest = [(type(layer).__name__, getattr(layer, "p", None)) for layer in model[16:]]
    assert rest == [("AdaptiveAvgPool2d", None), ("Dropout2d", 0.5), ("Flatten", None), ("Linear", None)]
