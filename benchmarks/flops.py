"""Floating point operations of an ONNX graph, counted where the work is: convolutions and matrix products.

A multiplication and an addition are two. Shapes are those of a run, so that what depends on the picture (proposals,
detections) counts as often as it was computed.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

Shape = Sequence[int]

_LOG_ERRORS = 3  # a severity of ONNX Runtime


def count_flops(model: onnx.ModelProto, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
    """Operations of one run by operator type, of the main graph, without what loops and branches do."""
    nodes = [node for node in model.graph.node if node.op_type in _COUNTED]
    shapes = shapes_in_run(model, {name for node in nodes for name in (*node.input[:2], node.output[0])}, feeds)
    total: Counter[str] = Counter()
    for node in nodes:
        first, second, result = (shapes[name] for name in (*node.input[:2], node.output[0]))
        total[node.op_type] += _COUNTED[node.op_type](node, first, second, result)
    return dict(total)


def shapes_in_run(
    model: onnx.ModelProto, tensors: set[str], feeds: Mapping[str, npt.NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """Shapes that tensors have in a run on the CPU."""
    if not tensors:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    names = sorted(tensors)
    for name in names:
        probe.graph.node.append(helper.make_node("Shape", [name], [f"shape of {name}"]))
        probe.graph.output.append(helper.make_tensor_value_info(f"shape of {name}", TensorProto.INT64, [None]))
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {key: np.asarray(array) for key, array in feeds.items()})
    return {name: tuple(int(side) for side in shape) for name, shape in zip(names, found, strict=True)}


def _convolution(_node: onnx.NodeProto, _data: Shape, weights: Shape, result: Shape) -> int:
    """Weights are [O, C / groups, ...]: each output value is a dot product over all axes but the first."""
    return 2 * math.prod(result) * math.prod(weights[1:])


def _transposed_convolution(_node: onnx.NodeProto, data: Shape, weights: Shape, _result: Shape) -> int:
    """Weights are [C, O / groups, ...]: each input value is spread over all axes but the first."""
    return 2 * math.prod(data) * math.prod(weights[1:])


def _product(node: onnx.NodeProto, first: Shape, _second: Shape, result: Shape) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * math.prod(result) * first[0 if transposed else -1]


_COUNTED = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _product,
    "MatMul": _product,
}
