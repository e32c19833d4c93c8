"""AlexNet for small images: the CIFAR-10 teacher at width 48, its student at width 24."""

from torch import nn

from degan_search.networks.layers import Dropout, LocalResponseNorm2

# From the authors' released network: (channels at width 48, kernel, initial value of the bias).
_CONVOLUTIONS = ((48, 5, 0.0), (128, 5, 1.0), (192, 3, 0.0), (192, 3, 1.0), (128, 3, 1.0))
_HIDDEN = (512, 256)
_NORM_EPSILON = 1e-3
SMALLEST = 15
"""Pixels of a side, of which three poolings leave one."""


def alexnet(classes: int, channels: int, width: int, size: tuple[int, int] = (32, 32)) -> nn.Sequential:
    """Build AlexNet, its first convolution having `width` channels and all else in proportion to 48.

    Takes [N, channels, *size] in [-1, 1], gives logits [N, classes]. Weights are drawn from torch's default
    generator, but biases start at 0 or 1.
    """

    def scaled(full: int) -> int:
        return round(full * width / 48)

    layers: list[nn.Module] = []
    inputs = channels
    for block, (full, kernel, first_bias) in enumerate(_CONVOLUTIONS, start=1):
        outputs = scaled(full)
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        layers += [_with_bias(convolution, first_bias), nn.ReLU(inplace=True)]
        if block in (1, 2):
            layers.append(LocalResponseNorm2())
        if block in (1, 2, 5):
            layers.append(nn.MaxPool2d(3, stride=2))
        layers.append(nn.BatchNorm2d(outputs, eps=_NORM_EPSILON))
        inputs = outputs

    layers.append(nn.Flatten())
    for side in size:
        inputs *= _pooled(_pooled(_pooled(side)))  # of 32 pixels 3
    for full in _HIDDEN:
        outputs = scaled(full)
        layers += [_with_bias(nn.Linear(inputs, outputs), 0.0), nn.ReLU(inplace=True), Dropout(0.5, outputs)]
        layers.append(nn.BatchNorm1d(outputs, eps=_NORM_EPSILON))
        inputs = outputs
    return nn.Sequential(*layers, _with_bias(nn.Linear(inputs, classes), 0.0))


def _pooled(side: int) -> int:
    return (side - 3) // 2 + 1


def _with_bias(layer: nn.Conv2d | nn.Linear, value: float) -> nn.Module:
    if layer.bias is not None:
        nn.init.constant_(layer.bias, value)
    return layer
