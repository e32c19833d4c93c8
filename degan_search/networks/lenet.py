"""LeNet for small images of one channel: the Fashion-MNIST teacher at width 6, its student at width 3."""

from torch import nn

SMALLEST = 16
"""Pixels of a side, of which two convolutions and poolings leave one."""


def lenet(classes: int, channels: int, width: int, size: tuple[int, int] = (32, 32)) -> nn.Sequential:
    """Build LeNet with `width` and `width * 16 / 6` channels in its two convolutions.

    Takes [N, channels, *size] in [-1, 1], gives logits [N, classes]. The linear layers (120, 84) do not
    scale with the width, as in the paper's LeNet-half. Weights are drawn from torch's default generator; all biases
    are 0, as in the released code.
    """
    second = round(width * 16 / 6)
    height, breadth = (((side - 4) // 2 - 4) // 2 for side in size)  # of 32 pixels 5
    model = nn.Sequential(
        nn.Conv2d(channels, width, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(width, second, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * height * breadth, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, classes),
    )
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model
