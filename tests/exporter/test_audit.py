"""What the audit accepts and rejects, on graphs of a few nodes."""

import itertools

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.convert.audit import audit, cuda_kernels, nodes_without_cuda_kernel
from export.errors import ConversionError


def model_of(text, opset=17, domains=""):
    """Parse a model from ONNX's text form of a graph."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{domains}]> {text}')


SOUND = """g (float[N, 3] x) => (float[N, 3] y, float[3, N] t) <float two = {2.0}> {
    y = Mul(x, two)
    a = Relu(y)
    t = Transpose <perm = [1, 0]> (a)
}"""


@pytest.mark.parametrize("opset", [17, 18])
def test_sound_graph_passes_and_is_counted(opset):
    facts = audit(model_of(SOUND, opset), opset)
    assert facts.nodes == 3
    assert facts.operators == {"Mul": 1, "Relu": 1, "Transpose": 1}
    assert facts._asdict() == {"nodes": 3, "operators": facts.operators}


IF = """g (bool c, float[N] x) => (float[N] y) {
    y = If (c) <
        then_branch = t () => (float[N] a) { a = Identity(x) },
        else_branch = e () => (float[N] b) { b = Neg(x) }
    >
}"""
LOOP = """g (int64 n, bool c, float[3] x) => (float[3] y) {
    y = Loop (n, c, x) <
        body = b (int64 i, bool go, float[3] v) => (bool on, float[3] w) { on = Identity(go) w = Add(v, v) }
    >
}"""
SCAN = """g (float[2] s, float[5, 2] x) => (float[2] last, float[5, 2] y) {
    last, y = Scan <num_scan_inputs = 1,
        body = b (float[2] v, float[2] w) => (float[2] a, float[2] c) { a = Add(v, w) c = Identity(a) }
    > (s, x)
}"""


@pytest.mark.parametrize(("text", "operator"), [(IF, "If"), (LOOP, "Loop"), (SCAN, "Scan")], ids=["If", "Loop", "Scan"])
def test_control_flow_is_refused(text, operator):
    model = model_of(text)
    onnx.checker.check_model(model)  # nothing else is wrong with it
    with pytest.raises(ConversionError, match=f"1 {operator} nodes: no control flow"):
        audit(model, 17)


def test_custom_domain_is_refused():
    model = model_of("g (float[N] x) => (float[N] y) { y = com.microsoft.Gelu(x) }", domains=', "com.microsoft": 1')
    with pytest.raises(ConversionError, match=r"domain 'com\.microsoft'"):
        audit(model, 17)


@pytest.mark.parametrize("operator", ["CropAndResize", "CombinedNonMaxSuppression", "Relux"])
def test_unknown_operator_is_refused(operator):
    with pytest.raises(ConversionError, match=f"{operator} is not an ONNX operator of opset 17"):
        audit(model_of(f"g (float[N] x) => (float[N] y) {{ y = {operator}(x) }}"), 17)


def test_operator_of_a_later_opset_is_refused():
    model = model_of("g (float[N] x) => (float[N] y) { y = Mish(x) }")  # since 18
    with pytest.raises(ConversionError, match="Mish is not an ONNX operator of opset 17"):
        audit(model, 17)


WITHOUT_KERNEL = {
    "GatherND (int32)": "g (int32[4, 3] x, int64[2, 1] i) => (int32[2, 3] y) { y = GatherND(x, i) }",
    "Pad (int64)": "g (int64[N] x, int64[2] p) => (int64[M] y) { y = Pad(x, p) }",
    "Relu (int32)": "g (int32[N] x) => (int32[N] y) { y = Relu(x) }",
    "Clip (int32)": "g (int32[N] x, int32 low, int32 high) => (int32[N] y) { y = Clip(x, low, high) }",
}


@pytest.mark.parametrize("named", WITHOUT_KERNEL)
def test_operator_without_cuda_kernel_is_refused(named):
    model = model_of(WITHOUT_KERNEL[named])
    onnx.checker.check_model(model, full_check=True)  # nothing else is wrong with it
    assert nodes_without_cuda_kernel(onnx.shape_inference.infer_shapes(model), 17) == [named]
    with pytest.raises(ConversionError) as refused:
        audit(model, 17)
    assert str(refused.value).startswith(f"ONNX Runtime has no CUDA kernel at opset 17 for {named}: ")


def test_all_operators_without_kernel_are_named():
    text = """g (int32[4, 3] x, int64[2, 1] i) => (int32[2, 3] y, int32[4, 3] z) {
        y = GatherND(x, i)
        z = Relu(x)
    }"""
    with pytest.raises(ConversionError, match=r"no CUDA kernel at opset 17 for GatherND \(int32\), Relu \(int32\): "):
        audit(model_of(text), 17)


def test_type_of_where_is_not_its_conditions():
    # Where has a kernel for float but none for bool.
    assert audit(model_of("g (bool[N] c, float[N] x) => (float[N] y) { y = Where(c, x, x) }"), 17).nodes == 1
    with pytest.raises(ConversionError, match=r"Where \(bool\)"):
        audit(model_of("g (bool[N] c, bool[N] x) => (bool[N] y) { y = Where(c, x, x) }"), 17)


@pytest.mark.parametrize("operator", ["EyeLike", "RandomNormalLike", "Shrink"])
def test_operator_that_a_predictor_refuses(operator):
    with pytest.raises(ConversionError, match=f"{operator} is not among the operators that a predictor runs"):
        audit(model_of(f"g (float[N, 3] x) => (float[N, 3] y) {{ y = {operator}(x) }}"), 17)


def test_shape_computations_need_no_kernel():
    text = """g (float[H, W] x) => (float[M, N] y, float[A, B] z) <int64[2] zeros = {0, 0}> {
        sides = Shape(x)
        pads = Pad(sides, zeros)
        y = Expand(x, pads)
        z = Expand(x, sides)
    }"""
    model = model_of(text)
    assert audit(model, 17).operators["Pad"] == 1
    # The same padding of values that come from the data is rejected.
    data = model_of("g (float[H, W] x) => (int64[M] y) { n = Cast<to = 7>(x) f = Reshape(n, s) y = Pad(f, p) }")
    for name, values in (("s", [-1]), ("p", [0, 0])):
        data.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    with pytest.raises(ConversionError, match=r"no CUDA kernel at opset 17 for Pad \(int64\): "):
        audit(data, 17)


def test_external_data_is_refused(tmp_path):
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert audit(model, 17).nodes == 1
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save(model, tmp_path / "model.onnx")
    outside = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    with pytest.raises(ConversionError, match="weights in other files"):
        audit(outside, 17)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2] x) => (float[3] y) { y = Relu(x) }",
        "g (float[2] x) => (float[2] y) { y = Relu(nowhere) }",
        "g (float[2] x, int64[2] i) => (float[2] y) { y = Add(x, i) }",
        "g (float[2] x) => (float[2] y) { y = Relu <alpha = 1.0> (x) }",
    ],
    ids=["wrong shape", "dangling input", "mixed types", "unknown attribute"],
)
def test_graph_that_the_checker_refuses(text):
    with pytest.raises(ConversionError, match="the ONNX checker rejects the graph") as refused:
        audit(model_of(text), 17)
    assert "\n" not in str(refused.value)


def test_kernel_table_is_sane():
    table = cuda_kernels()
    assert {"RoiAlign", "NonMaxSuppression", "Conv", "TopK", "Resize", "ScatterND"} <= table.keys()
    for operator, kernels in table.items():
        for first, last, kinds in kernels:
            assert first >= 1, operator
            assert last is None or last >= first, operator
            assert kinds, operator
        closed = sorted((first, last) for first, last, _ in kernels if last is not None)
        for (_, end), (start, _) in itertools.pairwise(closed):
            assert end < start, f"{operator}: ranges overlap"
    assert all("float" in kinds for *_, kinds in table["Conv"])
    assert not any("int32" in kinds for *_, kinds in table["GatherND"])


@pytest.mark.parametrize(
    ("text", "opset", "served"),
    [
        ("g (float[N] x) => (float[M] y) { y = Pad(x, p) }", 17, True),
        ("g (float[N] x) => (float[M] y) { y = Pad(x, p) }", 18, True),
        ("g (float[1, 1, H, W] x) => (float[1, 1, H, W] y) { y = Conv(x, w) }", 17, True),
        ("g (float[1, 1, H, W] x) => (float[1, 1, H, W] y) { y = Conv(x, w) }", 22, False),
    ],
    ids=["Pad 17", "Pad 18", "Conv 17", "Conv 22"],
)
def test_kernel_must_serve_the_operators_version(text, opset, served):
    model = model_of(text, opset)
    for name, value in (("p", np.zeros(2, np.int64)), ("w", np.ones((1, 1, 1, 1), np.float32))):
        if name in model.graph.node[0].input:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    if served:
        assert audit(model, opset).nodes == 1
    else:
        with pytest.raises(ConversionError, match=r"no CUDA kernel at opset 22 for .*Conv \(float\)"):
            audit(model, opset)
