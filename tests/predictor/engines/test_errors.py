"""What engines raise in a run: one line of ours, memory told apart, and the predictor goes on."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from maskrcnn.commands.exit_codes import exit_code
from runtime import EngineError, OutOfMemoryError, Predictor, read_metadata
from runtime.artifact_files.onnx_file import seal
from runtime.errors import DeviceError

IMAGES, WINDOWS = np.zeros((1, 64, 64, 3), np.uint8), np.array([[0, 0, 64, 64]], np.float32)
USES = {
    "call": lambda predictor, picture: predictor(picture),
    "run": lambda predictor, picture: predictor.run(IMAGES, WINDOWS),
    "warm_up": lambda predictor, picture: predictor.warm_up([(64, 64)]),
    "stream": lambda predictor, picture: list(predictor.predict_stream([picture] * 3)),
    "explain": lambda predictor, picture: predictor.explain(),
    "borders": lambda predictor, picture: predictor.borders(IMAGES, WINDOWS),
}


class Failing:
    """An engine that raises whatever it is asked."""

    device = "cpu"

    def __init__(self, error):
        self._error = error

    def __call__(self, *_):
        raise self._error

    explain = borders = __call__


class ResourceExhaustedError(Exception):
    """Of the name that TensorFlow's has."""


FAILURES = {
    "arena": (
        RuntimeError(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node.\n"
            "/onnxruntime/core/framework/bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 99"
        ),
        OutOfMemoryError,
    ),
    "limit": (RuntimeError("Available memory of 5 is smaller than requested bytes of 9"), OutOfMemoryError),
    "cuda": (RuntimeError("CUDA failure 2: out of memory ; GPU=0"), OutOfMemoryError),
    "cublas": (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), OutOfMemoryError),
    "numpy": (MemoryError("Unable to allocate 9 GiB"), OutOfMemoryError),
    "bare": (MemoryError(), OutOfMemoryError),
    "tensorflow": (ResourceExhaustedError("allocating tensor with shape[9]"), OutOfMemoryError),
    "shape": (ValueError("Got invalid dimensions\nfor input: images" + 999 * "!"), EngineError),
    "silent": (RuntimeError(), EngineError),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_error_of_an_engine(predictor, monkeypatch, failure):
    raised, expected = FAILURES[failure]
    monkeypatch.setattr(predictor._engine, "_backend", Failing(raised))
    with pytest.raises(EngineError) as found:
        predictor.run(IMAGES, WINDOWS)
    message = str(found.value)
    assert type(found.value) is expected
    assert found.value.__cause__ is raised
    assert "\n" not in message
    assert len(message) < 700
    assert str(predictor.path) in message
    assert message.startswith("tensorflow" if predictor.path.is_dir() else "onnxruntime")
    assert ("smaller images or a smaller batch_size" in message) == (expected is OutOfMemoryError)
    assert ("gpu_memory_limit" in message) == (expected is OutOfMemoryError)
    assert exit_code(found.value) == 4


@pytest.mark.parametrize("use", USES)
def test_every_use_translates(predictor, picture, monkeypatch, use):
    with monkeypatch.context() as patch:
        patch.setattr(predictor._engine, "_backend", Failing(RuntimeError("bfc_arena")))
        with pytest.raises(OutOfMemoryError):
            USES[use](predictor, picture)
    assert len(predictor(picture)) > 0


def test_our_own_errors_and_interrupts_pass(predictor, monkeypatch):
    for error in (DeviceError("mine"), KeyboardInterrupt()):
        monkeypatch.setattr(predictor._engine, "_backend", Failing(error))
        with pytest.raises(type(error)) as found:
            predictor.run(IMAGES, WINDOWS)
        assert found.value is error


def doctored_graph(artifact, path, node, *initializers):
    """A sealed copy whose scores come out of a further node."""
    model = onnx.load(artifact)
    (maker,) = (each for each in model.graph.node if "scores" in each.output)
    maker.output[list(maker.output).index("scores")] = "true_scores"
    for other in model.graph.node:
        other.input[:] = ["true_scores" if name == "scores" else name for name in other.input]
    model.graph.node.append(node)
    model.graph.initializer.extend(initializers)
    del model.metadata_props[:]
    path.write_bytes(seal(model.SerializeToString(), json.dumps(json.loads(read_metadata(artifact).to_json()))))
    return path


def test_graph_whose_shapes_do_not_fit(onnx_artifact, picture, tmp_path):
    shape = helper.make_tensor("bad_shape", TensorProto.INT64, [2], [1, 12345])
    node = helper.make_node("Reshape", ["true_scores", "bad_shape"], ["scores"])
    predictor = Predictor(doctored_graph(onnx_artifact, tmp_path / "bad.onnx", node, shape), "cpu")
    for _ in range(2):
        with pytest.raises(EngineError, match=r"onnxruntime failed in a run of .*Reshape") as found:
            predictor(picture)
        assert type(found.value) is EngineError
        assert "\n" not in str(found.value)


def test_graph_that_wants_more_memory_than_there_is(onnx_artifact, picture, tmp_path):
    shape = helper.make_tensor("vast_shape", TensorProto.INT64, [4], [2**20, 2**20, 1, 1])
    node = helper.make_node("Expand", ["true_scores", "vast_shape"], ["scores"])
    predictor = Predictor(doctored_graph(onnx_artifact, tmp_path / "vast.onnx", node, shape), "cpu")
    with pytest.raises(OutOfMemoryError, match="smaller images") as found:
        predictor(picture)
    assert "\n" not in str(found.value)
