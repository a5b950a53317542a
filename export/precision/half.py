"""Convert weights and activations to half precision where the time goes; all decisions stay in float32.

Convolutions, matrix products and the nodes between them run in half precision. The two small products at the end of the
box head, softmax and sigmoid, boxes, scores, decoding, suppression and RoIAlign stay in float32: from 1024 on, half
precision can express whole pixels only.

A CPU computes such a graph in float32: ONNX Runtime has no half-precision kernels there and removes the conversions
between two nodes. So accuracy is measured on the graph of `emulate_half`, which rounds explicitly.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.convert.access import Constants, readers_of, replace_nodes

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_ROUNDING = (*_PRODUCTS, "Add")
# These move or pick values that are already in half precision.
_MOVING = ("Relu", "MaxPool", "Resize", "Pad", "Transpose", "Reshape", "Concat", "DepthToSpace", "Squeeze", "Unsqueeze")
_ALL_INPUTS = (*_ROUNDING, "Concat")  # other operators have values in their first input only

_LARGEST = 65504.0
_OVERFLOW = 65520.0  # from here on, values round to infinity
_HALF = "/half"  # suffix of tensors in half precision


def to_half(model: onnx.ModelProto, in_float: Collection[str]) -> onnx.ModelProto:
    """Return a copy with products in half precision; graph inputs and outputs keep their types.

    Tensor `x` in half precision is called `x/half`; if a node in float32 reads it, `x` exists too.

    Args:
        model: Graph in float32.
        in_float: Names of nodes that stay in float32, besides those of `stays_in_float`.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    constants, readers = Constants(half), readers_of(half)
    chosen = _half_nodes(half, constants, in_float)
    written = {node.output[0] for node in half.graph.node if node.name in chosen}
    entered: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in half.graph.node:
        if node.name not in chosen:
            if node.op_type in ("Shape", "Size") and node.input[0] in written:
                node.input[0] += _HALF  # the shape is the same, so no conversion is needed
            nodes.append(node)
            continue
        for index, name in _values(node):
            node.input[index] = name + _HALF
            if name in written | entered:
                continue
            entered.add(name)
            value = constants.find(name)
            if value is None:
                nodes.append(_cast(name, name + _HALF, TensorProto.FLOAT16))
            else:
                constants.add(name + _HALF, np.clip(value, -_LARGEST, _LARGEST), np.float16)
        name = node.output[0]
        node.output[0] = name + _HALF
        nodes.append(node)
        outside = [each for each in readers[name] if each is None or each.name not in chosen]
        if any(each is None or each.op_type not in ("Shape", "Size") for each in outside):
            nodes.append(_cast(name + _HALF, name, TensorProto.FLOAT))
    replace_nodes(half, nodes)
    constants.drop_unread()
    return half


def borders_in(graph: onnx.ModelProto, borders: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the metadata's `borders` for a graph; after `to_half`, some tensors exist only in half precision."""
    tensors = {output for node in graph.graph.node for output in node.output}
    return {
        name: {**place, "tensor": place["tensor"] + ("" if place["tensor"] in tensors else _HALF)}
        for name, place in borders.items()
    }


def emulate_half(half: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph that computes what a graph of `to_half` computes on a device with half-precision kernels.

    Rounding and overflow are included. Sums of products are computed in float32 and rounded once, as such devices do.
    Below 6e-5, half precision keeps fewer than 11 bits; here all 11 are kept.
    """
    model = onnx.ModelProto()
    model.CopyFrom(half)
    constants = Constants(model)
    for tensor in list(model.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT16:
            value = constants.read(tensor.name)
            model.graph.initializer.remove(tensor)
            constants.add(tensor.name, value)
    # Veltkamp's split: x * c - (x * c - x) with c = 2^13 + 1 rounds x to its 11 leading bits.
    split = constants.add("half/split", np.array(2**13 + 1, np.float32))
    overflow = constants.add("half/overflow", np.array(_OVERFLOW, np.float32))
    infinity = constants.add("half/infinity", np.array(np.inf, np.float32))
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        name = node.output[0]
        if node.op_type == "Cast" and name.endswith(_HALF):
            node.attribute[0].i = TensorProto.FLOAT
        if name.endswith(_HALF) and node.op_type in (*_ROUNDING, "Cast"):
            node.output[0] = f"{name}/exact"
            nodes += _round(name, split, overflow, infinity)
    replace_nodes(model, nodes)
    return model


def _round(name: str, split: str, overflow: str, infinity: str) -> list[onnx.NodeProto]:
    """Return the nodes that round `name/exact` to 11 bits, or to infinity, as `name`."""
    steps = (
        ("Mul", ("exact", split), "scaled"),
        ("Sub", ("scaled", "exact"), "rest"),
        ("Sub", ("scaled", "rest"), "rounded"),
        ("Abs", ("exact",), "size"),
        ("GreaterOrEqual", ("size", overflow), "over"),
        ("Mul", ("exact", infinity), "infinite"),
        ("Where", ("over", "infinite", "rounded"), ""),
    )
    return [
        helper.make_node(
            operator,
            [each if each.startswith("half/") else f"{name}/{each}" for each in inputs],
            [f"{name}/{output}" if output else name],
            name=f"{name}/{output or 'half_rounded'}",
        )
        for operator, inputs, output in steps
    ]


def _half_nodes(model: onnx.ModelProto, constants: Constants, in_float: Collection[str]) -> set[str]:
    """Return the names of the products and of the nodes that only read half precision."""
    chosen: set[str] = set()
    half: set[str] = set()
    for node in model.graph.node:  # sorted, so the inputs of a node come before it
        if node.op_type in _PRODUCTS:
            wanted = not (stays_in_float(node) or node.name in in_float)
        elif node.op_type in (*_ROUNDING, *_MOVING):
            read = [name for _, name in _values(node)]
            wanted = any(name in half for name in read)
            wanted = wanted and all(name in half or constants.find(name) is not None for name in read)
        else:
            wanted = False
        if wanted:
            chosen.add(node.name)
            half.update(node.output)
    return chosen


def stays_in_float(node: onnx.NodeProto) -> bool:
    """Return whether a node is one of the box head's last two products, a thousandth of the work, or a step of NMS."""
    return node.op_type == "MatMul" and any(part in node.name for part in ("box_head", "suppression"))


def _values(node: onnx.NodeProto) -> Iterator[tuple[int, str]]:
    """Yield index and name of the inputs that have the type of the output."""
    inputs = list(enumerate(node.input))
    yield from ((index, name) for index, name in (inputs if node.op_type in _ALL_INPUTS else inputs[:1]) if name)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=kind)
