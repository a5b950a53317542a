"""Half precision: which nodes it covers, that nothing else changes, and that the emulation rounds as it does."""

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from export.precision.half import emulate_half, to_half

SMALL = """g (float[1, 1, H, W] x) => (float[1, 1, H, W] y, float[1, 1, H, W] z, int64[4] sides)
<float[1, 1, 1, 1] v = {1000.0}, float[1, 1, 1, 1] w = {0.001}> {
    [first] a = Conv(x, v)
    [relu] b = Relu(a)
    [second] c = Conv(b, w)
    [sum] d = Add(c, b)
    [shape] sides = Shape(c)
    [soft] y = Sigmoid(d)
    [third] z = Conv(d, w)
}"""


@pytest.fixture
def small():
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {SMALL}')
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, **feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def types_of(model):
    """Element types of all tensors."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}


def half(values):
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


def by_hand(x):
    """The small network in half precision, rounding after every product and sum."""
    v, w = half(1000.0), half(0.001)
    b = np.maximum(half(half(x) * v), 0)
    d = half(half(b * w) + b)
    return d, half(d * w)


def picture(low, high, shape=(5, 7)):
    return np.random.default_rng(0).uniform(low, high, (1, 1, *shape)).astype(np.float32)


def test_what_is_half_and_what_is_not(small):
    model = to_half(small, [])
    types = types_of(model)
    assert {name for name, kind in types.items() if kind == TensorProto.FLOAT16} == {
        f"{name}/half" for name in "xabcdz"
    }
    # d leaves for the sigmoid and z for the caller; the shape is read off the tensor in half precision
    assert {name for name, kind in types.items() if kind == TensorProto.FLOAT} == {"x", "d", "y", "z"}
    assert next(node for node in model.graph.node if node.name == "shape").input[0] == "c/half"
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert {name: value.dtype for name, value in weights.items()} == {"v/half": np.float16, "w/half": np.float16}
    assert small.graph.node[0].input[1] == "v"  # the model given is left alone


def test_a_node_left_in_float_gets_and_gives_float(small):
    model = to_half(small, ["second"])
    types = types_of(model)
    halves = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    assert halves == {
        f"{name}/half" for name in "xabdz"
    }  # d before the third product: its sum with c is not in half precision
    assert types["c"] == TensorProto.FLOAT
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert weights == {"v/half": TensorProto.FLOAT16, "w/half": TensorProto.FLOAT16, "w": TensorProto.FLOAT}


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0.01, 0.02), (-60, 60), (0, 0), (60, 65)])
def test_the_emulation_rounds_as_half_precision_does(small, low, high):
    x = picture(low, high)
    y, z, sides = run(emulate_half(to_half(small, [])), x=x)
    d, expected = by_hand(x)
    assert np.array_equal(z, expected)
    assert np.allclose(y, 1 / (1 + np.exp(-d.astype(np.float64))), atol=1e-6)
    assert sides.tolist() == [1, 1, 5, 7]


def test_the_emulation_overflows_as_half_precision_does(small):
    """65504 is the largest number; slightly more becomes infinite and stays so. 65.5 overflows only in the sum."""
    x = np.float32([[[[65.0, 65.5, 65.56, 66.0, 1e30, -70.0]]]])
    _, z, _ = run(emulate_half(to_half(small, [])), x=x)
    assert np.array_equal(z, by_hand(x)[1])
    assert np.isinf(z[0, 0, 0]).tolist() == [False, True, True, True, True, False]


def test_a_cpu_hides_that(small):
    """Why there is an emulation: on a CPU, the same graph does not overflow between two nodes."""
    z = run(to_half(small, ["sum", "third"]), x=np.float32([[[[70.0]]]]))[1]
    assert np.isfinite(z).all()


@pytest.mark.parametrize("value", [65504, 65519, 65520, 1e38, -65519, -65520, 2**-14, 1 + 2**-11, 1 + 3 * 2**-11])
def test_numbers_at_the_edges(value):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 1, 1, 1] x) => (float[1, 1, 1, 1] y)'
        "<float[1, 1, 1, 1] w = {1.0}> { [conv] y = Conv(x, w) }"
    )
    x = np.float32(value).reshape(1, 1, 1, 1)
    assert np.array_equal(run(emulate_half(to_half(model, [])), x=x)[0], half(x))


def test_weights_too_large_become_the_largest():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2, 1, 1] x) => (float[1, 1, 1, 1] y)'
        "<float[1, 2, 1, 1] w = {1e6, -1e6}> { [conv] y = Conv(x, w) }"
    )
    (weights,) = to_half(model, []).graph.initializer
    assert numpy_helper.to_array(weights).ravel().tolist() == [65504, -65504]


def test_the_demo_in_half(onnx_artifact):
    whole = onnx.load(onnx_artifact)
    model = to_half(whole, [])
    types, nodes = types_of(model), model.graph.node
    kinds = {node.name: types.get(node.output[0]) for node in nodes}
    products = [node for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    in_float = {node.name for node in products if kinds[node.name] == TensorProto.FLOAT}
    assert len(products) > 40
    assert len(in_float) == 2
    assert all("mrcnn_class_logits" in name or "mrcnn_bbox_fc" in name for name in in_float)
    deciding = ("RoiAlign", "Softmax", "Sigmoid", "NonMaxSuppression", "TopK", "Exp", "Log", "Div", "Sqrt")
    assert all(kinds[node.name] != TensorProto.FLOAT16 for node in nodes if node.op_type in deciding)
    outputs = [
        [(value.name, value.type.tensor_type.elem_type) for value in each.graph.output] for each in (whole, model)
    ]
    assert outputs[0] == outputs[1]
    casts = [node for node in nodes if node.op_type == "Cast" and "/half" in node.name]
    assert len(casts) <= 5  # into half: the picture and two kinds of crops, and the mask head's chosen weights
