"""Classifiers of timm, by its own names: `timm/resnet10t`; timm need not be installed for anything else."""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType
from typing import Any

from torch import nn

from degan_search.networks.image_input import ImageInput, of_config
from degan_search.networks.names import Named, Wanted, forbid, refused
from degan_search.system.errors import UserError, close_matches

PREFIX = "timm/"


def build(name: Named, wanted: Wanted) -> nn.Module:
    """Build a classifier of timm with random weights.

    Raises:
        UserError: timm is not installed, does not know the name, or not the options.
    """
    timm, model = _timm(name), _known(name)
    forbid(name, "pretrained", "num_classes", "in_chans", "checkpoint_path")
    options: dict[str, Any] = dict(name.options)
    if _config(model).get("fixed_input_size"):
        options = {"img_size": wanted.size, **options}
    try:
        network: nn.Module = timm.create_model(
            model, pretrained=False, num_classes=wanted.classes, in_chans=wanted.channels, **options
        )
    except Exception as error:  # what an option leads to
        raise refused(name, error) from None
    return network


def image_input(name: Named) -> ImageInput:
    """Return the input of timm's own weights of this network.

    Raises:
        UserError: as `build`.
    """
    _timm(name)
    return of_config(_config(_known(name)), name.text)


def _timm(name: Named) -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm
    except ImportError:
        raise UserError(f"network {name.text!r} needs timm: pip install 'degan-search[timm]'") from None
    found: ModuleType = timm
    return found


def _known(name: Named) -> str:
    timm, model = _timm(name), name.what.removeprefix(PREFIX)
    if not timm.is_model(model):
        raise UserError(f"unknown network {name.text!r}; {close_matches(model, timm.list_models())}")
    return model


@cache
def _config(model: str) -> dict[str, Any]:
    import timm

    found = timm.get_pretrained_cfg(model)
    return dict(vars(found)) if found else {}
