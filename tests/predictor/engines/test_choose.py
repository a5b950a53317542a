"""The choice of engine and device: what was asked for, or a refusal that says what to do."""

import logging
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bad_artifacts import reseal
from onnxruntime.capi.onnxruntime_pybind11_state import Fail as EngineFailure

from runtime import Placement, Predictor, read_metadata
from runtime.artifact_files.onnx_file import metadata_entry
from runtime.engines.choose import open_backend, parse_device
from runtime.engines.versions import check_engine
from runtime.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
    DeviceError,
    ForeignArtifactError,
)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", ("auto", 0)),
        ("cpu", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:1", ("cuda", 1)),
        ("cuda:13", ("cuda", 13)),
        ("tensorrt", ("tensorrt", 0)),
        ("tensorrt:2", ("tensorrt", 2)),
    ],
)
def test_device(device, expected):
    assert parse_device(device) == expected


@pytest.mark.parametrize(
    "device",
    [
        *("", "gpu", "tpu", "CPU", "Cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:1.5", "cuda:1:2", "cuda 1", "cuda1"),
        *("cpu:0", "cpu:", "auto:", "auto:1", " cpu", "cpu\n", "cuda:\N{SUPERSCRIPT TWO}", "cuda:" + "9" * 30),
        *("TensorRT", "trt", "tensorrt:", "tensorrt:-1"),
        *(0, None, b"cpu"),
    ],
)
def test_unknown_device(device):
    with pytest.raises(DeviceError) as refused:
        parse_device(device)
    message = str(refused.value)
    assert repr(device) in message
    assert (
        "'auto', 'cpu', 'cuda', 'cuda:N', 'tensorrt', 'tensorrt:N', 'openvino', 'openvino:GPU' or 'openvino:NPU'"
        in message
    )
    assert "\n" not in message


def test_unknown_device_is_refused_by_the_predictor(artifact):
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        Predictor(artifact, "tpu")


@pytest.fixture
def no_cuda(monkeypatch, artifact):
    """Make both engines see no CUDA device, also where there is one."""
    if artifact.is_dir():
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    else:
        import onnxruntime as ort

        monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_that_is_not_there_is_refused(artifact, no_cuda, device):
    with pytest.raises(DeviceError) as refused:
        Predictor(artifact, device)
    message = str(refused.value)
    assert "was requested" in message
    assert f"maskrcnn-export[{'tf-gpu' if artifact.is_dir() else 'onnx-gpu'}]" in message
    assert "\n" not in message


def test_auto_takes_the_cpu_where_there_is_no_cuda_and_says_so(artifact, no_cuda, caplog):
    caplog.set_level(logging.INFO, logger="runtime")
    assert Predictor(artifact, "auto").device == "cpu"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "running on the CPU" in caplog.text


def test_cpu_that_was_asked_for_is_not_worth_a_message(artifact, caplog):
    caplog.set_level(logging.INFO, logger="runtime")
    assert Predictor(artifact, "cpu").device == "cpu"
    assert caplog.records == []


def falls_back(real):
    """ONNX Runtime where the CUDA libraries do not load: a session on the CPU, and no error."""

    def session(path, sess_options, providers, **_fallback):
        return real(path, sess_options=sess_options, providers=[CPU])

    return session


def fails(real):
    """ONNX Runtime where the CUDA libraries load, but there is no device."""

    def session(path, sess_options, providers, **_fallback):
        if providers[0][0] == CUDA:
            raise EngineFailure("CUDA failure 100: no CUDA-capable device is detected\nsecond line")
        return real(path, sess_options=sess_options, providers=providers)

    return session


@pytest.fixture(params=[falls_back, fails])
def useless_cuda(request, monkeypatch):
    import onnxruntime as ort

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda **_options: None, raising=False)
    monkeypatch.setattr(ort, "InferenceSession", request.param(ort.InferenceSession))


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_onnx_runtime_that_cannot_use_cuda_is_refused(onnx_artifact, useless_cuda, device):
    with pytest.raises(DeviceError) as refused:
        Predictor(onnx_artifact, device)
    assert "CUDA" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_auto_takes_the_cpu_where_onnx_runtime_cannot_use_cuda(onnx_artifact, useless_cuda, caplog, picture):
    predictor = Predictor(onnx_artifact, "auto")
    assert predictor.device == "cpu"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert len(predictor(picture)) > 0
    assert {where for where, _ in predictor.explain().counts} == {CPU}


@pytest.mark.parametrize(
    ("installed", "minimum"),
    [
        ("1.25.0", "1.25"),
        ("1.25", "1.25.0"),
        ("1.31.1", "1.25"),
        ("2.0", "1.25"),
        ("1.31.1+cu130", "1.31.1"),
        ("2.21.0-rc1", "2.21.0"),
        ("1.25", None),
    ],
)
def test_engine_that_is_new_enough(installed, minimum):
    check_engine(Path("model.onnx"), "engine", installed, minimum)


@pytest.mark.parametrize(
    ("installed", "minimum"), [("1.24.3", "1.25"), ("1.9.0", "1.25"), ("1.25.0", "1.25.1"), ("1.31", "2.0")]
)
def test_engine_that_is_too_old(installed, minimum):
    with pytest.raises(ArtifactError) as refused:
        check_engine(Path("model.onnx"), "engine", installed, minimum)
    for part in ("model.onnx", installed, minimum, "pip install -U engine"):
        assert part in str(refused.value)


def test_artifact_for_a_newer_engine_is_refused(artifact, doctored):
    package = "tensorflow" if artifact.is_dir() else "onnxruntime"
    path = doctored(engine_minimum={package: "99.1"})
    with pytest.raises(
        ArtifactError, match=rf"needs {package} 99\.1 or later, but .* is installed: pip install -U {package}"
    ):
        Predictor(path, "cpu")


WITHOUT_ENGINE = """
import sys
sys.modules[sys.argv[2]] = None
from runtime import MissingPackageError, Predictor
try:
    Predictor(sys.argv[1], sys.argv[3])
except MissingPackageError as error:
    print(error.package, error.extra, isinstance(error, ImportError), error, sep="|")
"""


@pytest.mark.parametrize("device", ["auto", "openvino"])
def test_missing_engine_names_the_extra(artifact, pytestconfig, device):
    package, extra = ("tensorflow", "tf") if artifact.is_dir() else ("onnxruntime", "onnx")
    if device == "openvino":
        if artifact.is_dir():
            pytest.skip("ONNX only")
        package = extra = "openvino"
    command = [sys.executable, "-c", WITHOUT_ENGINE, str(artifact), package, device]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=True)
    fields = done.stdout.strip().split("|")
    assert fields[:3] == [package, extra, "True"]
    assert f"pip install 'maskrcnn-export[{extra}]'" in fields[3]


@pytest.mark.parametrize("name", ["nothing.onnx", "no/such/folder", "n" * 300])
@pytest.mark.parametrize("use", [Predictor, read_metadata])
def test_missing_artifact(tmp_path, name, use):
    with pytest.raises(ArtifactError) as refused:
        use(tmp_path / name)
    assert name in str(refused.value)
    if len(name) < 300:
        assert type(refused.value) is ArtifactNotFoundError
        assert isinstance(refused.value, FileNotFoundError)


@pytest.mark.parametrize("file", ["saved_model.pb", "notes.txt"])
def test_folder_that_is_not_ours(tmp_path, file):
    (tmp_path / file).write_bytes(b"content")
    with pytest.raises(ForeignArtifactError):
        Predictor(tmp_path)


def test_file_that_the_system_does_not_let_us_read(onnx_artifact, monkeypatch):
    def refuse(self, *_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(onnx_artifact), "open", refuse)
    with pytest.raises(ArtifactError, match=r"cannot read .*demo\.onnx: Permission denied"):
        read_metadata(onnx_artifact)


def test_changed_artifact_is_refused_unless_checking_is_turned_off(doctored, picture):
    path = doctored()
    whole = Predictor(path, "cpu")(picture)
    if path.is_dir():
        (path / "note.txt").write_bytes(b"added")
    else:
        path.write_bytes(metadata_entry("note", "added") + path.read_bytes())
    with pytest.raises(ArtifactCorruptError):
        Predictor(path, "cpu")
    again = Predictor(path, "cpu", verify_digest=False)(picture)
    np.testing.assert_array_equal(again.boxes, whole.boxes)


def test_graph_that_the_engine_refuses(artifact, tmp_path):
    metadata = read_metadata(artifact)
    path = tmp_path / "broken"
    if artifact.is_dir():
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"\x00 not a graph")
    else:
        path.write_bytes(metadata_entry("graph", "none"))
    reseal(path, metadata.to_json())
    engine = "tensorflow" if artifact.is_dir() else "onnxruntime"
    with pytest.raises(ArtifactError, match=rf"{engine} [0-9.]+ refuses .*broken") as refused:
        Predictor(path, "cpu")
    assert "\n" not in str(refused.value)


def test_artifact_whose_format_is_not_what_it_says(artifact, doctored):
    said, found = ("onnx", "a folder") if artifact.is_dir() else ("savedmodel", "a file")
    with pytest.raises(ArtifactCorruptError, match=f"the format '{said}', but it is {found}"):
        Predictor(doctored(format=said), "cpu")


def test_backend_gives_the_contract(artifact, predictor, picture):
    backend = open_backend(artifact, predictor.metadata, "cpu")
    side, rows, mask = 320, predictor.metadata.max_detections, predictor.metadata.mask_size
    inputs = {
        "images": np.zeros((2, side, side, 3), np.uint8),
        "windows": np.array([[0, 0, side, side]] * 2, np.float32),
        "score_threshold": np.float32(0.5),
        "nms_threshold": np.float32(0.3),
    }
    outputs = backend(inputs)
    described = {name: (array.dtype.name, array.shape) for name, array in outputs.items()}
    assert described == {
        "num_detections": ("int32", (2,)),
        "boxes": ("float32", (2, rows, 4)),
        "scores": ("float32", (2, rows)),
        "class_ids": ("int32", (2, rows)),
        "masks": ("float32", (2, rows, mask, mask)),
    }
    expected = {
        name: (tensor["dtype"], tuple(2 if side is None else side for side in tensor["shape"]))
        for name, tensor in predictor.metadata.outputs().items()
    }
    assert described == expected


def test_placement_counts_and_prints():
    counts = {(CUDA, "Conv"): 50, (CUDA, "MemcpyFromHost"): 2, (CPU, "Shape"): 7}
    placement = Placement("cuda:0", Counter(counts), {})
    assert str(placement).splitlines() == [
        "device cuda:0, 2 copies between devices",
        f"{CUDA}: 52 nodes: Conv 50, MemcpyFromHost 2",
        f"{CPU}: 7 nodes: Shape 7",
    ]
    assert placement.on_cpu == {"Shape": 7}
    assert str(replace(placement, device="cpu")).startswith("device cpu\n")
    assert replace(placement, device="cpu").on_cpu == {}


@pytest.mark.parametrize("operator", ["MemcpyFromHost", "MemcpyToHost", "_Recv", "_HostRecv"])
def test_placement_counts_copies(operator):
    counts = {("CPU:0", operator): 3, ("GPU:0", "_Send"): 3, ("CPU:0", "Where"): 1, ("GPU:0", "Conv2D"): 9}
    placement = Placement("cuda:0", counts, {})
    assert placement.copies == 3
    assert placement.on_cpu == {"Where": 1}
