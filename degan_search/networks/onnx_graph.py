"""ONNX graphs as onnx2torch can read them: operators of versions that it knows, and any number of images."""

from __future__ import annotations

import math
from typing import Any

from degan_search.system.errors import UserError

LISTED = 8
"""Most operators that a message names."""
STABLE = 13
"""Since this version of ONNX an operator with the same inputs and attributes means the same."""
_REDUCED = {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp"}
"""Operators whose axes became an input in version 18."""
_INT64 = 7
_SMALL = 64
"""Most numbers of a constant that is a shape, or axes."""


def readable(model: Any, what: str, any_batch: bool = True) -> Any:
    """Return the model in operators that onnx2torch knows, as far as they have equals.

    With `any_batch` it is for any number of images, where an export has written one into it.

    Raises:
        UserError: names the operators that it does not know.
    """
    model, old = type(model)(), model
    model.CopyFrom(old)
    _repeat_shared(model)
    if any_batch:
        _any_batch(model)
    _older_forms(model)
    _lower(model, what)
    return model


def fixed_batch(model: Any) -> int:
    """Return the number of images that the graph takes, 0 if any."""
    dims = _images(model).type.tensor_type.shape.dim
    return int(dims[0].dim_value) if dims else 0


def _images(model: Any) -> Any:
    weights = {one.name for one in model.graph.initializer}
    return next(one for one in model.graph.input if one.name not in weights)


def _lower(model: Any, what: str) -> None:
    """Set the newest version of ONNX at which onnx2torch knows all operators with the inputs and attributes used."""
    own = next((one for one in model.opset_import if one.domain in ("", "ai.onnx")), None)
    newest = own.version if own else 0
    versions = range(newest, min(newest, STABLE) - 1, -1)
    nodes = list(model.graph.node)
    for version in versions:
        if own and all(_known(node, version, newest) for node in nodes):
            own.version = version
            return
    unknown = sorted({_named(one) for one in nodes if not any(_known(one, v, newest) for v in versions)})
    names = ", ".join((unknown or sorted(set(map(_named, nodes))))[:LISTED])
    raise UserError(f"network {what!r} has operators that onnx2torch does not know, in ONNX {newest}: {names}")


def _named(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _known(node: Any, version: int, newest: int) -> bool:
    from onnx import defs
    from onnx2torch.node_converters.registry import get_converter

    try:
        get_converter(domain=node.domain, operation_type=node.op_type, version=version)
        if node.domain or version == newest or node.op_type in _REDUCED:
            return True
        then, now = defs.get_schema(node.op_type, version, ""), defs.get_schema(node.op_type, newest, "")
    except (NotImplementedError, RuntimeError, defs.SchemaError):
        return False
    used = len(node.input)
    return {one.name for one in node.attribute} <= then.attributes.keys() and (
        [one.name for one in then.inputs][:used] == [one.name for one in now.inputs][:used]
    )


def _repeat_shared(model: Any) -> None:
    """Give each weight that several layers share to each of them: exports write an Identity, which is not followed."""
    graph = model.graph
    weights = {one.name for one in graph.initializer}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and not node.domain and same.get(node.input[0], node.input[0]) in weights:
            same[node.output[0]] = same.get(node.input[0], node.input[0])
        else:
            kept.append(node)
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    _replace_nodes(model, kept)


def _any_batch(model: Any) -> None:
    """Leave the number of images open where an export has written it into a Reshape."""
    from onnx import numpy_helper

    graph, fixed = model.graph, fixed_batch(model)
    values, of_images = _constants(model), {_images(model).name}
    for number, node in enumerate(graph.node):
        if not of_images.intersection(node.input):
            continue
        of_images.update(node.output)
        if node.op_type != "Reshape" or node.input[0] not in of_images:
            continue
        shape = values.get(node.input[1])
        if not fixed or shape is None or shape.ndim != 1 or not len(shape) or shape[0] != fixed or not shape.all():
            continue
        opened = shape.copy()
        opened[0] = 0  # as it comes
        name = f"{node.input[1]}_of_any_batch_{number}"
        graph.initializer.append(numpy_helper.from_array(opened, name))
        node.input[1] = name


def _older_forms(model: Any) -> None:
    """Write operators as earlier versions of ONNX do, where these have the same: axes, splits, zero sizes, GELU."""
    from onnx import helper

    values, kept = _constants(model), []
    for number, node in enumerate(model.graph.node):
        kind = "" if node.domain else node.op_type
        if kind in _REDUCED:
            _drop(node, "noop_with_empty_axes")
            if len(node.input) > 1 and (axes := values.get(node.input[1])) is not None:
                del node.input[1:]
                node.attribute.append(helper.make_attribute("axes", axes.tolist()))
        elif kind == "Reshape":
            _drop(node, "allowzero")  # an image has no side of zero
        elif kind == "Split":
            _drop(node, "num_outputs")
        elif kind == "Cast":
            _drop(node, "saturate")
        kept += _gelu(node, f"gelu_{number}", model) if kind == "Gelu" else [node]
    _replace_nodes(model, kept)


def _gelu(node: Any, name: str, model: Any) -> list[Any]:
    """Return x * (1 + erf(x / sqrt(2))) / 2, or with tanh(sqrt(2 / pi) * (x + 0.044715 x**3)) in the place of erf."""
    import numpy as np
    from onnx import helper, numpy_helper

    x, y, nodes = node.input[0], node.output[0], []
    rough = any(one.name == "approximate" and one.s == b"tanh" for one in node.attribute)

    def number(value: float, label: str) -> str:
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{name}_{label}"))
        return f"{name}_{label}"

    def add(kind: str, inputs: list[str], output: str) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}_{kind}"))
        return output

    if rough:
        cube = add("Mul", [add("Mul", [x, x], f"{name}_square"), x], f"{name}_cube")
        inner = add("Add", [x, add("Mul", [cube, number(0.044715, "small")], f"{name}_part")], f"{name}_sum")
        scale = math.sqrt(2 / math.pi)
    else:
        inner, scale = x, math.sqrt(0.5)
    scaled = add("Mul", [inner, number(scale, "scale")], f"{name}_scaled")
    curve = add("Tanh" if rough else "Erf", [scaled], f"{name}_curve")
    share = add("Add", [curve, number(1.0, "one")], f"{name}_share")
    add("Mul", [add("Mul", [x, number(0.5, "half")], f"{name}_halved"), share], y)
    return nodes


def _drop(node: Any, attribute: str) -> None:
    for place, one in reversed(list(enumerate(node.attribute))):
        if one.name == attribute:
            del node.attribute[place]


def _replace_nodes(model: Any, nodes: list[Any]) -> None:
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _constants(model: Any) -> dict[str, Any]:
    """Return the graph's small arrays of whole numbers, by name."""
    from onnx import numpy_helper

    tensors = [(one.name, one) for one in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors += [(node.output[0], one.t) for one in node.attribute if one.name == "value"]
    small = {name: one for name, one in tensors if one.data_type == _INT64 and math.prod(one.dims) <= _SMALL}
    return {name: numpy_helper.to_array(one) for name, one in small.items()}
