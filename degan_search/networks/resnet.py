"""ResNets for small images: 18 (the CIFAR-100 student), 34, and 32 layers (the class-incremental network)."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def projection(inputs: int, outputs: int) -> nn.Sequential:
    """Build the shortcut into a smaller stage that learns: a strided 1x1 convolution (He et al. 2016, option B)."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))


class ZeroPadding(nn.Module):
    """The shortcut into a smaller stage without parameters (He et al. 2016, option A)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.more = outputs - inputs

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h/2 w/2"]:
        """Keep every second pixel of each row and column, and append channels of zeros."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))


def resnet(
    classes: int,
    channels: int,
    width: int,
    blocks: tuple[int, ...],
    shortcut: Callable[[int, int], nn.Module] = projection,
    size: tuple[int, int] = (32, 32),
    he: bool = True,
) -> nn.Sequential:
    """Build a ResNet of basic blocks: `blocks` in each stage, of `width` channels, twice that, and so on.

    The CIFAR variant: the first convolution is 3x3 with stride 1, without pooling. Takes [N, channels, *size]
    in [-1, 1], of any size, gives logits [N, classes]. Weights are drawn from torch's default generator. `he`: those of
    the convolutions from He et al.'s normal distribution (fan-out); else they are the framework's own first weights.
    """
    from torchvision.models.resnet import BasicBlock  # here, as it is slow to import and mostly not needed

    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    inputs = width
    for stage, count in enumerate(blocks):
        outputs = width * 2**stage
        for block in range(count):
            smaller = stage > 0 and block == 0
            layers.append(
                BasicBlock(inputs, outputs, 2 if smaller else 1, shortcut(inputs, outputs) if smaller else None)
            )
            inputs = outputs
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
    for layer in model.modules():
        if he and isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return model
