"""Options of the engines: each one reaches its engine, or is refused."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from runtime import EngineOptions, Predictor
from runtime.engines.processors import usable_cores
from runtime.errors import DeviceError, InputError

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("threads", "gpu_memory_limit") for value in (0, -1, 1.5, True, "2")],
        *[(name, value) for name in ("tf32", "cuda_graph") for value in (1, None, "yes")],
        *[("precision", value) for value in ("", "fp16", "BF16", 16, True, np.zeros(2))],
        *[("cache", value) for value in ("", 3, True)],
    ],
)
def test_value_that_is_none(name, value):
    with pytest.raises(InputError, match=f"^{name} is "):
        EngineOptions(**{name: value})


@pytest.mark.parametrize("option", [{"tf32": True}, {"cuda_graph": True}, {"gpu_memory_limit": 2**30}], ids=str)
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_option_for_a_gpu_is_refused_on_the_cpu(artifact, option, device, monkeypatch):
    if artifact.is_dir():
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    else:
        import onnxruntime as ort

        monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    with pytest.raises(DeviceError) as refused:
        Predictor(artifact, device, engine=EngineOptions(**option))
    (name,) = option
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_saved_model_has_no_cache(savedmodel_artifact, tmp_path):
    with pytest.raises(DeviceError, match="cache, which is for ONNX artifacts"):
        Predictor(savedmodel_artifact, "cpu", engine=EngineOptions(cache=tmp_path))


def test_saved_model_has_no_tensorrt(savedmodel_artifact):
    with pytest.raises(DeviceError, match="ONNX artifacts only"):
        Predictor(savedmodel_artifact, "tensorrt")


@pytest.fixture
def opened(monkeypatch):
    """Sessions as they are opened: options, providers, and what was opened. CUDA and TensorRT only seem to be there."""
    import onnxruntime as ort

    real, calls = ort.InferenceSession, []

    class Session:
        def __init__(self, source, sess_options, providers, **_fallback):
            calls.append(SimpleNamespace(source=source, options=sess_options, providers=providers))
            self._real = real(source, sess_options=sess_options, providers=[CPU])

        def get_providers(self):
            return [name for name, _ in calls[-1].providers]

        def __getattr__(self, name):
            return getattr(self._real, name)

    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda **_options: None, raising=False)
    monkeypatch.setattr(ort, "InferenceSession", Session)
    return calls


@pytest.mark.parametrize(("asked", "expected"), [(None, usable_cores()), (1, 1), (3, 3)])
def test_threads_of_onnx_runtime(onnx_artifact, opened, asked, expected):
    predictor = Predictor(onnx_artifact, "cpu", engine=EngineOptions(threads=asked))
    predictor.explain()
    assert [call.options.intra_op_num_threads for call in opened] == [expected] * 2
    spinning = "session.force_spinning_stop"
    assert [call.options.get_session_config_entry(spinning) for call in opened] == ["1"] * 2


THREADS = """
import sys
import tensorflow as tf
from runtime import EngineOptions, Predictor
Predictor(sys.argv[1], "cpu", engine=EngineOptions(threads=1))
print(tf.config.threading.get_intra_op_parallelism_threads())
Predictor(sys.argv[1], "cpu", engine=EngineOptions(threads=1))
try:
    Predictor(sys.argv[1], "cpu", engine=EngineOptions(threads=2))
except RuntimeError as error:
    print(type(error).__name__, error)
"""


def test_threads_of_tensorflow(savedmodel_artifact, pytestconfig):
    command = [sys.executable, "-c", THREADS, str(savedmodel_artifact)]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=True)
    threads, refused = done.stdout.splitlines()
    assert threads == "1"
    assert refused.startswith("DeviceError EngineOptions has threads=2, but TensorFlow already runs in this process")


def test_options_of_cuda(onnx_artifact, opened):
    predictor = Predictor(onnx_artifact, "cuda:2")
    assert predictor.device == "cuda:2"
    settings = {"device_id": 2, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0}
    settings["arena_extend_strategy"] = "kSameAsRequested"
    assert [call.providers for call in opened] == [[(CUDA, settings), (CPU, {})]] * 2  # the first runs a convolution
    Predictor(onnx_artifact, "cuda", engine=EngineOptions(tf32=True, gpu_memory_limit=3 * 2**30))
    settings = opened[3].providers[0][1]
    assert (settings["device_id"], settings["use_tf32"], settings["gpu_mem_limit"]) == (0, 1, 3 * 2**30)


def test_cuda_graph_records_the_first_part_only(onnx_artifact, opened, monkeypatch):
    monkeypatch.setattr("runtime.engines.ort.gpu_sessions.Stream", lambda device: SimpleNamespace(handle=10 + device))
    Predictor(onnx_artifact, "cuda:2", engine=EngineOptions(cuda_graph=True))
    settings = [call.providers[0][1] for call in opened]
    assert [each.get("enable_cuda_graph") for each in settings] == [None, 1, 0]
    assert [each.get("user_compute_stream") for each in settings] == [None, "12", "12"]
    assert not [call for call in opened if isinstance(call.source, str)]  # the graph is in memory only in two parts


def test_cuda_graph_needs_the_borders(doctored, artifact, opened):
    if artifact.is_dir():
        pytest.skip("ONNX only")
    from runtime.errors import ArtifactError

    with pytest.raises(ArtifactError, match="export the model again"):
        Predictor(doctored(borders={}), "cuda", engine=EngineOptions(cuda_graph=True))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tensorrt(doctored, artifact, opened, tmp_path, monkeypatch, precision):
    if artifact.is_dir():
        pytest.skip("ONNX only")
    monkeypatch.setattr("runtime.engines.ort.gpu_sessions.GpuSessions._require_fixed_size", lambda *_: None)
    path = doctored(precision=precision)
    options = EngineOptions(tf32=True, cache=tmp_path / "cache")
    assert Predictor(path, "tensorrt:1", engine=options, require_verdict=False).device == "tensorrt:1"
    probe, call = opened
    assert [name for name, _ in probe.providers] == [CUDA, CPU]
    assert [name for name, _ in call.providers] == [TENSORRT, CUDA, CPU]
    settings = call.providers[0][1]
    assert (settings["trt_fp16_enable"], settings["trt_int8_enable"]) == (0, int(precision == "int8"))
    assert call.providers[1][1]["device_id"] == settings["device_id"] == 1
    assert "NonMaxSuppression" in settings["trt_op_types_to_exclude"]
    (folder,) = (tmp_path / "cache").iterdir()
    assert settings["trt_engine_cache_path"] == settings["trt_timing_cache_path"] == str(folder)
    assert call.options.optimized_model_filepath == ""


def test_tensorrt_refuses_sizes_that_change(onnx_artifact, opened):
    with pytest.raises(DeviceError, match=r"needs a graph of fixed size, but images of .*demo\.onnx is \['batch'"):
        Predictor(onnx_artifact, "tensorrt", engine=EngineOptions(tf32=True))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "NVIDIA_TF32_OVERRIDE"),
        ({"cuda_graph": True}, "cuda_graph"),
        ({"gpu_memory_limit": 2**30}, "gpu_memory_limit"),
    ],
)
def test_tensorrt_refuses_what_it_cannot_honor(onnx_artifact, opened, monkeypatch, options, what):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with pytest.raises(DeviceError, match=what):
        Predictor(onnx_artifact, "tensorrt", engine=EngineOptions(**options))
    assert opened == []


def test_tensorrt_without_tf32(onnx_artifact, opened, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with pytest.raises(DeviceError, match="fixed size"):
        Predictor(onnx_artifact, "tensorrt")


@pytest.mark.parametrize("error", [OSError("libnvinfer.so.10: cannot open"), ImportError("undefined symbol")], ids=repr)
def test_tensorrt_that_cannot_be_loaded(onnx_artifact, opened, monkeypatch, error):
    def import_module(_name):
        raise error

    monkeypatch.setattr("runtime.engines.ort.providers.importlib.import_module", import_module)
    with pytest.raises(DeviceError, match="the installed tensorrt cannot be loaded: "):
        Predictor(onnx_artifact, "tensorrt", engine=EngineOptions(tf32=True))
    assert opened == []


def test_tensorrt_that_is_not_there(onnx_artifact, monkeypatch):
    import onnxruntime as ort

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(DeviceError, match="a build without TensorRT"):
        Predictor(onnx_artifact, "tensorrt")


@pytest.fixture
def recorder(predictor, monkeypatch):
    """What the predictor's engine is run on, and what it finds."""
    backend, runs = predictor._engine._backend, []

    class Recorder:
        def __call__(self, inputs):
            runs.append((inputs, backend(inputs)))
            return runs[-1][1]

    monkeypatch.setattr(predictor._engine, "_backend", Recorder())
    return runs


def test_warm_up_runs_each_size_once_with_work_for_every_stage(predictor, recorder):
    side = predictor.metadata.resize.max_dim
    before = predictor.score_threshold
    predictor.warm_up(iter([(360, 480), (720, 960), (90, 40), (360, 480)]), batch_size=2)
    assert predictor.score_threshold == before > 0
    for inputs, outputs in recorder:
        assert inputs["images"].shape == (2, side, side, 3)
        assert inputs["score_threshold"] == 0
        assert outputs["num_detections"].all()
    assert len(recorder) == 1  # all sizes become one


@pytest.mark.parametrize(
    ("sizes", "batch_size", "said"),
    [
        ([(10**9, 10**9)], 1, "sizes has (1000000000, 1000000000): expected at most 100000000 pixels"),
        ([(64, 64), (1, 10**400)], 1, "sizes has (1, 1000"),
        ([(64, 64), (2**62, 2**62)], 1, "sizes has (46116"),
        ([(64, 64)], 10**9, "batch_size is 1000000000: expected at most 16384 images of"),
        ([(64, 64)], sys.maxsize, "batch_size is 9223372036854775807: expected at most 16384 images of"),
    ],
)
def test_warm_up_of_more_than_fits(predictor, sizes, batch_size, said):
    with pytest.raises(InputError) as refused:
        predictor.warm_up(sizes, batch_size)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300


def test_warm_up_of_sizes_that_differ(doctored, monkeypatch):
    path = doctored(resize={"mode": "pad64", "min_dim": 64, "max_dim": None, "min_scale": None})
    predictor = Predictor(path, "cpu")
    shapes = []
    monkeypatch.setattr(
        predictor._engine, "_backend", lambda inputs: shapes.append((inputs["images"].shape, *inputs["windows"]))
    )
    predictor.warm_up([(100, 130), (64, 64), (128, 192)])
    assert [shape for shape, _ in shapes] == [(1, 128, 192, 3), (1, 64, 64, 3)]
    np.testing.assert_array_equal(shapes[1][1], [0, 0, 64, 64])


@pytest.mark.parametrize("sizes", [[(0, 3)], [(3, -1)], [(1.5, 2)], [(64,)], [(64, 64, 3)], [64], ["ab"]])
def test_warm_up_of_no_size(predictor, sizes):
    with pytest.raises(InputError, match="sizes has"):
        predictor.warm_up(sizes)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_warm_up_of_no_batch(predictor, batch_size):
    with pytest.raises(InputError, match="batch_size"):
        predictor.warm_up([(64, 64)], batch_size)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options", [{"cuda_graph": True}, {"gpu_memory_limit": 2 * 2**30}, {"cache": "cache"}], ids=str
)
def test_cuda_with_options_finds_what_cuda_finds(onnx_artifact, picture, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = Predictor(onnx_artifact, "cuda")(picture)
    assert len(expected) >= 6
    for _ in range(2):
        predictor = Predictor(onnx_artifact, "cuda", engine=EngineOptions(**options))
        for _ in range(3):  # the second run records, the third replays
            found = predictor(picture)
            np.testing.assert_array_equal(found.class_ids, expected.class_ids)
            np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=0.01)
            np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
