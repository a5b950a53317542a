"""Weights and activations in half precision where the time goes; everything that decides stays in float32.

Half are convolutions, matrix products, and what lies between them. In float32 stay the two small products at the end of
the box head, softmax and sigmoid, boxes, scores, decoding, suppression, and ROIAlign: from 1024 on, half precision has
whole pixels only.

A CPU computes such a graph in float32: ONNX Runtime has no half kernels there, and takes the conversions between two
nodes away. So what half precision costs is judged on `emulate_half`, which rounds on purpose.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.convert.access import Constants, readers_of

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_ROUNDING = (*_PRODUCTS, "Add")
# They move or pick values, which are half already.
_MOVING = ("Relu", "MaxPool", "Resize", "Pad", "Transpose", "Reshape", "Concat", "DepthToSpace", "Squeeze", "Unsqueeze")
_ALL_INPUTS = (*_ROUNDING, "Concat")  # of the others, the first input has the values

_LARGEST = 65504.0
_OVERFLOW = 65520.0  # from here on, the nearest number is infinity
_HALF = "/half"  # ends the names of tensors in half precision


def to_half(model: onnx.ModelProto, in_float: Collection[str]) -> onnx.ModelProto:
    """A copy whose products are in half precision; its inputs and outputs stay as they are.

    A tensor `x` that is half is called `x/half`; where something in float32 reads it, there is `x` besides.

    Args:
        model: In float32.
        in_float: Names of nodes to be left in float32; those that `stays_in_float` names are, too.
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
                node.input[0] += _HALF  # reading a shape is no reason to convert values
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
    _replace_nodes(half, nodes)
    constants.drop_unread()
    return half


def borders_in(graph: onnx.ModelProto, borders: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Where border tensors of the float32 graph are after `to_half`; some have no value in float32 any more.

    Args:
        graph: From `to_half`, or the float32 graph itself.
        borders: By name, as artifacts have them: `tensor` and `permutation`.
    """
    tensors = {output for node in graph.graph.node for output in node.output}
    return {
        name: {**place, "tensor": place["tensor"] + ("" if place["tensor"] in tensors else _HALF)}
        for name, place in borders.items()
    }


def emulate_half(half: onnx.ModelProto) -> onnx.ModelProto:
    """A graph in float32 that computes what `to_half`'s does on a device with half kernels, rounding and overflow too.

    Products are added up in float32 and rounded once, as such devices do. Numbers below 6e-5, of which half precision
    keeps fewer than 11 bits, keep 11 here.
    """
    model = onnx.ModelProto()
    model.CopyFrom(half)
    constants = Constants(model)
    for tensor in list(model.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT16:
            value = constants.read(tensor.name)
            model.graph.initializer.remove(tensor)
            constants.add(tensor.name, value)
    # Veltkamp's split: x * c - (x * c - x) with c = 2^13 + 1 keeps the 11 leading bits of x, to the nearest.
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
    _replace_nodes(model, nodes)
    return model


def _round(name: str, split: str, overflow: str, infinity: str) -> list[onnx.NodeProto]:
    """From `name/exact` to `name`: 11 bits, and infinity beyond the largest number."""
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
    """Names of the products, and of the nodes that only read what is half."""
    chosen: set[str] = set()
    half: set[str] = set()
    for node in model.graph.node:  # sorted: what a node reads was decided before it
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
    """Whether a node is one of the box head's last two products: a thousandth of the work, and what decides most."""
    return node.op_type == "MatMul" and "box_head" in node.name


def _values(node: onnx.NodeProto) -> Iterator[tuple[int, str]]:
    """Place and name of the inputs that have the type of the output."""
    inputs = list(enumerate(node.input))
    yield from ((index, name) for index, name in (inputs if node.op_type in _ALL_INPUTS else inputs[:1]) if name)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=kind)


def _replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
