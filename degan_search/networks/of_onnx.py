"""Networks in ONNX files, through onnx2torch: data alone, no code of the file's is run."""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degan_search.networks.image_input import ImageInput, signed
from degan_search.networks.names import Named, Wanted, one_line
from degan_search.networks.onnx_graph import fixed_batch, readable
from degan_search.system import untrusted
from degan_search.system.errors import UserError

SUFFIX = ".onnx"
BROUGHT = "degan_search_onnx_files"
"""The folder on sys.path in which Ray's workers have the files."""
LARGEST = 2048
"""Most pixels of a side, and images of the try that every file is put to."""


def build(name: Named, wanted: Wanted) -> nn.Module:
    """Return the network of an ONNX file with its weights: it learns, has gradients, and takes any number of images.

    Raises:
        UserError: onnx2torch is not installed, the file is broken, has operators that it does not know, or is for
            other images or classes.
    """
    network = _converted(name, _model(name))
    _, taken = _shapes(name)
    for what, given, own in zip(("channels", "height", "width"), (wanted.channels, *wanted.size), taken, strict=True):
        if own is not None and own != given:
            raise UserError(f"network {name.text!r} takes images of {own} {what}, not {given}")
    found = _tried(name, network, wanted)
    if found != wanted.classes:
        raise UserError(f"network {name.text!r} has {found} outputs, not {wanted.classes}")
    return network.train()


def image_input(name: Named) -> ImageInput:
    """Return the input that the graph tells, in [-1, 1]; what it leaves open is 32x32 and 3 channels.

    Raises:
        UserError: as `build`.
    """
    _, (channels, height, width) = _shapes(name)
    return signed(channels or 3, (height or width or 32, width or height or 32))


def classes(name: Named) -> int:
    """Return how many outputs the file's network has.

    Raises:
        UserError: as `build`.
    """
    told, _ = _shapes(name)
    given = image_input(name)
    return told or _tried(name, _converted(name, _model(name)), Wanted(0, given.channels, given.size))


def files(name: Named) -> list[Path]:
    """Return the file, and those beside it that hold its weights."""
    file = _place(name)
    return [file, *(file.parent / part for part in sorted(_external(_read(name))))]


def _place(name: Named) -> Path:
    """Return the file; where it is not there, the one that Ray brought."""
    if name.options:
        raise UserError(f"network {name.text!r}: an ONNX file takes no options")
    file = Path(name.what).expanduser().absolute()
    brought = (Path(folder) / BROUGHT / file.name for folder in sys.path)
    return file if file.exists() else next((one for one in brought if one.exists()), file)


def _needed(name: Named) -> None:
    try:
        import onnx  # noqa: F401
        import onnx2torch  # noqa: F401
    except ImportError:
        raise UserError(f"network {name.text!r} needs onnx2torch: pip install 'degan-search[onnx]'") from None


def _read(name: Named) -> Any:
    """Return the graph, without weights that lie in other files."""
    _needed(name)
    import onnx

    data = untrusted.read(_place(name), f"network {name.text!r}", untrusted.MODEL_BYTES)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own kinds
        raise UserError(f"network {name.text!r} is no ONNX file: {one_line(error)}") from None
    if not model.graph.node or not model.graph.output:
        raise UserError(f"network {name.text!r} is no ONNX file with a graph")
    return model


def _external(model: Any) -> set[str]:
    """Return the names of the files that hold weights."""
    tensors = [*model.graph.initializer]
    tensors += [one.t for node in model.graph.node for one in node.attribute if one.HasField("t")]
    entries = [entry for tensor in tensors if tensor.data_location == 1 for entry in tensor.external_data]
    return {entry.value for entry in entries if entry.key == "location"}


def _model(name: Named) -> Any:
    model = _read(name)
    folder, total = _place(name).parent, 0
    for part in _external(model):
        file = folder / part
        if part != Path(part).name or part in ("", ".", "..") or file.is_symlink():
            raise UserError(f"network {name.text!r} asks for weights in {part!r}, which is no file beside it")
        if not file.is_file():
            raise UserError(f"network {name.text!r} has its weights in {part!r}, which is not beside it")
        total += file.stat().st_size
    if total > untrusted.MODEL_BYTES:
        raise UserError(f"network {name.text!r} has {total:,} bytes of weights; at most {untrusted.MODEL_BYTES:,}")
    from onnx.external_data_helper import load_external_data_for_model

    try:
        load_external_data_for_model(model, str(folder))
    except Exception as error:
        raise UserError(f"network {name.text!r} is broken: {one_line(error)}") from None
    return model


def _shapes(name: Named) -> tuple[int | None, tuple[int | None, int | None, int | None]]:
    place = _place(name)
    try:
        about = place.stat()
        stamp = (about.st_mtime_ns, about.st_size)
    except (OSError, ValueError):
        stamp = (0, 0)
    return _told(name.text, *stamp)


@lru_cache(maxsize=16)
def _told(text: str, *stamp: int) -> tuple[int | None, tuple[int | None, int | None, int | None]]:
    """Return classes, and channels, height and width, as the graph tells them; None where it leaves them open."""
    name = Named(text, text, {})
    graph = _read(name).graph
    weights = {one.name for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UserError(
            f"network {text!r} has {len(inputs)} inputs and {len(graph.output)} outputs; images to logits are needed"
        )

    def shape(value: Any) -> list[int | None]:
        dims = value.type.tensor_type.shape.dim
        return [one.dim_value if one.dim_value > 0 else None for one in dims]

    taken, given = shape(inputs[0]), shape(graph.output[0])
    if len(taken) != 4 or inputs[0].type.tensor_type.elem_type not in (1, 10, 11):
        raise UserError(f"network {text!r} takes {taken} of kind {inputs[0].type.tensor_type.elem_type}, no images")
    if len(given) != 2 and given:
        raise UserError(f"network {text!r} gives {given}; a classifier gives [images, classes]")
    if any(one and one > LARGEST for one in taken[1:]):
        raise UserError(f"network {text!r} takes images {taken[1:]}; at most {LARGEST} pixels a side are read")
    return (given[1] if given else None), (taken[1], taken[2], taken[3])


def _converted(name: Named, model: Any) -> nn.Module:
    given = image_input(name)
    wanted = Wanted(0, given.channels, given.size)
    network = _turned(name, model, True)
    try:
        _tried(name, network, wanted)
    except UserError:
        if fixed_batch(model) != 1:
            raise
        network = OneByOne(_turned(name, model, False))
        _tried(name, network, wanted)
    return network


def _turned(name: Named, model: Any, any_batch: bool) -> nn.Module:
    import onnx2torch

    try:
        with warnings.catch_warnings(), torch.device("cpu"), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # of arrays that cannot be written to
            network: nn.Module = onnx2torch.convert(readable(model, name.text, any_batch)).float()
    except UserError:
        raise
    except Exception as error:  # a file made to do harm can make it raise anything
        raise UserError(f"network {name.text!r} cannot be turned to a network of torch: {one_line(error)}") from None
    return network


class OneByOne(nn.Module):
    """A network for one image at a time, as some exports are, for any number: images [N, C, H, W] to [N, K]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return the network's outputs for each image."""
        return torch.cat([self.network(image) for image in torch.split(images, 1)])


def _tried(name: Named, network: nn.Module, wanted: Wanted) -> int:
    """Return the outputs for an image; refuses a network that images in a batch go through differently."""
    network.eval()
    images = torch.rand(3, wanted.channels, *wanted.size, generator=torch.Generator().manual_seed(0))
    images.requires_grad_(True)
    try:
        with torch.enable_grad():
            alone, found = network(images[:1]), network(images)
            slope = torch.autograd.grad(found.sum(), images, allow_unused=True)[0] if found.requires_grad else None
    except Exception as error:
        raise UserError(
            f"network {name.text!r} does not work on 3 images: {one_line(error)}; export it with a dynamic batch"
        ) from None
    if alone.ndim != 2 or found.shape != (3, alone.shape[1]):
        raise UserError(f"network {name.text!r} gives {tuple(found.shape)} for 3 images, not [3, classes]")
    if not torch.allclose(alone[0], found[0], rtol=1e-3, atol=1e-4, equal_nan=True):
        raise UserError(f"network {name.text!r} treats an image otherwise among others: export it with a dynamic batch")
    if slope is None:
        raise UserError(f"network {name.text!r} gives no gradient to its images")
    return int(alone.shape[1])
