"""Graphs made for an engine: what is fixed in them, and that all give the same results."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from store import unverified

from export import export_onnx, export_savedmodel, verify_artifact
from export.errors import ConversionError
from export.target import Target
from maskrcnn import nms
from maskrcnn.data.synthetic.shapes import draw_shapes
from runtime import InputError, Predictor, read_metadata
from runtime.engines.ort.stages import OnnxStages
from runtime.pictures.letterbox import ResizePolicy

FACTS = {"name": "demo model"}


@pytest.fixture(scope="module")
def made(demo, tmp_path_factory):
    """Function that exports the demo model for an engine and batch size, once each."""
    paths = {}

    def make(engine, batch):
        if engine not in paths:
            paths[engine] = tmp_path_factory.mktemp("target") / f"{engine}.onnx"
            with unverified():
                export_onnx(demo, paths[engine], checkpoint=FACTS, target=Target(engine, batch))
        return paths[engine]

    return make


def shape_of(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def is_double(value):
    return value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE


def close(found, expected):
    assert found.names == expected.names
    assert len(found) == len(expected)
    assert np.allclose(found.boxes, expected.boxes, atol=0.01)
    assert np.allclose(found.scores, expected.scores, atol=1e-5)
    assert np.allclose(found.mask_probabilities, expected.mask_probabilities, atol=1e-4)


def test_thresholds_of_an_unknown_kind(demo, tmp_path):
    for export in (
        lambda: Target(thresholds="defaults"),
        lambda: export_savedmodel(demo, tmp_path / "x", checkpoint=FACTS, thresholds=None),
    ):
        with pytest.raises(ConversionError, match="choose one of inputs, constants"):
            export()


def test_a_graph_for_cuda_has_one_size_and_any_batch(made, demo, picture):
    path = made("cuda", 1)
    metadata, model = read_metadata(path), onnx.load(path)
    assert (metadata.target, metadata.input_shape) == ("cuda", (None, 256, 256))
    assert shape_of(model.graph.input[0]) == ["batch", 256, 256, 3]
    operators = [node.op_type for node in model.graph.node]
    assert "NonZero" not in operators  # nothing depends on how many rows or classes are in use
    (suppression,) = [node for node in model.graph.node if node.op_type == "NonMaxSuppression"]  # of proposals
    assert len(suppression.input) == 4  # a score threshold would cost an allocation and two waits
    assert not [value.name for value in onnx.shape_inference.infer_shapes(model).graph.value_info if is_double(value)]
    predictor = Predictor(path, "cpu")
    with pytest.raises(InputError, match="takes 256 x 256"):
        predictor.run(np.zeros((1, 128, 128, 3), np.uint8), np.zeros((1, 4), np.float32))
    assert predictor.explain().counts


def test_anchors_are_constant_where_the_size_is_fixed(made, onnx_artifact):
    fixed, free = onnx.load(made("cuda", 1)), onnx.load(onnx_artifact)
    operators = [[node.op_type for node in model.graph.node] for model in (fixed, free)]
    assert len(operators[0]) < 0.75 * len(operators[1])
    assert "Range" in operators[1]
    anchors = 3 * sum((256 // stride) ** 2 for stride in (4, 8, 16, 32, 64))
    assert any(anchors in tensor.dims for tensor in fixed.graph.initializer)


def test_a_graph_for_tensorrt_has_one_shape(made):
    path = made("tensorrt", 2)
    metadata, model = read_metadata(path), onnx.load(path)
    assert (metadata.target, metadata.input_shape) == ("tensorrt", (2, 256, 256))
    assert metadata.inputs()["images"]["shape"] == [2, 256, 256, 3]
    assert metadata.outputs()["masks"]["shape"] == [2, 50, 28, 28]
    for value in [*model.graph.input[:2], *model.graph.output]:
        assert all(isinstance(side, int) and side > 0 for side in shape_of(value)), value.name


@pytest.mark.parametrize(
    ("engine", "batch", "device"), [("cuda", 1, "cpu"), ("tensorrt", 2, "cpu"), ("tensorrt", 2, "openvino")]
)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_pictures(made, onnx_artifact, picture, engine, batch, device, count):
    """Also where the batch size is fixed: the batch is padded, and the padding is dropped."""
    pictures = [picture[:, side : side + 200] for side in range(0, 40 * count, 40)]
    expected = [Predictor(onnx_artifact, "cpu")(each) for each in pictures]
    assert any(len(each) for each in expected)
    for found, wanted in zip(Predictor(made(engine, batch), device).predict_batch(pictures, 8), expected, strict=True):
        close(found, wanted)


@pytest.mark.parametrize(("engine", "batch"), [("cuda", 1), ("tensorrt", 2)])
def test_no_detections(made, picture, engine, batch):
    predictor = Predictor(made(engine, batch), "cpu", score_threshold=1.0)
    assert len(predictor(picture)) == 0
    outputs = predictor.run(np.zeros((1, 256, 256, 3), np.uint8), np.float32([[0, 0, 256, 256]]))
    assert not any(array.any() for array in outputs.values())


def test_nms_continues_where_its_steps_do_not_suffice(demo, onnx_artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(nms, "STEPS", 2)
    path = tmp_path / "two_steps.onnx"
    with unverified():
        export_onnx(demo, path, checkpoint=FACTS, target=Target("cuda"))
    limits = {"score_threshold": 0.0, "nms_threshold": 0.001}
    few, free = (Predictor(each, "cpu", **limits) for each in (path, onnx_artifact))
    other = Predictor(path, "openvino", **limits)
    letterbox, prepared = few.prepare(draw_shapes(7, 5, size=(256, 256))[0])
    images, windows = np.stack([prepared, 0 * prepared]), np.float32([letterbox.window] * 2)
    session = onnxruntime.InferenceSession(path)
    feeds = {"images": images, "windows": windows} | {n: np.array(v, np.float32) for n, v in limits.items()}
    count, boxes = session.run(["num_detections", "boxes"], feeds)
    assert count[0] == -1  # no number of rows: nothing that could be taken for a result
    assert not boxes[0].any()
    opened = []

    def stages(*arguments):
        opened.append(OnnxStages(*arguments))
        return opened[-1]

    monkeypatch.setattr("runtime.engines.ort.backend.OnnxStages", stages)
    for predictor in (few, few, other):
        found, expected = predictor.run(images, windows), free.run(images, windows)
        for name in ("num_detections", "class_ids"):
            assert np.array_equal(found[name], expected[name]), name
        assert np.allclose(found["boxes"], expected["boxes"], atol=0.01)
        assert np.allclose(found["masks"], expected["masks"], atol=1e-4)  # unused rows are zero
    assert len(opened) == 1  # its sessions are kept
    assert expected["num_detections"][0] > 2


def test_borders_of_a_fixed_batch(made, onnx_artifact, picture):
    predictor, free = Predictor(made("tensorrt", 2), "cpu"), Predictor(onnx_artifact, "cpu")
    letterbox, prepared = free.prepare(picture)
    images, windows = np.stack([prepared] * 3), np.float32([letterbox.window] * 3)
    found, expected = predictor.borders(images, windows), free.borders(images, windows)
    assert set(found) == set(expected)
    for name in set(found) - {"mask_rois"}:  # here of all rows
        assert found[name].shape == expected[name].shape, name
    assert np.allclose(found["p4"], expected["p4"], atol=1e-4)
    assert found["mask_rois"].shape[0] == 3 * predictor.metadata.max_detections


def test_a_fixed_batch_can_be_verified_again(made, demo, one_picture):
    verdict = verify_artifact(made("tensorrt", 2), demo, verify_images=one_picture)
    assert verdict.passed
    assert verdict.detections >= 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpu",), "'gpu' is not supported: choose one of cpu, cuda, tensorrt"),
        (("cpu", 2), "only 'tensorrt' has a fixed batch size"),
        (("cuda", 8), "only 'tensorrt' has a fixed batch size"),
        (("tensorrt", 0), "a batch of 0"),
        (("tensorrt", 65), "from 1 to 64"),
        (("cpu", 1, 16), "opset 16 is not supported: choose one of 17, 18"),
        (("cpu", 1, 19), "opset 19"),
        (("cpu", 1, 22), "opset 22"),
    ],
)
def test_targets_that_are_not_offered(arguments, message):
    with pytest.raises(ConversionError, match=message):
        Target(*arguments)


def test_tensorrt_needs_one_size(demo, tmp_path):
    policy = ResizePolicy("pad64", 256)
    with pytest.raises(ConversionError, match="'pad64': set it to 'square'"):
        Target("tensorrt").input_shape(policy)
    assert Target("cuda").input_shape(policy) == (None, None, None)
    assert Target("cpu").input_shape(demo.config.resize) == (None, None, None)
    assert Target("tensorrt", 4).input_shape(replace(demo.config.resize, max_dim=512)) == (4, 512, 512)
