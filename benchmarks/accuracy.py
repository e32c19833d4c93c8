"""What a setting does to the final accuracy: the same trials over seeds, with each of its values, compared in pairs.

`python -m benchmarks.accuracy precision float32 bf16` and `... distill.pool_refresh 1 0.25 0.0625 0.015625`. Accuracy
is the student's on held-out true training images, in percent points.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
import yaml
from scipy.stats import ttest_rel
from torch import nn

from benchmarks.measure import Figures, arguments
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.system.device import choose_device, set_up_torch
from degan_search.training.measures import accuracy, predict
from degan_search.training.turns import Turns
from degan_search.trial.inputs import Inputs, gather, load
from degan_search.trial.made import Made
from degan_search.trial.trial import Trial


def trial_with(config: TrialConfig, inputs: Inputs, device: str, generator: nn.Module | None = None) -> Trial:
    """Return a trial; with a trained generator given, its GAN is done."""
    trial = Trial(config, inputs, device)
    if generator is not None:
        trial.made = Made(generator)
        trial.begin("student")
    return trial


def main() -> None:
    """Run every seed with every value, and print accuracies, seconds and paired differences to the first value."""
    parser = arguments(__doc__, repetitions=6, space="fashion_mnist_cpu", proxy="cifar10", first_seed=1, threads=1)
    parser.add_argument("setting", help="dotted name, such as precision or distill.pool_refresh")
    parser.add_argument("values", nargs="+")
    parser.add_argument("--set", nargs="*", default=[], help="key=value over the space's trial")
    parser.add_argument("--data-dir", type=Path, help="folder of the image sets; default: DATA_DIR, or ./data")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    options = parser.parse_args()
    set_up_torch(options.threads)
    device = choose_device()
    space = yaml.safe_load(files("search_spaces").joinpath(f"{options.space}.yaml").read_text())
    changes = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in options.set)}
    base = {"proxy": options.proxy, "method": "degan", "probe.at": []} | changes
    values = [yaml.safe_load(value) for value in options.values]

    def configured(value: Any, seed: int) -> TrialConfig:
        return trial_config(space["trial"], base, {options.setting: value, "seed": seed})

    config = configured(values[0], options.first_seed)
    (loaded,) = load([config], options.data_dir, options.cache, device)
    inputs, true = gather(loaded, options.cache, device), loaded.true
    assert true is not None, "students are judged on true images"
    judged = torch.from_numpy(true.images[true.held_out]).to(device)
    labels = torch.from_numpy(true.labels[true.held_out]).to(device)
    found: dict[Any, list[float]] = {value: [] for value in values}
    seconds: dict[Any, list[float]] = {value: [] for value in values}
    figures = Figures()
    seeds = range(options.first_seed, options.first_seed + options.repetitions)
    together = 1 if device == "cpu" else len(seeds)
    generators: dict[int, nn.Module] = {}
    for value in values:
        for start in range(0, len(seeds), together):
            beside = seeds[start : start + together]
            trials = {
                seed: trial_with(configured(value, seed), inputs, device, generators.get(seed)) for seed in beside
            }
            turns = Turns(trials, device)
            while not turns.done:
                turns.step()
            for seed, trial in trials.items():
                if options.setting.startswith("distill.") and trial.outcome.generator is not None:
                    generators[seed] = trial.outcome.generator  # distillation's settings do not change it
                found[value].append(100 * accuracy(predict(trial.outcome.student, judged), labels))
                timed = "distill_seconds" if options.setting.startswith("distill.") else "seconds"
                seconds[value].append(trial.outcome.metrics[timed] / len(beside))
                figures.add(f"accuracy_{options.setting}_{value}_seed_{seed}", found[value][-1])
    for value in values:
        name = f"accuracy_{options.setting}_{value}"
        figures.add(f"{name}_mean", mean(found[value]))
        figures.add(f"{name}_deviation", stdev(found[value]))
        figures.add(f"{name}_seconds", median(seconds[value]))
        if value != values[0]:
            paired = ttest_rel(found[value], found[values[0]])
            low, high = paired.confidence_interval()
            figures.add(f"{name}_minus_{values[0]}", mean(found[value]) - mean(found[values[0]]))
            figures.add(f"{name}_minus_{values[0]}_low", low)
            figures.add(f"{name}_minus_{values[0]}_high", high)
            figures.add(f"{name}_minus_{values[0]}_p", paired.pvalue)
    figures.save(options.json)


if __name__ == "__main__":
    main()
