"""OpenVINO behind the same predictor: equal results, its cache, what it refuses, what its library must not do."""

import gc
import inspect
import json
import pickle
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from pictures import SIZES, letterboxed

from export.verify import tolerances
from export.verify.compare import compare_rows
from runtime import EngineOptions, Predictor
from runtime.artifact import OUTPUT_NAMES
from runtime.artifact_files.onnx_file import read_model as read_model_of, seal
from runtime.engines.choose import open_backend, openvino_device
from runtime.engines.graph_cache import GraphCache
from runtime.engines.opening import Opening
from runtime.engines.ort.cache import ArtifactCache
from runtime.engines.ort.session import SessionOpener
from runtime.engines.probe_model import probe_model
from runtime.engines.processors import usable_cores
from runtime.errors import ArtifactError, DeviceError, OutOfMemoryError, OutputError

library = pytest.importorskip(
    "runtime.engines.openvino.library", reason="openvino is not installed", exc_type=ImportError
)
from runtime.engines.openvino.devices import properties_of, require_device  # noqa: E402
from runtime.engines.openvino.graph import CompiledGraph, GraphOpener  # noqa: E402
from runtime.engines.openvino.read import read_model  # noqa: E402


@pytest.fixture(scope="module")
def demo_onnx(pytestconfig):
    """The packaged artifact of the demo model."""
    return pytestconfig.rootpath / "maskrcnn" / "demo.onnx"


@pytest.fixture(scope="module")
def openvino(demo_onnx):
    return Predictor(demo_onnx, "openvino")


@pytest.fixture(scope="module")
def plain(demo_onnx):
    return Predictor(demo_onnx, "cpu")


# Results


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_finds_what_onnx_runtime_finds_on_thirty_sizes(openvino, plain, picture, batch):
    pictures = [letterboxed(size, picture, plain.metadata.resize) for size in SIZES]
    compared = []
    for start in range(0, len(pictures), batch):
        group = pictures[start : start + batch]
        inputs = np.stack([each.image for each in group]), np.float32([each.window for each in group])
        expected, found = plain.run(*inputs), openvino.run(*inputs)
        for row in range(len(group)):
            sides = [{name: side[name][row] for name in OUTPUT_NAMES} for side in (expected, found)]
            compared.append(compare_rows(*sides))
    # Each engine may be that far from the model, on the other side of it.
    apart = [(size, each) for size, each in zip(SIZES, compared, strict=True) if not each.within]
    assert len(apart) <= 1, apart
    for _, each in apart:
        assert each.expected == each.found, apart
        assert each.unmatched == 0, apart
        assert each.masks <= 2 * tolerances.MASKS.bound, apart
    assert sum(each.expected for each in compared) >= 90


def test_thresholds_and_the_image_of_one_call(openvino, plain, picture):
    thresholds = {"score_threshold": float(np.median(plain(picture).scores)), "nms_threshold": 0.9}
    found, expected = openvino(picture, **thresholds), plain(picture, **thresholds)
    assert 0 < len(found) == len(expected) < len(openvino(picture))
    np.testing.assert_array_equal(found.draw(), found.draw(picture))


def test_zero_detections_in_a_batch(demo_onnx, picture):
    predictor = Predictor(demo_onnx, "openvino", score_threshold=1.0)
    assert [len(found) for found in predictor.predict_batch([picture, picture[:50], picture * 0])] == [0, 0, 0]


def test_later_runs_leave_earlier_results_alone(openvino, picture):
    letterbox, prepared = openvino.prepare(picture)
    inputs = prepared[None].copy(), np.float32([letterbox.window])
    outputs = openvino.run(*inputs)
    kept = {name: array.copy() for name, array in outputs.items()}
    openvino.run(inputs[0] * 0, inputs[1])
    assert (inputs[0] == prepared).all()
    for name, array in outputs.items():
        assert (array == kept[name]).all(), name
        np.add(array, 1, out=array)  # they belong to the caller
    for name, array in openvino.run(*inputs).items():
        assert (array == kept[name]).all(), name


def test_borders_are_those_of_onnx_runtime(openvino, plain, picture):
    letterbox, prepared = plain.prepare(picture)
    inputs = prepared[None], np.float32([letterbox.window])
    expected, found = plain.borders(*inputs), openvino.borders(*inputs)
    assert set(found) == set(expected) > {"p2", "proposals", "masks"}
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert np.allclose(found[name], array, atol=1e-3), name


def suppressed(boxes, threshold):
    """Boxes that a NonMaxSuppression of ONNX keeps, by ONNX Runtime and by OpenVINO."""
    shapes = {"boxes": [1, "n", 4], "scores": [1, 1, "n"], "threshold": [1]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    most = helper.make_tensor("most", TensorProto.INT64, [1], [len(boxes)])
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "threshold"], ["kept"])
    outputs = [helper.make_tensor_value_info("kept", TensorProto.INT64, ["m", 3])]
    graph = helper.make_graph([node], "g", inputs, outputs, [most])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    arrays = [np.float32([boxes]), np.linspace(1, 0.5, len(boxes), dtype=np.float32)[None, None]]
    feeds = dict(zip(shapes, [*arrays, np.float32([threshold])], strict=True))
    compiled = library.core().compile_model(read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return onnxruntime.InferenceSession(content).run(None, feeds)[0], compiled(feeds)[0]


@pytest.mark.parametrize("threshold", [0, 0.25, 0.3, 1 / 3, 0.5, 0.7, 1])
def test_an_iou_that_equals_the_threshold_is_not_suppressed(threshold):
    """OpenVINO itself suppresses it; integer sides make such values frequent."""
    corners, sides = np.random.default_rng(7).integers(0, 8, (2, 60, 2))
    boxes = np.concatenate([corners, corners + sides + 1], 1).tolist()
    expected, found = suppressed(boxes, threshold)
    assert 1 < len(expected) <= 60
    assert (found == expected).all()


def test_times_by_operator(openvino, picture):
    placement = openvino.explain(picture)
    assert {where for where, _ in placement.counts} == {"OpenVINO CPU"}
    assert placement.counts["OpenVINO CPU", "Convolution"] > 20
    assert placement.milliseconds["OpenVINO CPU", "Convolution"] > 0
    assert (placement.device, placement.copies, placement.on_cpu) == ("openvino", 0, {})


# Opening, closing, the cache


def test_threads(openvino):
    def used(backend):
        return backend._graph._compiled.get_property("INFERENCE_NUM_THREADS")

    assert used(openvino._engine._backend) == usable_cores()
    assert properties_of("CPU", EngineOptions(threads=1))["INFERENCE_NUM_THREADS"] == 1


def test_the_precision_is_float32(openvino):
    hint = openvino._engine._backend._graph._compiled.get_property("INFERENCE_PRECISION_HINT")
    assert hint == library.openvino.Type.f32


def test_engine_is_freed_at_once(demo_onnx, picture):
    predictor = Predictor(demo_onnx, "openvino")
    predictor(picture)
    graph = predictor._engine._backend._graph
    kept = [weakref.ref(each) for each in (predictor._engine._backend, graph, graph._compiled, graph._free[0])]
    del graph
    predictor.close()
    gc.collect()
    assert [each() for each in kept] == [None] * 4


def test_a_pickled_predictor_opens_in_the_same_engine(openvino, picture, tmp_path):
    copy = pickle.loads(pickle.dumps(openvino))
    assert copy.device == "openvino"
    assert (copy(picture).boxes == openvino(picture).boxes).all()


@pytest.fixture
def opener(tmp_path):
    """Function that makes an opener of a small sealed graph with a cache."""
    path = tmp_path / "small.onnx"
    path.write_bytes(seal(probe_model(), "{}"))

    def make(**options):
        engine = EngineOptions(cache=tmp_path / "cache", **options)
        return GraphOpener(path, "CPU", properties_of("CPU", engine), engine.cache)

    return make


@pytest.fixture
def compiled(monkeypatch):
    """The list of all graphs that were compiled."""
    real, found = GraphOpener._compile, []

    def count(opener, *arguments, **named):
        found.append(opener)
        return real(opener, *arguments, **named)

    monkeypatch.setattr(GraphOpener, "_compile", count)
    return found


def computed(opener):
    one = np.ones((1, 1, 1, 1), np.float32)
    return float(opener.open()({"x": one, "w": 3 * one})[0].item())


def blob_of(tmp_path):
    (entry,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ["entry.json", "graph.blob"]
    return entry / "graph.blob"


def test_a_predictor_takes_its_compiled_graph_from_the_cache(demo_onnx, openvino, compiled, picture, tmp_path):
    for compilations in (1, 1):
        with Predictor(demo_onnx, "openvino", engine=EngineOptions(cache=tmp_path / "cache")) as predictor:
            assert np.allclose(predictor(picture).boxes, openvino(picture).boxes, atol=1e-3)
        assert len(compiled) == compilations


def test_another_option_is_another_entry(opener, compiled, tmp_path):
    for options in ({"threads": 1}, {"threads": 1}, {"threads": 2}):
        assert computed(opener(**options)) == -3
    assert len(compiled) == len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("spoil", [lambda content: content[:-9] + b"x" + content[-8:], lambda content: content[:-9]])
def test_a_damaged_entry_is_made_again(opener, compiled, tmp_path, caplog, spoil):
    opener().open()
    blob = blob_of(tmp_path)
    blob.write_bytes(spoil(blob.read_bytes()))
    assert computed(opener()) == -3
    assert "is damaged and is made again" in caplog.text
    assert computed(opener()) == -3
    assert len(compiled) == 2


@pytest.mark.parametrize("content", [b"", b"another format", b"x" * 10**6])
def test_an_entry_that_openvino_refuses_is_not_used(opener, compiled, tmp_path, caplog, monkeypatch, content):
    opener().open()
    blob_of(tmp_path).write_bytes(content)
    monkeypatch.setattr(GraphCache, "find", lambda entry: entry.path / "graph.blob")
    assert computed(opener()) == -3
    assert "openvino refuses the cached graph" in caplog.text
    assert len(compiled) == 2


@pytest.mark.parametrize("module", ["onnx_cut", "bfloat16", "graph", "read"])
def test_a_graph_that_an_older_version_of_ours_changed_is_not_used(opener, compiled, tmp_path, monkeypatch, module):
    real = inspect.getsource
    for source, entries in (("", 1), ("", 1), ("# changed", 2)):
        monkeypatch.setattr(
            inspect, "getsource", lambda of, new=source: real(of) + new * (of.__name__.rpartition(".")[2] == module)
        )
        assert computed(opener()) == -3
        assert len(compiled) == len(list((tmp_path / "cache").iterdir())) == entries


def test_an_entry_that_vanishes_before_it_is_read_is_not_used(opener, compiled, monkeypatch, caplog):
    opener().open()

    def find(entry):
        shutil.rmtree(entry.path)
        return entry.path / "graph.blob"

    monkeypatch.setattr(GraphCache, "find", find)
    assert computed(opener()) == -3
    assert "cannot read the cached graph" in caplog.text
    assert len(compiled) == 2


def raising(text, kind=RuntimeError):
    """A function that raises an error as OpenVINO does."""
    code = {"__name__": "openvino._ov_api", "error": kind(text)}
    exec("def fail(*_): raise error", code)
    return code["fail"]


def test_a_graph_that_the_device_cannot_export_is_used_but_not_cached(opener, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(CompiledGraph, "serialized", raising("export_model is not implemented"))
    assert computed(opener()) == -3
    assert "openvino cannot put the graph of" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(CompiledGraph, "serialized", raising("std::bad_alloc", MemoryError))
    with pytest.raises(OutOfMemoryError, match="openvino ran out of memory with"):
        opener().open()
    assert list((tmp_path / "cache").iterdir()) == []


class Devices:
    """OpenVINO's core on a machine with a GPU, of which some properties cannot be read."""

    available_devices = ("CPU", "GPU")
    driver, name = "24.1", "Arc"

    def get_property(self, device, name):
        assert device == "GPU"
        if name == "SUPPORTED_PROPERTIES":
            return {"PERF_COUNT": "RW", "NPU_DRIVER_VERSION": "RO", "GPU_DRIVER_VERSION": "RO"}
        if name == "NPU_DRIVER_VERSION" or self.name is None:
            raising("Cannot get unsupported property")()
        return {"FULL_DEVICE_NAME": self.name, "GPU_DRIVER_VERSION": self.driver}[name]


def test_another_driver_is_another_entry(opener, tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.engines.openvino.graph.core", Devices)
    on_gpu = replace(opener(), device="GPU", properties={})
    entries = {on_gpu._entry(tmp_path).path}
    assert on_gpu._entry(tmp_path).path in entries
    monkeypatch.setattr(Devices, "driver", "24.2")
    assert on_gpu._entry(tmp_path).path not in entries
    monkeypatch.setattr(Devices, "name", None)
    with pytest.raises(DeviceError, match=r"device 'openvino:GPU' cannot run .*: Cannot get unsupported property"):
        on_gpu.open()


def test_an_artifact_that_was_replaced_is_not_read_again(demo_onnx, picture, tmp_path):
    """Another model's stages would continue the suppression of the one that was opened."""
    path = tmp_path / "a.onnx"
    content = demo_onnx.read_bytes()
    for device in ("openvino", "cpu"):
        path.write_bytes(content)
        with Predictor(path, device) as predictor:
            letterbox, prepared = predictor.prepare(picture)
            inputs = {"images": prepared[None], "windows": np.float32([letterbox.window])}
            again = {
                "borders": lambda predictor=predictor, inputs=inputs: predictor.borders(*inputs.values()),
                "explain": lambda predictor=predictor: predictor.explain(picture),
                "finish": lambda predictor=predictor, inputs=inputs: predictor._engine._backend._finish(inputs),
            }
            new = tmp_path / "new.onnx"
            new.write_bytes(seal(read_model_of(path), json.dumps({"another": 1})))
            new.replace(path)
            for run in again.values():
                with pytest.raises(ArtifactError, match="is no longer the artifact that was opened"):
                    run()
            path.unlink()
            for run in again.values():
                with pytest.raises(ArtifactError, match="cannot read the artifact at"):
                    run()


@pytest.mark.parametrize("cached", [False, True])
def test_a_session_that_is_opened_later_is_of_the_same_artifact(demo_onnx, tmp_path, cached):
    """As for each new size of images on a GPU."""
    cache = ArtifactCache(tmp_path / "cache", demo_onnx, verified=True) if cached else None
    opener = SessionOpener(demo_onnx, 1, cache, digest="0" * 64)
    with pytest.raises(ArtifactError, match="is no longer the artifact that was opened"):
        opener.open([("CPUExecutionProvider", {})])
    assert not list((tmp_path / "cache").glob("*"))


def test_a_cache_that_cannot_be_written(opener, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cannot write to the cache"):
        opener().open()


# What is refused


def test_a_savedmodel_is_refused(tmp_path, plain):
    with pytest.raises(DeviceError, match="device 'openvino' runs ONNX artifacts only: export the model with"):
        open_backend(tmp_path, replace(plain.metadata, format="savedmodel"), "openvino")


@pytest.mark.parametrize("device", ["openvino", "openvino:GPU", "tensorrt"])
def test_a_savedmodel_in_bfloat16_is_refused_for_its_format(tmp_path, plain, device):
    opening = Opening(tmp_path, "", device, EngineOptions(precision="bf16"), True, True)
    with pytest.raises(DeviceError, match="runs ONNX artifacts only"):
        opening.open(replace(plain.metadata, format="savedmodel"))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (MemoryError("std::bad_alloc"), OutOfMemoryError, "openvino ran out of memory with .*: std::bad_alloc"),
        (
            RuntimeError("Exception from src/a.cpp:1:\nCheck 'x' failed at src/b.cpp:2:\nno kernel for Conv\n\n"),
            ArtifactError,
            "openvino 2026.* refuses .*demo.onnx: no kernel for Conv$",
        ),
    ],
)
def test_what_openvino_raises_when_it_compiles(demo_onnx, monkeypatch, error, kind, message):
    code = {"__name__": "openvino._ov_api", "error": error}
    exec("class Core:\n    def compile_model(self, *_): raise error", code)
    monkeypatch.setattr("runtime.engines.openvino.graph.core", code["Core"])
    with pytest.raises(kind, match=message):
        Predictor(demo_onnx, "openvino")


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("openvino", "CPU"),
        ("openvino:CPU", "CPU"),
        ("openvino:GPU", "GPU"),
        ("openvino:GPU.1", "GPU.1"),
        ("openvino:NPU", "NPU"),
        *((name, None) for name in ("auto", "cpu", "openvino:", "openvino:gpu", "openvino:AUTO", "openvino:CPU.1")),
    ],
)
def test_devices(device, expected):
    assert openvino_device(device) == expected


@pytest.mark.parametrize("device", ["openvino:GPU", "openvino:GPU.3", "openvino:NPU"])
def test_a_device_that_is_not_there_is_refused_with_what_there_is(demo_onnx, device, monkeypatch):
    from runtime.engines.openvino import devices

    class Machine:
        available_devices = ("CPU", "GNA")

    monkeypatch.setattr(devices, "core", Machine)
    with pytest.raises(DeviceError, match=f"device '{device}' was requested, but OpenVINO finds only CPU, GNA on"):
        Predictor(demo_onnx, device)


@pytest.mark.parametrize(
    ("found", "there", "absent"),
    [
        (("CPU", "GPU"), ("GPU", "GPU.0"), ("GPU.1", "NPU", "NPU.0")),
        (("CPU", "GPU.0", "GPU.1"), ("GPU", "GPU.0", "GPU.1"), ("GPU.2",)),
        (("CPU", "NPU"), ("NPU",), ("GPU", "GPU.0", "NPU.0")),
    ],
)
def test_a_single_gpu_also_has_a_number(found, there, absent, monkeypatch):
    monkeypatch.setattr(Devices, "available_devices", found)
    monkeypatch.setattr("runtime.engines.openvino.devices.core", Devices)
    for device in there:
        require_device(device)
    for device in absent:
        with pytest.raises(DeviceError, match="was requested, but OpenVINO finds only"):
            require_device(device)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tf32": True}, "tf32"),
        ({"cuda_graph": True}, "cuda_graph"),
        ({"gpu_memory_limit": 10**9, "tf32": True}, "gpu_memory_limit, tf32"),
    ],
)
def test_options_that_it_cannot_honor_are_refused_by_name(demo_onnx, options, named):
    with pytest.raises(DeviceError, match=f"EngineOptions has {named}, which OpenVINO cannot honor"):
        Predictor(demo_onnx, "openvino", engine=EngineOptions(**options))


def test_thresholds_of_a_run_are_honored(demo_onnx, picture):
    predictor, plain = Predictor(demo_onnx, "openvino"), Predictor(demo_onnx, "cpu")
    counts = set()
    middle = float(np.median(plain(picture).scores))
    for score, overlap in ((0.0, 1.0), (middle, 0.3), (0.0, 0.0), (1.0, 0.3)):
        for each in (predictor, plain):
            each.score_threshold, each.nms_threshold = score, overlap
        found, expected = predictor(picture), plain(picture)
        assert len(found) == len(expected), (score, overlap)
        assert np.allclose(found.boxes, expected.boxes, atol=0.01)
        counts.add(len(found))
    assert len(counts) > 2


QUIET = """
import socket, sys
def refuse(*arguments): raise AssertionError(f"network: {arguments}")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = refuse
from runtime import Predictor
import numpy as np
Predictor(sys.argv[1], "openvino")(np.zeros((64, 64, 3), np.uint8))
others = {"openvino_telemetry", "tensorflow", "onnx", "onnxruntime"}
print(sorted(others & {name.partition(".")[0] for name in sys.modules}))
import openvino_telemetry  # what others import is not hidden from them
"""


def test_nothing_is_sent_and_no_other_engine_is_loaded(demo_onnx, pytestconfig, tmp_path):
    """Importing openvino sends an event and writes an id into the home folder, unless its telemetry is left out."""
    home = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(pytestconfig.rootpath)}  # and CI is not set
    done = subprocess.run(
        [sys.executable, "-c", QUIET, demo_onnx], env=home, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
    assert list(tmp_path.iterdir()) == []
