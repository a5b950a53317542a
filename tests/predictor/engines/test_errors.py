"""What engines raise in a run: one line of ours, memory told apart, and the predictor goes on."""

import signal

import numpy as np
import onnx
import pytest
from bad_artifacts import reseal
from onnx import TensorProto, helper, numpy_helper

from maskrcnn.commands.exit_codes import exit_code
from runtime import EngineError, EngineOptions, OutOfMemoryError, Predictor, read_metadata
from runtime.engines.outputs import NotFiniteError
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
    """An engine that raises whatever it is asked; its code counts as a part of `package`."""

    device = "cpu"

    def __init__(self, error, package="onnxruntime.capi"):
        names = {"__name__": package, "error": error}
        exec("def fail(*_): raise error", names)
        self._fail = names["fail"]

    def __call__(self, *_):
        self._fail()

    explain = borders = __call__


class ResourceExhaustedError(Exception):
    """As TensorFlow has one."""

    __module__ = "tensorflow.python.framework.errors_impl"


FAILURES = {
    "arena": (
        RuntimeError(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node.\n"
            "/onnxruntime/core/framework/bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 99"
        ),
        OutOfMemoryError,
    ),
    "limit": (RuntimeError("Available memory of 5 is smaller than requested bytes of 9"), OutOfMemoryError),
    "openvino": (
        RuntimeError(
            "Exception from src/inference/src/cpp/infer_request.cpp:224:\nException from src/plugins/node.cpp:794:\n"
            "[CPU] Convert node with name 'Cast'\nCheck 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\n"
            "Failed to allocate 50331648 bytes of memory"
        ),
        OutOfMemoryError,
    ),
    "opencl": (RuntimeError("[GPU] clEnqueueNDRangeKernel, error code: -5 CL_OUT_OF_RESOURCES"), OutOfMemoryError),
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
    assert "Exception from" not in message
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


class Timeout(Exception):  # noqa: N818
    """Of a program that uses the package."""


HANDLERS = [
    Timeout("mine"),
    TimeoutError("mine"),
    RuntimeError("out of memory"),
    MemoryError("mine"),
    OSError(5, "mine"),
]


@pytest.mark.parametrize("raised", HANDLERS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("use", USES)
def test_what_a_signal_handler_raises_in_a_run_passes(predictor, picture, monkeypatch, use, raised):
    monkeypatch.setattr(predictor._engine, "_backend", Failing(raised, "my_program"))
    with pytest.raises(type(raised)) as found:
        USES[use](predictor, picture)
    assert found.value is raised


@pytest.mark.parametrize("raised", HANDLERS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
def test_what_a_signal_handler_raises_on_opening_passes(artifact, monkeypatch, tmp_path, raised, cached):
    if artifact.is_dir():
        monkeypatch.setattr("runtime.engines.saved_model.tf.saved_model.load", Failing(raised, "my_program"))
        monkeypatch.setattr("runtime.engines.saved_model.SavedModel.FromString", lambda content: content)
        monkeypatch.setattr("runtime.engines.saved_model.check_savedmodel", lambda *_: None)
        cached = False
    else:
        create = "onnxruntime.InferenceSession._create_inference_session"
        if cached:  # the second predictor opens what the first one wrote
            Predictor(artifact, "cpu", engine=EngineOptions(cache=tmp_path))
        monkeypatch.setattr(create, Failing(raised, "my_program"))
    with pytest.raises(type(raised)) as found:
        Predictor(artifact, "cpu", engine=EngineOptions(cache=tmp_path if cached else None))
    assert found.value is raised


def test_a_real_alarm_in_a_run(predictor):
    """It arrives when the engine returns."""

    def ring(*_):
        raise Timeout

    before = signal.signal(signal.SIGALRM, ring)
    images, windows = np.zeros((4, 512, 512, 3), np.uint8), np.array([[0, 0, 512, 512]] * 4, np.float32)
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    try:
        with pytest.raises(Timeout):
            predictor.run(images, windows)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert predictor.run(images, windows)["num_detections"].shape == (4,)


def doctored_graph(artifact, path, nodes, initializers=(), output="scores", element_type=None):
    """A sealed copy with an output that comes out of further nodes; they read it with "true_" before its name."""
    model = onnx.load(artifact)
    true = f"true_{output}"
    (maker,) = (each for each in model.graph.node if output in each.output)
    maker.output[list(maker.output).index(output)] = true
    for other in model.graph.node:
        other.input[:] = [true if name == output else name for name in other.input]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)
    for value in model.graph.output:
        if value.name == output:  # the format of a graph that lies is in its metadata alone
            value.type.tensor_type.ClearField("shape")
            value.type.tensor_type.elem_type = element_type or value.type.tensor_type.elem_type
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    reseal(path, read_metadata(artifact).to_json())
    return path


def test_graph_whose_shapes_do_not_fit(onnx_artifact, picture, tmp_path):
    shape = helper.make_tensor("bad_shape", TensorProto.INT64, [2], [1, 12345])
    node = helper.make_node("Reshape", ["true_scores", "bad_shape"], ["scores"])
    predictor = Predictor(doctored_graph(onnx_artifact, tmp_path / "bad.onnx", [node], [shape]), "cpu")
    for _ in range(2):
        with pytest.raises(EngineError, match=r"onnxruntime failed in a run of .*Reshape") as found:
            predictor(picture)
        assert type(found.value) is EngineError
        assert "\n" not in str(found.value)


def test_graph_that_wants_more_memory_than_there_is(onnx_artifact, picture, tmp_path):
    steps = {"four": ("Shape", ["images"]), "two": ("Slice", ["four", "begin", "end"]), "long": ("Mul", ["two", "by"])}
    nodes = [helper.make_node(name, inputs, [output]) for output, (name, inputs) in steps.items()]
    nodes += [helper.make_node("Concat", ["long", "ones"], ["vast_shape"], axis=0)]
    nodes += [helper.make_node("Expand", ["true_scores", "vast_shape"], ["scores"])]
    numbers = {"begin": [0], "end": [2], "by": [2**20, 2**12], "ones": [1, 1]}
    constants = [constant(name, value, np.int64) for name, value in numbers.items()]
    predictor = Predictor(doctored_graph(onnx_artifact, tmp_path / "vast.onnx", nodes, constants), "cpu")
    with pytest.raises(OutOfMemoryError, match="smaller images") as found:
        predictor(picture)
    assert "\n" not in str(found.value)


def constant(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.array(value, dtype), name)


def replaced(output, name, *initializers, **attributes):
    """An operator on an output, with constants."""
    inputs = [f"true_{output}", *(each.name for each in initializers)]
    return [helper.make_node(name, inputs, [output], **attributes)], initializers, output


BOOL, DOUBLE, INT64 = TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.INT64
LIES = {
    "counts without an axis": (*replaced("num_detections", "ReduceMax", keepdims=0), "num_detections as int32 []"),
    "counts in two axes": (
        *replaced("num_detections", "Unsqueeze", constant("axes", [0], np.int64)),
        "num_detections as int32 [1, 1]",
    ),
    "no counts": (
        *replaced("num_detections", "Gather", constant("none", np.zeros(0), np.int64)),
        "num_detections as int32 [0]",
    ),
    "negative counts": (
        *replaced("num_detections", "Sub", constant("less", 10**6, np.int32)),
        "num_detections [-99",
    ),
    "counts beyond the rows": (
        *replaced("num_detections", "Add", constant("more", 10**6, np.int32)),
        "num_detections [100",
    ),
    "counts in 64 bits": (*replaced("num_detections", "Cast", to=INT64), "num_detections as int64"),
    "half of the scores": (
        *replaced("scores", "Slice", *(constant(n, [v], np.int64) for n, v in {"a": 0, "b": 9, "c": 1}.items())),
        "scores as float32 [1, 9]",
    ),
    "scores of 7": (*replaced("scores", "Add", constant("seven", 7)), "scores from 7"),
    "negative scores": (*replaced("scores", "Sub", constant("seven", 7)), "scores from -7"),
    "scores that are no numbers": (*replaced("scores", "Add", constant("nan", np.nan)), "scores from nan"),
    "scores in 64 bits": (*replaced("scores", "Cast", to=DOUBLE), "scores as float64"),
    "class ids as floats": (*replaced("class_ids", "Cast", to=TensorProto.FLOAT), "class_ids as float32"),
    "class ids beyond the names": (
        *replaced("class_ids", "Add", constant("more", 4, np.int32)),
        "class_ids out of range",
    ),
    "class ids of the background": (
        *replaced("class_ids", "Mul", constant("nought", 0, np.int32)),
        "class_ids out of range",
    ),
    "negative class ids": (*replaced("class_ids", "Sub", constant("more", 9, np.int32)), "class_ids out of range"),
    "boxes that are no numbers": (*replaced("boxes", "Add", constant("nan", np.nan)), "boxes outside the image"),
    "boxes without end": (*replaced("boxes", "Add", constant("inf", np.inf)), "boxes outside the image"),
    "boxes far away": (*replaced("boxes", "Add", constant("far", 1e9)), "boxes outside the image"),
    "boxes of three numbers": (
        *replaced("boxes", "Slice", *(constant(n, [v], np.int64) for n, v in {"a": 0, "b": 3, "c": 2}.items())),
        "boxes as float32 [1, 50, 3]",
    ),
    "masks of 2": (*replaced("masks", "Add", constant("two", 2)), "masks from 2"),
    "masks that are no numbers": (*replaced("masks", "Add", constant("nan", np.nan)), "masks from nan"),
    "masks in one axis": (*replaced("masks", "Reshape", constant("flat", [-1], np.int64)), "masks as float32 ["),
}


@pytest.mark.parametrize("name", LIES)
def test_graph_that_returns_what_the_format_forbids(onnx_artifact, picture, tmp_path, name):
    nodes, initializers, output, expected = LIES[name]
    kind = next((each.i for node in nodes for each in node.attribute if each.name == "to"), None)
    path = doctored_graph(onnx_artifact, tmp_path / "lie.onnx", nodes, initializers, output, kind)
    predictor = Predictor(path, "cpu")
    for use in (
        lambda: predictor(picture),
        lambda: predictor.predict_batch([picture]),
        lambda: predictor.warm_up([(64, 64)]),
    ):
        with pytest.raises(EngineError) as found:
            use()
        message = str(found.value)
        assert message.startswith(f"{path} returned {expected}"), message
        assert isinstance(found.value, NotFiniteError) is ("no numbers" in name or "without end" in name)
        assert message.endswith("export the checkpoint again")
