"""Rewrite rules: another graph with the same result, and no change where a rule does not apply."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.convert.rewrites import (
    fold_batch_norms,
    fold_paddings,
    pick_class_before_spreading,
    rewrite,
    turn_deconvolutions_into_convolutions,
    turn_whole_convolutions_into_gemm,
)

RNG = np.random.default_rng(5)


def values(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def model(nodes, constants, shape, outputs=("y",)):
    """A graph of `nodes` over the input x of `shape` (None is dynamic)."""
    axes = [f"d{i}" if side is None else side for i, side in enumerate(shape)]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{i}" for i in range(4)]) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def operators(each):
    return [node.op_type for node in each.graph.node]


def run(each, x):
    onnx.checker.check_model(each, full_check=True)
    session = ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def assert_same_result(before, after, x):
    for ours, theirs in zip(run(after, x), run(before, x), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-5)


def copy(each):
    return onnx.ModelProto.FromString(each.SerializeToString())


def normalised(bias=True, **attributes):
    """Convolution, factor, offset, ReLU."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["c"], **attributes),
        helper.make_node("Mul", ["c", "gamma"], ["m"]),
        helper.make_node("Add", ["beta", "m"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    constants = {"w": values(6, 3, 3, 3), "gamma": values(1, 6, 1, 1), "beta": values(1, 6, 1, 1)}
    return nodes, constants | ({"b": values(6)} if bias else {})


AROUND = (0, 0, 1, 1, 0, 0, 1, 1)


def padded(operator="MaxPool", before="Relu", widths=AROUND, value=0.0, mode="constant", outputs=("y",), **attributes):
    """An operator, padding, and a pooling."""
    inputs = ["r", "widths", "value"] if mode == "constant" else ["r", "widths"]
    nodes = [
        helper.make_node(before, ["x"], ["r"]),
        helper.make_node("Pad", inputs, ["p"], mode=mode),
        helper.make_node(operator, ["p"], ["y"], **{"kernel_shape": [3, 3], "strides": [2, 2]} | attributes),
    ]
    constants = {"widths": np.array(widths, np.int64), "value": np.float32(value)}
    return model(nodes, constants if mode == "constant" else {"widths": constants["widths"]}, (1, 3, 7, 8), outputs)


@pytest.mark.parametrize("attributes", [{}, {"auto_pad": "VALID"}, {"strides": [1, 1]}])
def test_zeros_around_a_relu_become_the_padding_of_its_pooling(attributes):
    before = padded(**attributes)
    after = copy(before)
    fold_paddings(after, set())
    assert operators(after) == ["Relu", "MaxPool"]
    assert [tensor.name for tensor in after.graph.initializer] == []
    assert_same_result(before, after, values(1, 3, 7, 8) - 1.5)  # many windows of zeros


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"operator": "AveragePool"}, ()),
        ({"before": "Neg"}, ()),  # a window of negative values at the edge would lose its zero
        ({"widths": (0, 0, 0, 0, 0, 0, 1, 1)}, ()),
        ({"widths": (0, 1, 1, 1, 0, 1, 1, 1)}, ()),
        ({"widths": (0, 0, 3, 3, 0, 0, 3, 3)}, ()),  # whole windows of padding
        ({"value": 0.5}, ()),
        ({"mode": "edge"}, ()),
        ({"ceil_mode": 1}, ()),
        ({"auto_pad": "SAME_UPPER"}, ()),
        ({"pads": [1, 1, 1, 1]}, ()),
        ({"outputs": ("y", "p")}, ()),
        ({}, ("p",)),
    ],
)
def test_other_padding_stays(changes, kept):
    before = padded(**changes)
    after = copy(before)
    fold_paddings(after, set(kept))
    assert after == before


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attributes", [{}, {"pads": [1, 1, 1, 1], "strides": [2, 2]}])
def test_a_normalisation_goes_into_the_weights(bias, attributes):
    before = model(*normalised(bias, **attributes), (None, 3, 9, 7))
    after = copy(before)
    fold_batch_norms(after, set())
    assert operators(after) == ["Conv", "Relu"]
    assert len(after.graph.initializer) == 2
    assert_same_result(before, after, values(2, 3, 9, 7))


def test_a_tensor_that_must_stay_stays():
    before = model(*normalised(), (None, 3, 9, 7), outputs=("y", "c"))
    kept_by_name = copy(before)
    fold_batch_norms(kept_by_name, {"c"})
    read_from_outside = copy(before)
    fold_batch_norms(read_from_outside, set())
    for each in (kept_by_name, read_from_outside):
        assert operators(each) == ["Conv", "Mul", "Add", "Relu"]
        assert_same_result(before, each, values(1, 3, 9, 7))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 6, 1, 5), (1, 6, 7, 5), (6, 1, 1, 1)])
def test_what_is_no_factor_per_channel_is_left_alone(shape):
    nodes, constants = normalised()
    constants["gamma"] = values(*shape)
    before = model(nodes, constants, (6, 3, 9, 7))
    after = copy(before)
    fold_batch_norms(after, set())
    assert operators(after) == ["Conv", "Mul", "Add", "Relu"]
    assert_same_result(before, after, values(6, 3, 9, 7))


def test_a_convolution_with_two_readers_is_left_alone():
    nodes, constants = normalised()
    nodes.append(helper.make_node("Sigmoid", ["c"], ["z"]))
    before = model(nodes, constants, (1, 3, 9, 7), outputs=("y", "z"))
    after = copy(before)
    fold_batch_norms(after, set())
    assert operators(after) == operators(before)


def test_weights_that_two_convolutions_share_keep_their_values():
    nodes, constants = normalised()
    nodes.append(helper.make_node("Conv", ["x", "w"], ["z"]))
    before = model(nodes, constants, (1, 3, 9, 7), outputs=("y", "z"))
    after = copy(before)
    fold_batch_norms(after, set())
    assert operators(after) == ["Conv", "Relu", "Conv"]
    assert_same_result(before, after, values(1, 3, 9, 7))


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_a_kernel_over_the_whole_input_is_a_product(bias, batch):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    constants = {"w": values(8, 3, 7, 5), "v": values(4, 8, 1, 1)} | ({"b": values(8)} if bias else {})
    before = model(nodes, constants, (None, 3, 7, 5))
    after = copy(before)
    turn_whole_convolutions_into_gemm(after)
    assert operators(after) == ["Reshape", "Gemm", "Reshape", "Relu", "Reshape", "Gemm", "Reshape"]
    if batch:
        assert_same_result(before, after, values(batch, 3, 7, 5))
    else:
        assert run(after, values(0, 3, 7, 5))[0].shape == (0, 4, 1, 1)


@pytest.mark.parametrize(
    ("attributes", "weights", "shape"),
    [
        ({"pads": [1, 1, 1, 1]}, (8, 3, 7, 5), (None, 3, 7, 5)),
        ({"auto_pad": "SAME_UPPER"}, (8, 3, 7, 5), (None, 3, 7, 5)),
        ({"group": 3}, (9, 1, 7, 5), (None, 3, 7, 5)),
        ({}, (8, 3, 3, 3), (None, 3, 7, 5)),
        ({}, (8, 3, 7, 5), (None, 3, None, None)),
    ],
)
def test_other_convolutions_stay(attributes, weights, shape):
    before = model([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], {"w": values(*weights)}, shape)
    after = copy(before)
    turn_whole_convolutions_into_gemm(after)
    assert operators(after) == ["Conv"]
    assert_same_result(before, after, values(2, 3, 7, 5))


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_deconvolution_without_overlap_is_a_convolution(bias, side):
    node = helper.make_node("ConvTranspose", ["x", "w", "b"] if bias else ["x", "w"], ["y"], strides=[side, side])
    constants = {"w": values(5, 4, side, side)} | ({"b": values(4)} if bias else {})
    before = model([node], constants, (None, 5, 6, 3))
    after = copy(before)
    turn_deconvolutions_into_convolutions(after)
    assert operators(after) == ["Conv", "DepthToSpace"]
    assert_same_result(before, after, values(3, 5, 6, 3))


@pytest.mark.parametrize(
    ("attributes", "weights"),
    [
        ({"strides": [2, 2]}, (4, 5, 3, 3)),
        ({"strides": [2, 1]}, (4, 5, 2, 2)),
        ({"strides": [2, 2]}, (4, 5, 2, 3)),
        ({"strides": [2, 2], "pads": [1, 1, 1, 1]}, (4, 5, 2, 2)),
        ({"strides": [2, 2], "output_padding": [1, 1]}, (4, 5, 2, 2)),
        ({"strides": [2, 2], "group": 2}, (4, 5, 2, 2)),
    ],
)
def test_other_deconvolutions_stay(attributes, weights):
    before = model(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)], {"w": values(*weights)}, (1, 4, 6, 3)
    )
    after = copy(before)
    turn_deconvolutions_into_convolutions(after)
    assert operators(after) == ["ConvTranspose"]


def choosing(bias=True, mode="CRD", batch_dims=1, side=2):
    """Spread, ReLU, one map for each of 5 classes, sigmoid, choice."""
    nodes = [
        helper.make_node("DepthToSpace", ["x"], ["s"], blocksize=side, mode=mode),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Conv", ["r", "w", "b"] if bias else ["r", "w"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["p"]),
        helper.make_node("GatherND", ["p", "classes"], ["g"], batch_dims=batch_dims),
        helper.make_node("Unsqueeze", ["g", "axis"], ["y"]),
    ]
    classes = np.array([[4], [0], [2]]) if batch_dims else np.array([[0, 4], [1, 0], [2, 2]])
    constants = {"w": values(5, 3, 1, 1), "axis": np.array([1]), "classes": classes}
    return model(nodes, constants | ({"b": values(5)} if bias else {}), (None, 3 * side * side, 4, 6))


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_only_the_chosen_class_is_computed(bias, side):
    before = choosing(bias, side=side)
    after = copy(before)
    pick_class_before_spreading(after)
    assert "Conv" not in operators(after)
    assert operators(after).index("MatMul") < operators(after).index("DepthToSpace")
    assert_same_result(before, after, values(3, 3 * side * side, 4, 6))


@pytest.mark.parametrize("changes", [{"mode": "DCR"}, {"batch_dims": 0}])
def test_other_choices_stay(changes):
    before = choosing(**changes)
    after = copy(before)
    pick_class_before_spreading(after)
    assert operators(after) == operators(before)


def test_a_choice_whose_maps_are_read_elsewhere_stays():
    before = choosing()
    before.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [f"c{i}" for i in range(4)]))
    after = copy(before)
    pick_class_before_spreading(after)
    assert operators(after) == operators(before)


def test_both_rules_in_a_row_make_of_a_normalised_layer_one_product():
    nodes, constants = normalised()
    before = model(nodes, constants, (None, 3, 3, 3))
    after = copy(before)
    rewrite(after, [])
    assert operators(after) == ["Reshape", "Gemm", "Reshape", "Relu"]
    assert_same_result(before, after, values(4, 3, 3, 3))


def test_the_demos_graph_has_none_of_what_the_rules_replace(onnx_artifact):
    graph = onnx.load(onnx_artifact).graph
    assert sum(node.op_type == "Gemm" for node in graph.node) == 2
    assert not any(node.op_type == "ConvTranspose" for node in graph.node)
    (spread,) = (node for node in graph.node if node.op_type == "DepthToSpace")
    assert any(node.op_type == "Squeeze" and spread.output[0] in node.input for node in graph.node)
    outputs = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Mul", "Add"):
            sources = [outputs[name].op_type for name in node.input if name in outputs]
            channels = [constants[name].shape for name in node.input if name in constants]
            assert not ("Conv" in sources and any(len(shape) == 4 for shape in channels)), node.name
