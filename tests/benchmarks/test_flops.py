"""Counted operations of graphs small enough to count by hand."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.flops import count_flops


def model(node, inputs, weights):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    constants = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one node", values, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("operator", "attributes", "data", "weights", "expected"),
    [
        # 5 x 3 outputs of 4 channels, each a dot product of 2 * 3 * 3 values.
        ("Conv", {"pads": [1, 1, 1, 1]}, (1, 2, 5, 3), (4, 2, 3, 3), 2 * 4 * 15 * 18),
        ("Conv", {"strides": [2, 2]}, (3, 2, 5, 7), (4, 2, 1, 1), 2 * 3 * 4 * 12 * 2),
        # Two groups: each output sees 3 of the 6 channels.
        ("Conv", {"group": 2}, (1, 6, 4, 4), (8, 3, 1, 1), 2 * 8 * 16 * 3),
        # Each of 3 * 4 * 5 inputs is spread over 2 channels of 2 x 2.
        ("ConvTranspose", {"strides": [2, 2]}, (1, 3, 4, 5), (3, 2, 2, 2), 2 * 60 * 8),
        ("Gemm", {}, (7, 3), (3, 5), 2 * 7 * 5 * 3),
        ("Gemm", {"transB": 1}, (7, 3), (5, 3), 2 * 7 * 5 * 3),
        ("Gemm", {"transA": 1}, (3, 7), (3, 5), 2 * 7 * 5 * 3),
        ("MatMul", {}, (2, 7, 3), (3, 5), 2 * 2 * 7 * 5 * 3),
        ("Conv", {}, (0, 2, 5, 3), (4, 2, 3, 3), 0),
    ],
)
def test_one_node(operator, attributes, data, weights, expected):
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    graph = model(node, {"x": data}, {"w": weights})
    assert count_flops(graph, {"x": np.zeros(data, np.float32)}) == {operator: expected}


@pytest.mark.parametrize("rows", [0, 1, 6])
def test_rows_of_the_run_count(rows):
    graph = model(helper.make_node("MatMul", ["x", "w"], ["y"]), {"x": ["rows", 3]}, {"w": (3, 5)})
    assert count_flops(graph, {"x": np.zeros((rows, 3), np.float32)}) == {"MatMul": 2 * rows * 5 * 3}


def test_other_operators_do_not_count():
    graph = model(helper.make_node("Add", ["x", "w"], ["y"]), {"x": (4,)}, {"w": (4,)})
    assert count_flops(graph, {"x": np.zeros(4, np.float32)}) == {}
