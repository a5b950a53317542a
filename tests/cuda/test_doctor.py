"""The doctor on made-up machines with ONNX Runtime's real CUDA provider: the right sentence for each."""

import cuda_standin
import pytest

from export.doctor.cuda_code import architectures
from export.doctor.examine import examine
from runtime import EngineOptions, Predictor
from runtime.errors import DeviceError

pytestmark = pytest.mark.cuda_standin


@pytest.fixture
def machine(libraries, tmp_path, monkeypatch):
    """Return a function that makes this machine another one: libraries, GPUs as `nvidia-smi` lists them, variables."""

    def become(gpus=("NVIDIA H100, 9.0",), without=(), **variables):
        folder = cuda_standin.machine(libraries, tmp_path / "libraries", without=without)
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        rows = "".join(f"echo '580.95.05, {gpu}'\n" for gpu in gpus)
        program.write_text(f"#!/bin/sh\n{rows or 'exit 9'}")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return become


def sentences(state):
    """The findings about CUDA and GPUs in a state."""
    subjects = ("onnxruntime-gpu", "onnxruntime starts", "NVIDIA GPU", "tensorrt", "tensorrt-cu13")
    return [(each.detail, each.fix) for each in examine([], print) if each.state == state and each.subject in subjects]


def test_a_sound_machine(machine):
    machine()
    assert sentences("problem") == sentences("advice") == []
    assert ("providers CUDAExecutionProvider, CPUExecutionProvider", "") in sentences("ok")


def test_no_driver(machine):
    machine(gpus=(), without=["cuda"])
    (found,) = [detail for detail, _ in sentences("advice") if "built with CUDA" in detail]
    assert found.startswith("built with CUDA, but there is no usable GPU here: it runs on the CPU: ")
    assert "libcuda.so.1: cannot open shared object file" in found


def test_no_cudnn(machine):
    machine(without=["cudnn"])
    ((detail, fix),) = sentences("problem")
    assert detail.startswith(
        "cannot compute on CUDA, although there is a GPU: device 'cuda:0' cannot be used: cuDNN is "
    )
    assert fix.endswith(" 'maskrcnn-export[onnx-gpu]'")


@pytest.mark.parametrize(("gpu", "capability"), [("Tesla V100", "7.0"), ("NVIDIA B200", "10.0")])
def test_a_gpu_without_code(machine, gpu, capability):
    assert len(architectures(cuda_standin.provider())) > 3
    machine(gpus=[f"{gpu}, {capability}"], CUDA_STANDIN_CAPABILITY=capability)
    details = [detail for detail, _ in sentences("problem")]
    assert len(details) == 2
    assert f"has no code for {gpu} (compute capability {capability}), only for 7.5, 8.0" in details[0]
    assert "no kernel image is available for execution on the device" in details[1]


def test_an_index_beyond_the_gpus(machine):
    machine(CUDA_VISIBLE_DEVICES="3", CUDA_STANDIN_DEVICES="0")
    details = [detail for detail, _ in sentences("advice")]
    assert "CUDA_VISIBLE_DEVICES hides every GPU from the engines: it is 3, and the GPUs are 0 to 0" in details
    assert sentences("problem") == []


def test_another_tensorrt(machine, tmp_path, monkeypatch):
    machine()
    site = tmp_path / "site"
    metadata = site / "tensorrt_cu13-11.4.0.106.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: tensorrt-cu13\nVersion: 11.4.0.106\n")
    monkeypatch.syspath_prepend(site)
    ((detail, fix),) = sentences("problem")
    assert detail == "11.4.0.106 is not used: onnxruntime-gpu needs the libraries of TensorRT 10"
    assert "uninstall" in fix
    assert fix.endswith(" 'maskrcnn-export[tensorrt]'")
    ((detail, _),) = sentences("advice")
    assert detail.startswith("cannot start TensorRT: device 'tensorrt:0' ")
    assert "libnvinfer.so.10: cannot open shared object file" in detail


def test_a_predictor_refuses_another_tensorrt(log, artifacts, tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("__version__ = '11.4.0.106'")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DeviceError, match=r"needs TensorRT 10 with onnxruntime 1.*, but tensorrt 11.4.0.106 is installed"
    ):
        Predictor(artifacts / "demo.onnx", "tensorrt", engine=EngineOptions(tf32=True))
