"""What instance noise does for a DCGAN at several sizes: `python -m benchmarks.gan_size [--sizes 64 128] [--out DIR]`.

Trains the GAN of the demo's size on glyphs, with and without the noise, and prints the losses at the end and the
Fréchet distance of generated images to proxy images, in features of the project's fixed random network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.measure import Figures
from degan_search.data import proxies
from degan_search.data.images import denormalise
from degan_search.evaluation.relatedness import frechet, random_network
from degan_search.networks.image_input import ImageInput
from degan_search.settings.trial import GanConfig
from degan_search.stages import gan
from degan_search.stages.gan_training import GanProgress, GanTraining
from degan_search.stages.image_sources import GeneratorSource
from degan_search.system.device import set_up_torch
from degan_search.training.context import Context
from degan_search.training.measures import predict
from degan_search.trial.outcome import sample_grid

IMAGES, SHOWN = 2000, 16


class Nothing(torch.nn.Module):
    """Stands for the teacher, which a plain DCGAN never runs."""

    takes = ImageInput()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return no outputs."""
        return images.new_zeros(len(images), 2)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--proxy", default="glyphs@{size}/[A-J]")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for pictures of samples")
    options = parser.parse_args()
    set_up_torch(1)
    figures = Figures()
    for size in options.sizes:
        name = options.proxy.format(size=size)
        found = proxies.load(name, "train", None, IMAGES, 0, (size, size), channels=3)
        images = torch.from_numpy(found.images)
        plain = random_network(3)
        known = predict(plain, images).double()
        for noise in options.noise:
            for seed in range(options.seeds):
                last, source = trained(images, size, noise, options.steps, seed)
                made = denormalise(source.make(len(images), Context(seed).generator("benchmark"))[0])
                distance = frechet(predict(plain, made).double(), known)
                figures.add(f"gan_{size}_noise_{noise:g}_frechet", distance)
                figures.add(f"gan_{size}_noise_{noise:g}_d_loss", last.losses["d_loss"])
                if options.out:
                    options.out.mkdir(parents=True, exist_ok=True)
                    (options.out / f"gan_{size}_{noise:g}_{seed}.png").write_bytes(sample_grid(made[:SHOWN], zoom=1))


def trained(
    images: torch.Tensor, size: int, noise: float, steps: int, seed: int
) -> tuple[GanProgress, GeneratorSource]:
    """Train a plain DCGAN; return its last report, and the source of its images."""
    settings = {"batch_size": 32, "batch_of": "used", "lr": 5e-4, "width": 16, "lambda_d": 0, "steps": steps}
    config = GanConfig.model_validate({**settings, "instance_noise": noise})
    context, teacher = Context(seed), Nothing()
    networks = gan.build(config, (3, size, size), teacher, context)
    training, last = GanTraining(networks, images, len(images), context), None
    while not training.done:
        last = training.step() or last
    assert last is not None, "the last step is reported"
    return last, GeneratorSource(networks.generator, config.latent, teacher)


if __name__ == "__main__":
    main()
