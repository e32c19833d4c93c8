"""How large a network is: its parameters, and the multiply-adds that an image takes."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from degan_search.networks.image_input import ImageInput
from degan_search.networks.takes import untrained


@lru_cache(maxsize=64)
def size(network: str, classes: int, width: int | None, takes: ImageInput) -> dict[str, float]:
    """Return `student_parameters` and `multiply_adds` of an untrained network, by the names of `goals.OF_STUDENT`.

    Multiply-adds are those of convolutions, linear layers and attention on one image, half of what torch counts as
    operations. No random stream moves.

    Raises:
        UserError: as `takes.untrained`.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = untrained(network, classes, width, takes).eval()
        model(torch.zeros(1, *takes.shape))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"student_parameters": float(parameters), "multiply_adds": counter.get_total_flops() / 2}
