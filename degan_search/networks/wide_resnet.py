"""Wide ResNets for small images (Zagoruyko and Komodakis 2016), which MosaicKD is shown on."""

from jaxtyping import Float
from torch import Tensor, nn


class Block(nn.Module):
    """A block whose norms stand before its convolutions; where channels change, the shortcut is a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.active = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h/stride w/stride"]:
        """Return the sum of both paths."""
        active = self.active(x)
        total: Tensor = self.body(active) + (x if self.shortcut is None else self.shortcut(active))
        return total


def wide_resnet(
    classes: int, channels: int, width: int, depth: int, factor: int, size: tuple[int, int] = (32, 32)
) -> nn.Sequential:
    """Build WRN-`depth`-`factor`: three stages of (depth - 4) / 6 blocks, of 1, 2 and 4 times factor * width channels.

    `width` is the number of channels of the first convolution. Takes [N, channels, *size] in [-1, 1], of any size,
    gives logits [N, classes]. Weights are drawn from torch's default generator: those of the convolutions from He et
    al.'s normal distribution (fan-out); the last layer's biases start at 0.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    inputs = width
    for stage in range(3):
        outputs = width * factor * 2**stage
        for block in range((depth - 4) // 6):
            layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    last = nn.Linear(inputs, classes)
    model = nn.Sequential(
        *layers, nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(last.bias)
    return model
