"""How many trials run at a time, and how many in one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from degan_search.data import proxies
from degan_search.search.run.options import Options
from degan_search.settings import lengths
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError
from degan_search.training.turns import side_by_side_on_gpu


def slots(options: Options, resources: Mapping[str, float]) -> int:
    """Return how many trials run at a time on these resources, such as `{"CPU": 2.0, "GPU": 0.0}`.

    Raises:
        UserError: not even one fits.
    """
    needs = {"CPU": options.cpus_per_trial, "GPU": options.gpus_per_trial}
    fits = [int(resources.get(kind, 0) / need) for kind, need in needs.items() if need]
    if min(fits) < 1:
        raise UserError(
            f"a trial needs {needs['CPU']} CPUs and {needs['GPU']:g} GPUs, but there are "
            f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs; "
            "lower --cpus-per-trial or --gpus-per-trial"
        )
    return options.max_concurrent or min(fits)


def trials_per_process(options: Options, config: TrialConfig) -> int:
    """Return how many trials like this one run in one process: on a CPU one, as several gain nothing."""
    if options.fuse:
        return options.fuse
    if not options.gpus_per_trial:
        return 1
    share = 1.0 if config.count else proxies.share(config.proxy)
    batch = lengths.scaled_batch(config.gan.batch_size, config.gan.batch_of, round(share * 50_000), 50_000)
    return side_by_side_on_gpu(batch)


def fill(options: Options, resources: Mapping[str, float]) -> bool:
    """Return whether trials use all these resources, none of which `--max-concurrent` leaves idle."""
    return slots(options, resources) >= slots(replace(options, max_concurrent=None), resources)
