"""Our side of the benchmarks: networks with random weights, and their artifacts, which are not verified here.

The weights are the deterministic ones of the goldens; they propose a thousand boxes and find a hundred objects in any
picture. Speed is looked at, results are the tests' matter.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf
from PIL import Image

from benchmarks.seeded_weights import seed_weights
from benchmarks.turns import THREADS, Call
from export.convert.surgery import Border
from export.convert.trace import trace
from export.describe import describe
from export.precision.half import borders_in, to_half
from export.precision.quantize import quantize
from export.target import CPU
from maskrcnn import MaskRCNN, demo_picture, sample_config
from runtime import EngineOptions, Predictor
from runtime.artifact import IMAGES, NMS_THRESHOLD, SCORE_THRESHOLD, SIGNATURE, WINDOWS
from runtime.artifact_files.onnx_file import seal
from runtime.artifact_files.savedmodel_folder import seal_folder

SIDE = 1024  # of the picture and of the networks' input

Feeds = dict[str, npt.NDArray[Any]]


def network(**changes: Any) -> MaskRCNN:
    """The COCO sample, with changes to its model; every proposal's best class counts, however low its score."""
    coco = sample_config("coco")
    model, detection = replace(coco.model, **changes), replace(coco.detection, min_score=0.0)
    built = MaskRCNN(replace(coco, model=model, detection=detection))
    seed_weights(built, 0)
    return built


def jpeg() -> bytes:
    """The demo picture at the size of the networks' input, so that nobody resizes."""
    stream = io.BytesIO()
    Image.fromarray(demo_picture()).resize((SIDE, SIDE)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def feeds_of(predictor: Predictor, picture: bytes) -> Feeds:
    """What the graph is given for a picture."""
    letterbox, prepared = predictor.prepare(picture)
    assert prepared.shape[:2] == (SIDE, SIDE)
    return {
        IMAGES: prepared[None],
        WINDOWS: np.array([letterbox.window], np.float32),
        SCORE_THRESHOLD: np.asarray(predictor.score_threshold, np.float32),
        NMS_THRESHOLD: np.asarray(predictor.nms_threshold, np.float32),
    }


def onnx_predictor(
    model: MaskRCNN, graph: onnx.ModelProto, path: Path, borders: Mapping[str, Border] | None = None, **metadata: Any
) -> Predictor:
    """A graph in ONNX Runtime; with its borders, if `counts` is asked for."""
    places = borders_in(graph, {name: asdict(place) for name, place in (borders or {}).items()})
    described = replace(describe(model, "onnx", {}, CPU.opset), borders=places, **metadata)
    path.write_bytes(seal(graph.SerializeToString(), described.to_json()))
    return Predictor(path, "cpu", engine=EngineOptions(threads=THREADS), require_verdict=False)


def openvino_predictor(path: Path, precision: str | None = None) -> Predictor:
    """An `.onnx` artifact in OpenVINO."""
    options = EngineOptions(threads=THREADS, precision=precision)
    return Predictor(path, "openvino", engine=options, require_verdict=False)


def savedmodel_predictor(model: MaskRCNN, path: Path) -> Predictor:
    """A SavedModel in TensorFlow."""
    module = tf.Module()
    module.detect = trace(model)
    module.model_variables = [variable.value for variable in model.variables]
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.detect})
    seal_folder(path, describe(model, "savedmodel", {}).to_json())
    return Predictor(path, "cpu", require_verdict=False)


def run_call(predictor: Predictor, feeds: Feeds) -> Call:
    """The graph alone."""
    return lambda: predictor.run(feeds[IMAGES], feeds[WINDOWS])


def picture_call(predictor: Predictor, picture: bytes) -> Call:
    """A file to COCO run lengths of the masks."""
    return lambda: predictor(picture).rles


def eager_call(model: MaskRCNN, feeds: Feeds) -> Call:
    """The Keras model, operation by operation."""
    tensors = list(map(tf.constant, feeds.values()))
    return lambda: {name: tensor.numpy() for name, tensor in model.detect(*tensors).items()}


def function_call(model: MaskRCNN, feeds: Feeds) -> Call:
    """The Keras model as a `tf.function`."""
    function, tensors = trace(model), {name: tf.constant(array) for name, array in feeds.items()}
    return lambda: {name: tensor.numpy() for name, tensor in function(**tensors).items()}


def in_int8(model: onnx.ModelProto, predictor: Predictor, picture: bytes, folder: Path) -> onnx.ModelProto:
    """Every part in 8 bits, calibrated on the picture itself."""
    path = folder / "calibration.jpg"
    path.write_bytes(picture)
    return quantize(model, predictor, [path], [], folder)


def in_fp16(model: onnx.ModelProto, _predictor: Predictor, _picture: bytes, _folder: Path) -> onnx.ModelProto:
    """Every part in half precision, which a CPU computes in float32."""
    return to_half(model, [])


# How a graph in float32 becomes one of another precision.
LOWER: Mapping[str, Callable[[onnx.ModelProto, Predictor, bytes, Path], onnx.ModelProto]] = {
    "int8": in_int8,
    "fp16": in_fp16,
}


def counts(predictor: Predictor, feeds: Feeds) -> tuple[int, int]:
    """Proposals and detections in a picture."""
    proposals = predictor.borders(feeds[IMAGES], feeds[WINDOWS])["proposals"][0]
    found = predictor.run(feeds[IMAGES], feeds[WINDOWS])
    return int((proposals[:, 2:] > proposals[:, :2]).all(axis=1).sum()), int(found["num_detections"][0])


def threshold_for(predictor: Predictor, feeds: Feeds, wanted: int) -> float:
    """A score threshold that leaves so many detections."""
    scores = predictor.run(feeds[IMAGES], feeds[WINDOWS])["scores"][0]
    return float(scores[wanted - 1] + scores[wanted]) / 2
