"""LeNet for 32x32 images of one channel: the Fashion-MNIST teacher at width 6, its student at width 3."""

from torch import nn


def lenet(classes: int, channels: int, width: int) -> nn.Sequential:
    """Build LeNet with `width` and `width * 16 / 6` channels in its two convolutions.

    Takes [N, channels, 32, 32] in [-1, 1], gives logits [N, classes]. The linear layers (120, 84) do not
    scale with the width, as in the paper's LeNet-half. Weights are drawn from torch's default generator.
    """
    second = round(width * 16 / 6)
    return nn.Sequential(
        nn.Conv2d(channels, width, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(width, second, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * 5 * 5, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, classes),
    )
