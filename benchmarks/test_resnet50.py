"""ResNet-50-FPN at 1024 x 1024 on the CPU, 1000 proposals and 100 detections: what the rewrites and 8 bits are worth.

Weights are the deterministic ones of the goldens; they find 100 objects in any picture. Beside them a matrix product of
known size: the rate at which this machine multiplies, which no engine beats in float32.
"""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from PIL import Image

from export import onnx_convert
from export.describe import describe
from export.quantize import quantize
from maskrcnn import MaskRCNN, demo_picture, sample_config
from maskrcnn.checkpoint import seed_weights
from runtime import Predictor
from runtime.onnx_file import seal

pytestmark = pytest.mark.benchmark(group="graph, ResNet-50, 1024 x 1024, 1 picture, 100 detections", warmup=True)

SIDE = 4096  # of the matrices


@pytest.fixture(scope="module")
def network():
    coco = sample_config("coco")
    names = ("BG", *(f"class {number}" for number in range(1, 91)))
    model = replace(coco.model, backbone="resnet50", rpn_channels=256, class_names=names)
    detection = replace(coco.detection, min_score=0.0)
    built = MaskRCNN(replace(coco, model=model, detection=detection))
    seed_weights(built, 0)
    return built


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(demo_picture()).resize((1024, 768)).save(path)
    return path


@pytest.fixture(scope="module")
def converted(network):
    return onnx_convert.convert(network).artifact


def opened(model, network, folder, **changes):
    """A predictor of a graph that is not verified here: its speed is looked at, not its result."""
    path = folder / "model.onnx"
    metadata = replace(describe(network, "onnx", {}, 17), **changes)
    path.write_bytes(seal(model.SerializeToString(), metadata.to_json()))
    return Predictor(path, "cpu")


def timed(benchmark, predictor, picture):
    letterbox, prepared = predictor.prepare(picture)
    windows = np.array([letterbox.window], np.float32)
    outputs = predictor.run(prepared[None], windows)
    benchmark.extra_info["detections"] = int(outputs["num_detections"][0])
    benchmark.pedantic(predictor.run, (prepared[None], windows), rounds=7, warmup_rounds=1)


def test_as_converted(benchmark, network, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_convert, "rewrite", lambda _model, _kept: None)
    timed(benchmark, opened(onnx_convert.convert(network).artifact, network, tmp_path), picture)


def test_rewritten(benchmark, network, converted, picture, tmp_path):
    timed(benchmark, opened(converted, network, tmp_path), picture)


def test_rewritten_with_10_detections(benchmark, network, converted, picture, tmp_path):
    predictor = opened(converted, network, tmp_path)
    scores = predictor(picture).scores
    predictor.score_threshold = float(scores[9] + scores[10]) / 2
    timed(benchmark, predictor, picture)


def test_8_bits(benchmark, network, converted, picture, tmp_path):
    predictor = opened(converted, network, tmp_path)
    small = quantize(converted, predictor, [picture], [], tmp_path)
    timed(benchmark, opened(small, network, tmp_path, precision="int8"), picture)


def test_matrix_product(benchmark):
    """2 * 4096^3 = 137 GFLOP, in the same engine."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {name: np.random.default_rng(0).random((SIDE, SIDE), np.float32) for name in "ab"}
    benchmark.pedantic(session.run, (None, feeds), rounds=7, warmup_rounds=1)
    benchmark.extra_info["GFLOP"] = 2 * SIDE**3 / 1e9
