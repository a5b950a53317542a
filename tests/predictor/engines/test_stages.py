"""Tensors between the stages of a graph: found on the way through it, and computed from one another."""

import numpy as np
import onnx.parser
import pytest

from runtime.artifact import INPUT_NAMES
from runtime.artifact_files.read import read_metadata
from runtime.engines.fixed_batch import FixedBatchStages
from runtime.engines.ort.stages import OnnxStages
from runtime.errors import ArtifactError

CHAIN = """<ir_version: 8, opset_import: ["": 17]>
g (float[A, B, C, D] images, float score_threshold) => (float[A, B, C, D] out) <float score_threshold = {4.0}> {
    feature = Relu(images)
    counted = Cast <to = 6> (feature)
    half = Cast <to = 10> (feature)
    back = Cast <to = 1> (counted)
    out = Mul(back, score_threshold)
}"""
LAID_OUT = {"tensor": "feature", "permutation": [0, 3, 1, 2]}
PLACES = {
    "p2": LAID_OUT,
    "same": LAID_OUT,
    "counts": {"tensor": "counted", "permutation": None},
    "half": {"tensor": "half", "permutation": [0, 3, 1, 2]},
    "scores": {"tensor": "out", "permutation": None},
}


@pytest.fixture
def stages(tmp_path):
    model = onnx.parser.parse_model(CHAIN).SerializeToString()
    return OnnxStages.on_cpu(tmp_path / "chain.onnx", model, PLACES)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)


def test_tensors_are_returned_in_their_usual_layout_and_type(stages, images):
    assert stages.names == ("p2", "same", "counts", "half", "scores")
    found = stages.run({"images": images, "score_threshold": np.float32(2)}, stages.names)
    expected = np.maximum(images, 0)
    assert list(found) == list(stages.names)
    np.testing.assert_array_equal(found["p2"], expected.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found["same"], found["p2"])
    np.testing.assert_array_equal(found["counts"], expected.astype(np.int32))
    assert found["half"].dtype == np.float32
    np.testing.assert_array_equal(found["half"], expected.astype(np.float16).transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found["scores"], expected.astype(np.int32) * 2)


def test_a_stage_starts_from_what_it_is_fed(stages, images):
    fed = images.transpose(0, 2, 3, 1)  # not contiguous
    found = stages.run({"p2": fed, "images": images * np.nan, "score_threshold": np.float32(3)}, ["scores"])
    np.testing.assert_array_equal(found["scores"], images.astype(np.int32) * 3)
    counts = np.arange(210, dtype=np.int32).reshape(2, 3, 5, 7)
    for threshold in (2, 5):  # the second time in the session that is there already
        found = stages.run({"counts": counts, "score_threshold": np.float32(threshold)}, ["scores"])
        np.testing.assert_array_equal(found["scores"], counts * threshold)


def test_a_tensor_that_the_graph_does_not_have(tmp_path, images):
    model = onnx.parser.parse_model(CHAIN).SerializeToString()
    stages = OnnxStages.on_cpu(tmp_path / "chain.onnx", model, {"p2": {"tensor": "lost", "permutation": None}})
    with pytest.raises(ArtifactError, match=r"onnxruntime .* refuses .*chain\.onnx"):
        stages.run({"images": images}, ["p2"])


def test_each_stage_gives_what_the_whole_run_gives(artifact, predictor, picture):
    if artifact.is_dir():
        from runtime.engines.saved_model import FunctionStages

        stages = FunctionStages.of_savedmodel(artifact)
    else:
        stages = OnnxStages.on_cpu(artifact, artifact.read_bytes(), read_metadata(artifact).borders)
    letterbox, prepared = predictor.prepare(picture)
    inputs = dict(predictor._inputs(prepared[None], np.array([letterbox.window], np.float32)))
    whole = stages.run(inputs, stages.names)
    assert list(whole) == list(stages.names)
    assert whole["num_detections"].tolist() == [len(predictor(picture))]
    for ends, given in (
        (["rpn_probs", "rpn_deltas"], ["p2", "p3", "p4", "p5", "p6"]),
        (["class_probs", "box_deltas"], ["box_rois"]),
        (["masks"], ["mask_rois", "class_ids", "num_detections"]),
    ):
        garbage = {name: np.zeros_like(inputs[name]) if name == "images" else inputs[name] for name in INPUT_NAMES}
        found = stages.run(garbage | {name: whole[name] for name in given}, ends)
        assert list(found) == ends
        for name in ends:
            np.testing.assert_allclose(found[name], whole[name], rtol=0, atol=1e-5)


class PairStages:
    """Stages of a graph for two images: a number for each image, and three crops for each image."""

    names = ("score", "rois")

    def run(self, feeds, names):
        assert len(feeds["images"]) == 2
        assert feeds["rois"].shape == (6, 4)
        assert float(feeds["score_threshold"]) == 0.5
        found = {
            "score": feeds["images"].sum(axis=1) + feeds["rois"].reshape(2, -1).sum(axis=1),
            "rois": -feeds["rois"],
        }
        return {name: found[name] for name in names}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_stages_of_a_fixed_batch_take_any_number_of_images(count):
    generator = np.random.default_rng(count)
    images, rois = generator.random((count, 7)), generator.random((3 * count, 4))
    stages = FixedBatchStages(PairStages(), 2)
    assert stages.names == PairStages.names
    found = stages.run({"images": images, "rois": rois, "score_threshold": np.float32(0.5)}, ("rois", "score"))
    np.testing.assert_array_equal(found["rois"], -rois)
    np.testing.assert_allclose(found["score"], images.sum(axis=1) + rois.reshape(count, -1).sum(axis=1))
