"""Machines on which CUDA cannot be used: each is noticed when a predictor is opened, and the reason is said."""

import os
import subprocess
import sys

import cuda_standin
import pytest

from runtime import EngineOptions, Predictor
from runtime.errors import DeviceError, OutOfMemoryError

pytestmark = pytest.mark.cuda_standin
MACHINES = {
    "no driver": ({"without": ["cuda"]}, "libcuda.so.1: cannot open shared object file"),
    "no cuDNN": ({"without": ["cudnn"]}, "device 'cuda:0' cannot be used: cuDNN is unavailable"),
    "no cuBLAS": ({"without": ["cublas"]}, "libcublas.so.13: cannot open shared object file"),
    "no device": ({"CUDA_STANDIN_DEVICES": "0"}, "CUDA failure 100: no CUDA-capable device is detected"),
    "no code": ({"CUDA_STANDIN_CAPABILITY": "7.0"}, "no kernel image is available for execution on the device"),
}
OPEN = """
import sys, logging
from runtime import Predictor
logging.basicConfig(level=logging.WARNING, format="log: %(message)s", stream=sys.stderr)
try:
    print("opened on", Predictor(sys.argv[1], sys.argv[2]).device)
except RuntimeError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_machine_without_something(machine, device, artifacts, libraries, tmp_path, pytestconfig):
    lacks, reason = MACHINES[machine]
    lacks = dict(lacks)
    folder = cuda_standin.machine(libraries, tmp_path / "machine", without=lacks.pop("without", ()))
    variables = os.environ | lacks | {"LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-c", OPEN, str(artifacts / "demo-cuda.onnx"), device]
    done = subprocess.run(
        command, cwd=pytestconfig.rootpath, env=variables, capture_output=True, text=True, check=True, timeout=60
    )
    (said,) = done.stdout.splitlines()
    logged = done.stderr.splitlines()
    if device == "cuda":
        assert said.startswith("DeviceError device 'cuda:0' ")
        assert logged == []
    else:
        assert said == "opened on cpu"
        (said,) = logged
        assert said.startswith("log: device 'auto': running on the CPU, because device 'cuda:0' ")
    assert reason in said
    assert "see 'maskrcnn doctor'" in said


@pytest.mark.parametrize("options", [{}, {"cuda_graph": True}], ids=str)
def test_an_index_beyond_the_devices(log, artifacts, options):
    with pytest.raises(DeviceError, match=r"'cuda:2' cannot be used: Invalid device ID: 2, must be between 0 .* and 2"):
        Predictor(artifacts / "demo.onnx", "cuda:2", engine=EngineOptions(**options))
    assert Predictor(artifacts / "demo.onnx", "cuda:1", engine=EngineOptions(**options)).device == "cuda:1"


@pytest.mark.parametrize("options", [{}, {"cuda_graph": True}, {"cache": "cache"}], ids=str)
@pytest.mark.parametrize("megabytes", [1, 3])
def test_too_little_memory_to_open(log, artifacts, options, megabytes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_STANDIN_MEMORY", str(megabytes * 2**20))
    with pytest.raises(OutOfMemoryError, match=r"device 'cuda:0' ran out of memory .*Failed to allocate memory"):
        Predictor(artifacts / "demo.onnx", "cuda:0", engine=EngineOptions(**options))
    monkeypatch.delenv("CUDA_STANDIN_MEMORY")
    assert Predictor(artifacts / "demo.onnx", "cuda:0", engine=EngineOptions(**options)).device == "cuda:0"


def test_a_limit_too_low_to_open(log, artifacts):
    with pytest.raises(OutOfMemoryError, match=r"demo.onnx.*gpu_memory_limit.*smaller than requested bytes"):
        Predictor(artifacts / "demo.onnx", "cuda", engine=EngineOptions(gpu_memory_limit=2**20))
