"""An engine we do not ship for gives the same detections from the same `.onnx`."""

import numpy as np
import pytest
from pictures import SIZES, letterboxed

from export.verify.compare import compare_rows
from export.verify.verify import make_feeds
from runtime.artifact import OUTPUT_NAMES

openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install --group dev")


def run_openvino(path, feeds):
    core = openvino.Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    known = {value.any_name for value in model.inputs}  # it takes the thresholds' defaults as constants
    results = compiled({name: array for name, array in feeds.items() if name in known})
    return {output.any_name: results[output] for output in compiled.outputs}


@pytest.mark.parametrize("sizes", [SIZES[-1:], SIZES[10:12], SIZES[10:15]], ids=["alone", "batch 2", "batch 5"])
def test_openvino_agrees_with_keras(onnx_artifact, demo, picture, sizes):
    detection = demo.config.detection
    pictures = [letterboxed(size, picture, demo.config.resize) for size in sizes]
    feeds = make_feeds(pictures, (detection.min_score, detection.nms_threshold))
    found = run_openvino(onnx_artifact, feeds)
    assert set(found) == set(OUTPUT_NAMES)
    expected = {name: value.numpy() for name, value in demo.detect(**feeds).items()}
    for row in range(len(sizes)):
        sides = [{name: np.asarray(side[name][row]) for name in OUTPUT_NAMES} for side in (expected, found)]
        compared = compare_rows(*sides)
        assert compared.within, compared
    assert expected["num_detections"].sum() > 0
