"""OpenVINO behind the same predictor: what it must refuse, and what its library must not do."""

import subprocess
import sys

import numpy as np
import pytest

from runtime import EngineOptions, Predictor
from runtime.engines.choose import openvino_device
from runtime.errors import DeviceError

pytest.importorskip("runtime.engines.openvino.library", reason="openvino is not installed")


@pytest.fixture(scope="module")
def demo_onnx(pytestconfig):
    """The packaged artifact of the demo model."""
    return pytestconfig.rootpath / "maskrcnn" / "demo.onnx"


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
    assert predictor.device == "openvino"
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
