"""bfloat16 in OpenVINO: products are computed in it, and nothing that decides or places; who refuses to do so."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime import EngineOptions, Predictor, read_metadata
from runtime.artifact import GRAPH_SHA256
from runtime.artifact_files.read import graph_digest, judgement_path, require_judged
from runtime.errors import ArtifactVerdictError, DeviceError

library = pytest.importorskip(
    "runtime.engines.openvino.library", reason="openvino is not installed", exc_type=ImportError
)
from runtime.engines.openvino import devices  # noqa: E402
from runtime.engines.openvino.bfloat16 import compute_in_bfloat16  # noqa: E402
from runtime.engines.openvino.read import read_model  # noqa: E402

BF16 = EngineOptions(precision="bf16")
CAPABILITIES = library.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bfloat16 = pytest.mark.skipif("BF16" not in CAPABILITIES, reason="the processor has no bfloat16")
ops = library.openvino.opset13
bf16, f32, i64 = library.openvino.Type.bf16, library.openvino.Type.f32, library.openvino.Type.i64
generator = np.random.default_rng(0)


@pytest.fixture(scope="module")
def demo_onnx(pytestconfig):
    """The packaged artifact of the demo model."""
    return pytestconfig.rootpath / "maskrcnn" / "demo.onnx"


def weights(*shape):
    return ops.constant(generator.normal(size=shape).astype(np.float32))


def convolution(value, outputs=4, inputs=4):
    return ops.convolution(value, weights(outputs, inputs, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])


def features():
    return ops.parameter([1, 4, 16, 16], f32)


def lowered(results, parameters):
    """A model after the change, its types by operator, and the model's outputs."""
    model = library.openvino.Model(list(results), list(parameters))
    compute_in_bfloat16(model)
    assert {port.get_element_type() for port in model.inputs} <= {f32, i64}
    assert {port.get_element_type() for port in model.outputs} == {f32}
    found = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() not in ("Constant", "Parameter", "Result", "Convert"):
            found.setdefault(node.get_type_name(), []).append(node.get_output_element_type(0))
    return found


def test_the_demo_model_keeps_its_inputs_and_outputs_and_decides_in_float32(demo_onnx):
    model = read_model(demo_onnx)
    kept = [(port.any_name, port.get_element_type()) for port in (*model.inputs, *model.outputs)]
    compute_in_bfloat16(model)
    assert [(port.any_name, port.get_element_type()) for port in (*model.inputs, *model.outputs)] == kept
    types = {}
    for node in model.get_ordered_ops():
        inputs = {port.get_element_type() for port in node.inputs()}
        types.setdefault(node.get_type_name(), set()).update(inputs - {i64})
    for name in ("Convolution", "MatMul", "Relu", "MaxPool"):
        assert types[name] == {bf16}, name
    decide = "ROIAlign Softmax Sigmoid TopK NonMaxSuppression Exp Divide Subtract Minimum Maximum Greater GreaterEqual"
    for name in decide.split():
        assert bf16 not in types[name], name


def test_what_stands_between_products_is_bfloat16_and_the_last_bias_is_float32():
    image = features()
    first = ops.relu(ops.add(convolution(image), weights(1, 4, 1, 1)))
    residual = ops.relu(ops.add(convolution(first), first))
    logits = ops.add(convolution(residual), weights(1, 4, 1, 1))
    found = lowered([ops.sigmoid(logits)], [image])
    assert found["Convolution"] == [bf16] * 3
    assert found["Relu"] == [bf16] * 2
    assert found["Add"] == [bf16, bf16, f32]
    assert found["Sigmoid"] == [f32]


def test_coordinates_stay_in_float32_also_where_they_come_from_a_product():
    """Deltas of a product place the boxes of the next product's crops."""
    image = features()
    trunk = ops.relu(convolution(image))
    pooled = ops.reduce_mean(trunk, np.array([2, 3]), keep_dims=False)
    deltas = ops.multiply(ops.matmul(pooled, weights(4, 4), False, False), np.float32(0.1))
    boxes = ops.clamp(ops.add(deltas, ops.constant(np.float32([[1, 1, 9, 9]]))), 0.0, 16.0)
    index = ops.constant(np.zeros(1, np.int64))
    crops = ops.roi_align(trunk, boxes, index, 7, 7, 2, 1.0, "avg")
    found = lowered([ops.sigmoid(convolution(crops))], [image])
    for name in ("Multiply", "Add", "Clamp", "ROIAlign", "ReduceMean", "Sigmoid"):
        assert set(found[name]) == {f32}, name
    assert found["Convolution"] == [bf16] * 2
    assert found["MatMul"] == [bf16]


def test_crops_made_of_gathers_are_interpolated_in_float32():
    """As ROIAlign with adaptive sampling is written: corners are moved in bfloat16, and weighed in float32."""
    image, cells, shares = features(), ops.parameter([8], i64), ops.parameter([8, 1], f32)
    flat = ops.reshape(ops.transpose(convolution(image), np.array([0, 2, 3, 1])), np.array([-1, 4]), False)
    corners = ops.gather(flat, cells, np.int64(0))
    found = lowered([ops.matmul(ops.multiply(corners, shares), weights(4, 3), False, False)], [image, cells, shares])
    assert (found["Gather"], found["Multiply"], found["MatMul"]) == ([bf16], [f32], [bf16])


def test_a_product_of_two_computed_tensors_is_float32():
    """Such as crops by two matrices of interpolation; the weights of one class, gathered, are still weights."""
    image, rows, chosen = features(), ops.parameter([1, 4, 7, 16], f32), ops.parameter([1], i64)
    crops = ops.matmul(rows, convolution(image), False, False)
    of_class = ops.gather(weights(3, 16, 5), chosen, np.int64(0))
    found = lowered([ops.matmul(crops, of_class, False, False)], [image, rows, chosen])
    assert found["MatMul"] == [f32, bf16]


@pytest.mark.parametrize(("filler", "expected"), [(0.0, bf16), (-np.finfo(np.float32).max, f32)])
def test_only_zeros_are_padded_in_bfloat16(filler, expected):
    """The lowest float32 becomes infinite in bfloat16."""
    image = features()
    padded = ops.pad(convolution(image), np.int64([0] * 4), np.int64([0, 0, 1, 1]), "constant", np.float32(filler))
    assert lowered([ops.sigmoid(padded)], [image])["Pad"] == [expected]


def test_a_product_that_is_an_output_keeps_its_name():
    image = features()
    product = convolution(image)
    product.output(0).set_names({"raw"})
    model = library.openvino.Model([product, ops.relu(product)], [image])
    compute_in_bfloat16(model)
    assert model.outputs[0].any_name == "raw"
    assert [port.get_element_type() for port in model.outputs] == [f32, f32]


def test_a_product_that_is_two_outputs_keeps_its_name():
    image = features()
    product = convolution(image)
    product.output(0).set_names({"raw"})
    model = library.openvino.Model([ops.result(product), ops.result(product), ops.result(ops.relu(product))], [image])
    compute_in_bfloat16(model)
    assert [port.names for port in model.outputs[:2]] == [{"raw"}] * 2
    assert [port.get_element_type() for port in model.outputs] == [f32] * 3


def added(addend, shape):
    """A convolution to 4 channels, 4 wide, plus a constant behind a Reshape, as OpenVINO reads it; and as it is."""
    shapes = {"x": [1, 2, 4, 4]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in shapes.items()]
    kernel = generator.normal(size=(4, 2, 1, 1)).astype(np.float32)
    values = {"kernel": kernel, "addend": addend, "shape": np.int64(shape)}
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["y"]),
        helper.make_node("Reshape", ["addend", "shape"], ["b"]),
        helper.make_node("Add", ["y", "b"], ["z"]),
    ]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    initial = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    read = read_model(model.SerializeToString())
    (add,) = (node for node in read.get_ops() if node.get_type_name() == "Add")
    image = generator.normal(size=shapes["x"]).astype(np.float32)
    compiled = library.core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = np.einsum("oc,nchw->nohw", kernel[:, :, 0, 0], image) + addend.reshape(shape)
    kinds = {value.get_node().get_type_name() for value in add.input_values()}
    return kinds, np.abs(compiled({"x": image})[0] - expected).max()


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ([1, 4, 1, 1], "Constant"),
        ([1, 1, 1, 4], "Reshape"),
        ([1, 1, 4, 1], "Reshape"),
        ([4, 1, 1, 1], "Reshape"),
    ],
)
def test_only_one_number_for_each_channel_is_a_bias(shape, kind):
    kinds, difference = added(np.float32([10, 20, 30, 40]), shape)
    assert kinds == {"Convolution", kind}
    assert difference < 1e-4


def test_a_bias_that_levels_share_is_read_as_one_of_each(demo_onnx):
    """OpenVINO adds a shared one in a pass of its own over the feature map."""
    sources = [
        value.get_node().get_name()
        for node in read_model(demo_onnx).get_ops()
        if node.get_type_name() == "Add" and node.input_value(0).get_node().get_type_name() == "Convolution"
        for value in (node.input_value(1),)
        if value.get_node().get_type_name() in ("Constant", "Reshape")
    ]
    assert len(sources) == len(set(sources)) > 40


@needs_bfloat16
def test_the_processor_computes_products_in_bfloat16_and_the_rest_in_float32(demo_onnx):
    model = read_model(demo_onnx)
    compute_in_bfloat16(model)
    compiled = library.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ran = {}
    for node in compiled.get_runtime_model().get_ops():
        facts = {name: node.get_rt_info()[name].astype(str) for name in ("layerType", "runtimePrecision")}
        ran.setdefault(facts["layerType"], set()).add(facts["runtimePrecision"])
    for name in ("Convolution", "FullyConnected", "MatMul"):
        assert ran[name] == {"bf16"}, name
    for name in ("ROIAlign", "Softmax"):
        assert ran[name] == {"f32"}, name


@needs_bfloat16
def test_detections_are_close_and_the_cache_keeps_both_precisions_apart(demo_onnx, picture, tmp_path):
    plain = EngineOptions(cache=tmp_path)
    expected = Predictor(demo_onnx, "openvino", engine=plain)(picture)
    options = EngineOptions(precision="bf16", cache=tmp_path)
    first, second = (Predictor(demo_onnx, "openvino", engine=options, require_verdict=False)(picture) for _ in "ab")
    assert (first.scores == second.scores).all()
    assert first.class_ids.tolist() == expected.class_ids.tolist()
    assert np.abs(first.boxes - expected.boxes).max() < 2
    assert 0 < np.abs(first.scores - expected.scores).max() < 0.02
    again = Predictor(demo_onnx, "openvino", engine=plain)(picture)
    assert (again.scores == expected.scores).all()


@needs_bfloat16
def test_stage_boundary_tensors_are_in_float32_outside(demo_onnx, picture):
    predictor = Predictor(demo_onnx, "openvino", engine=BF16, require_verdict=False)
    letterbox, prepared = predictor.prepare(picture)
    found = predictor.borders(prepared[None], np.array([letterbox.window], np.float32))
    assert {array.dtype for array in found.values()} <= {np.dtype(np.float32), np.dtype(np.int32)}
    lower_half = {name: (found[name].view(np.uint32) & 0xFFFF).any() for name in ("p2", "p5", "rpn_deltas", "scores")}
    assert lower_half == {"p2": False, "p5": False, "rpn_deltas": True, "scores": True}


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "tensorrt:1", "openvino:GPU", "openvino:NPU"])
@pytest.mark.parametrize("trusted", [True, False])
def test_other_devices_refuse_a_precision(demo_onnx, device, trusted):
    with pytest.raises(DeviceError, match=f"precision, which device '{device}' cannot honor: .* use 'openvino'"):
        Predictor(demo_onnx, device, engine=BF16, require_verdict=not trusted)


def test_a_processor_without_bfloat16_refuses(demo_onnx, monkeypatch):
    class Old:
        def get_property(self, device, name):
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8"]

    monkeypatch.setattr(devices, "core", Old)
    with pytest.raises(DeviceError, match=r"neither AVX-512 BF16 nor AMX \(OpenVINO finds FP32, INT8\): leave it out"):
        Predictor(demo_onnx, "openvino", engine=BF16)


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_only_float32_artifacts_can_be_computed_in_it(demo_onnx, precision):
    from runtime.engines.choose import open_backend

    metadata = replace(read_metadata(demo_onnx), precision=precision)
    with pytest.raises(DeviceError, match=f"precision, but the artifact is in {precision}"):
        open_backend(demo_onnx, metadata, "openvino", BF16)


@pytest.fixture
def judged(demo_onnx, tmp_path):
    """A copy of the artifact, with a judgement of which some values are changed; None leaves them out."""

    def write(**changes):
        path = tmp_path / "copy.onnx"
        path.write_bytes(demo_onnx.read_bytes())
        values = {"passed": True, "precision": "bf16", GRAPH_SHA256: graph_digest(path)} | changes
        text = json.dumps({name: value for name, value in values.items() if value is not None})
        judgement_path(path, "bf16").write_text(text)
        return path

    return write


def test_a_judgement_about_this_graph_is_accepted(judged):
    require_judged(judged(), "bf16")


def test_without_a_judgement_the_precision_is_refused(demo_onnx):
    with pytest.raises(ArtifactVerdictError, match=r"no demo.onnx.bf16.verdict.json beside it. Judge it with .* --p"):
        require_judged(demo_onnx, "bf16")


@pytest.mark.parametrize(
    "change",
    [
        {"passed": False},
        {"passed": "true"},
        {"passed": None},
        {"precision": "int8"},
        {GRAPH_SHA256: "0" * 64},
        {GRAPH_SHA256: None},
    ],
    ids=str,
)
def test_a_judgement_that_proves_nothing_is_refused(judged, change):
    with pytest.raises(ArtifactVerdictError, match="not proven to be accurate in bf16"):
        require_judged(judged(**change), "bf16")


@pytest.mark.parametrize("recorded", ["its own", "none"])
@pytest.mark.parametrize("judged_graph", ["its own", "another", "none"])
def test_an_artifact_that_is_not_read_is_compared_by_its_verdict(judged, monkeypatch, recorded, judged_graph):
    path = judged(**({} if judged_graph == "its own" else {GRAPH_SHA256: {"another": "0" * 64}.get(judged_graph)}))
    metadata = read_metadata(path, verify_digest=False)
    assert metadata.verdict[GRAPH_SHA256] == graph_digest(path)
    if recorded == "none":
        metadata = replace(metadata, verdict={"passed": True})
    monkeypatch.setattr("runtime.artifact_files.read.graph_digest", lambda _: pytest.fail("its bytes were read"))
    refused = recorded == "its own" and judged_graph != "its own"
    expected = pytest.raises(ArtifactVerdictError, match="not proven to be accurate") if refused else nullcontext()
    with expected:
        require_judged(path, "bf16", metadata)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100000])
def test_a_judgement_that_is_no_json_object_is_refused(judged, content):
    path = judged()
    judgement_path(path, "bf16").write_bytes(content)
    with pytest.raises(ArtifactVerdictError, match=r"cannot be read \("):
        require_judged(path, "bf16")


@needs_bfloat16
def test_a_predictor_needs_the_judgement(demo_onnx, judged):
    with pytest.raises(ArtifactVerdictError, match="not proven to be accurate in bf16"):
        Predictor(demo_onnx, "openvino", engine=BF16)
    with pytest.raises(ArtifactVerdictError, match="is about another graph"):
        Predictor(judged(**{GRAPH_SHA256: "0" * 64}), "openvino", verify_digest=False, engine=BF16)
    assert Predictor(judged(), "openvino", engine=BF16).device == "openvino"
