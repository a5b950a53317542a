"""The same graph and picture in every engine on the CPU; letterbox and masks are not part of it."""

import pytest
import tensorflow as tf

from export.convert.trace import trace
from runtime import Predictor

pytestmark = pytest.mark.benchmark(group="graph, demo model, 1 picture")


def test_keras_function(benchmark, model, feeds):
    function = trace(model)
    tensors = {name: tf.constant(array) for name, array in feeds.items()}

    def run():
        return function(**tensors)["boxes"].numpy()

    benchmark(run)


def test_savedmodel(benchmark, savedmodel_path, feeds):
    predictor = Predictor(savedmodel_path, "cpu")
    benchmark(predictor.run, feeds["images"], feeds["windows"])


def test_onnx_runtime(benchmark, onnx_path, feeds):
    predictor = Predictor(onnx_path, "cpu")
    benchmark(predictor.run, feeds["images"], feeds["windows"])


def test_openvino(benchmark, onnx_path, feeds):
    openvino = pytest.importorskip("runtime.engines.openvino.library", exc_type=ImportError).openvino
    compiled = openvino.Core().compile_model(onnx_path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = {value.any_name: feeds[value.any_name] for value in compiled.inputs}
    benchmark(compiled, inputs)
