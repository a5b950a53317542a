"""Thresholds of a graph: inputs, constants, or with defaults as in older artifacts; what other tools made of them."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sample_metadata import METADATA

from runtime import Predictor
from runtime.artifact import OUTPUT_NAMES
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.read import read_metadata
from runtime.engines.constant_thresholds import ConstantThresholds
from runtime.errors import ArtifactError, InputError

CONSTANT = replace(METADATA, thresholds="constants", score_threshold=0.7, nms_threshold=0.3)


class Fake:
    """A backend that returns what it was given, and keeps what it was fed."""

    device = "cpu"

    def __init__(self, outputs):
        self.outputs, self.fed = outputs, []

    def __call__(self, inputs):
        self.fed.append(inputs)
        return self.outputs

    def explain(self, inputs):
        self.fed.append(inputs)
        return "placement"

    def borders(self, inputs, _places):
        self.fed.append(inputs)
        return {"p2": np.zeros(1)}


def outputs_of(scores):
    """The graph's outputs for lists of scores, one for each image; 4 rows."""
    rows = np.zeros((len(scores), 4), np.float32)
    for row, found in enumerate(scores):
        rows[row, : len(found)] = found
    used = rows > 0
    return {
        "num_detections": np.array([len(found) for found in scores], np.int32),
        "boxes": np.where(used[..., None], rows[..., None] + np.float32([0, 1, 2, 3]), np.float32(0)),
        "scores": rows,
        "class_ids": used.astype(np.int32),
        "masks": np.where(used[..., None, None], np.ones((4, 2, 2), np.float32), np.float32(0)),
    }


def feeds(score=0.7, overlap=0.3):
    thresholds = {"score_threshold": np.float32(score), "nms_threshold": np.float32(overlap)}
    return {"images": "images", "windows": "windows"} | thresholds


@pytest.mark.parametrize(
    ("threshold", "left"),
    [
        (0.7, [[0.9, 0.8, 0.7], [], [0.95, 0.9]]),
        (0.8, [[0.9, 0.8], [], [0.95, 0.9]]),  # a score that equals the threshold counts
        (np.nextafter(np.float32(0.8), np.float32(1)), [[0.9], [], [0.95, 0.9]]),
        (0.9, [[0.9], [], [0.95, 0.9]]),
        (0.92, [[], [], [0.95]]),
        (1, [[], [], []]),
    ],
)
def test_a_higher_score_leaves_what_the_graph_would_leave(threshold, left):
    backend = Fake(outputs_of([[0.9, 0.8, 0.7], [], [0.95, 0.9]]))
    found = ConstantThresholds(backend, CONSTANT)(feeds(threshold))
    expected = outputs_of(left)
    for name in OUTPUT_NAMES:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])
    assert backend.fed == [{"images": "images", "windows": "windows"}]


def test_a_score_that_equals_the_threshold_of_every_class_does_not_count():
    backend = Fake(outputs_of([[0.9, 0.8, 0.75]]))
    above = replace(CONSTANT, config={"detection": {"candidates": "every_class"}})
    for metadata, left in ((CONSTANT, [0.9, 0.8]), (above, [0.9])):
        found = ConstantThresholds(backend, metadata)(feeds(0.8))
        np.testing.assert_array_equal(found["scores"], outputs_of([left])["scores"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (feeds(0.69), r"score_threshold is 0\.6.*: this artifact has a constant of 0.7 .*--thresholds inputs"),
        (feeds(0), "score_threshold is 0.0: this artifact has a constant of 0.7"),
        (feeds(0.9, 0.31), r"nms_threshold is 0\.3.*: this artifact has a constant of 0.3, .*--thresholds inputs"),
    ],
)
def test_other_thresholds_are_refused(given, message):
    backend = Fake(outputs_of([[0.9]]))
    wrapped = ConstantThresholds(backend, CONSTANT)
    for run in (wrapped, wrapped.explain, lambda inputs: wrapped.borders(inputs, {})):
        with pytest.raises(InputError, match=message):
            run(given)
    assert backend.fed == []


def test_stage_boundary_tensors_are_those_of_the_constant():
    wrapped = ConstantThresholds(Fake(outputs_of([[0.9]])), CONSTANT)
    assert list(wrapped.borders(feeds(), {})) == ["p2"]
    assert wrapped.explain(feeds(0.9)) == "placement"
    with pytest.raises(InputError, match=r"score_threshold is 0\.8.*constant threshold, 0.7"):
        wrapped.borders(feeds(0.9), {})


# In the engine


@pytest.fixture
def free(onnx_artifact):
    return Predictor(onnx_artifact, "cpu")


def same(found, expected):
    assert found.names == expected.names
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.mask_probabilities, expected.mask_probabilities, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "device"),
    [("constant_artifact", "cpu"), ("constant_artifact", "openvino"), ("constant_savedmodel_artifact", "cpu")],
)
def test_constant_thresholds(request, free, picture, kind, device):
    path = request.getfixturevalue(kind)
    predictor = Predictor(path, device, score_threshold=0.5, nms_threshold=np.float32(0.5))
    scores = free(picture).scores
    assert len(scores) > 4
    for level in (None, float(scores[3]), (float(scores[1]) + float(scores[2])) / 2, 1.0):
        predictor.score_threshold = free.score_threshold = level
        same(predictor(picture), free(picture))
        same(predictor.predict_batch([picture, picture[:200]])[1], free(picture[:200]))
    for name, value in {"score_threshold": 0.49, "nms_threshold": 0.4}.items():
        with pytest.raises(InputError, match=f"{name} is {value}: this artifact has a constant of 0.5"):
            setattr(predictor, name, value)
        with pytest.raises(InputError, match=f"{name} is {value}"):
            Predictor(predictor.path, device, **{name: value})
        with pytest.raises(InputError, match=f"{name} is {value}"):
            predictor(picture, **{name: value})
    same(predictor(picture, score_threshold=float(scores[3])), free(picture, score_threshold=float(scores[3])))
    predictor.score_threshold = None
    predictor.warm_up([picture.shape[:2]])
    assert predictor.explain().counts
    letterbox, prepared = predictor.prepare(picture)
    borders = predictor.borders(prepared[None], np.float32([letterbox.window]))
    assert int(borders["num_detections"][0]) == len(scores)


def edited(artifact, path, edit):
    """Write a sealed copy of an artifact whose graph another tool has edited."""
    model = onnx.load(artifact)
    del model.metadata_props[:]
    edit(model.graph)
    path.write_bytes(seal(model.SerializeToString(), read_metadata(artifact).to_json()))
    return path


def constant(name, value=0.5):
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def give_defaults(graph):
    """As artifacts had it once."""
    graph.initializer.extend([constant("score_threshold"), constant("nms_threshold")])


def fold(graph, names=("score_threshold", "nms_threshold")):
    """As onnxslim and onnxsim do with inputs that have a default."""
    kept = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend([constant(name) for name in names])


def list_weights_as_inputs(graph):
    """As exporters once did with all initializers, which then have defaults."""
    graph.input.extend(
        [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in graph.initializer[:2]]
    )


def rename(graph):
    for node in graph.node:
        node.input[:] = ["pictures" if name == "images" else name for name in node.input]
    graph.input[0].name = "pictures"


def add_input(graph):
    graph.input.append(helper.make_tensor_value_info("image_meta", TensorProto.FLOAT, [None, 16]))


def take_floats(graph):
    """As a tool does that moves the conversion out of the graph."""
    graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def take_a_vector(graph):
    """A threshold as [1] instead of a scalar."""
    place = next(i for i, value in enumerate(graph.input) if value.name == "score_threshold")
    graph.input[place].type.tensor_type.shape.dim.add().dim_value = 1


@pytest.mark.parametrize("edit", [give_defaults, list_weights_as_inputs])
def test_older_artifacts_and_weights_with_defaults(onnx_artifact, onnx_device, tmp_path, free, picture, edit):
    predictor = Predictor(edited(onnx_artifact, tmp_path / "x.onnx", edit), onnx_device, require_verdict=False)
    for score, overlap in ((None, None), (0.999, 0.5), (0.05, 0.9)):
        for each in (predictor, free):
            each.score_threshold, each.nms_threshold = score, overlap
        same(predictor(picture), free(picture))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (fold, "has no input score_threshold, no input nms_threshold, unlike its metadata.*--thresholds constants"),
        (lambda graph: fold(graph, ["nms_threshold"]), "has no input nms_threshold, unlike"),
        (rename, "has no input images, an unknown input pictures"),
        (add_input, "has an unknown input image_meta"),
        (take_floats, r"an input images of float32 and rank 4|refuses"),  # ONNX Runtime refuses some itself
        (take_a_vector, r"an input score_threshold of float32 and rank 1|refuses"),
    ],
)
@pytest.mark.parametrize(("device", "verify_digest"), [("cpu", True), ("cpu", False), ("openvino", False)])
def test_other_inputs_are_refused_when_the_artifact_is_opened(
    onnx_artifact, tmp_path, edit, message, device, verify_digest
):
    path = edited(onnx_artifact, tmp_path / "x.onnx", edit)
    with pytest.raises(ArtifactError, match=message):
        Predictor(path, device, verify_digest=verify_digest, require_verdict=False)


def test_constant_thresholds_that_are_inputs_after_all(doctored):
    with pytest.raises(ArtifactError, match=r"an unknown input [a-z_]+, an unknown input "):
        Predictor(doctored(thresholds="constants"), "cpu")
