"""The wheels of the engines: which share a folder, which CUDA and driver they need, which suit a machine."""

from export.doctor.environment import Environment
from runtime.engines.versions import version_numbers

# Each fills the one folder `onnxruntime`; no installer warns of it.
ORT_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-cann",
    "onnxruntime-coreml",
    "onnxruntime-directml",
    "onnxruntime-gpu-extended",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-silicon",
    "onnxruntime-training",
    "onnxruntime-training-cpu",
    "onnxruntime-trt-rtx",
    "onnxruntime-webgpu",
    "onnxruntime-windowsml",
    "ort-nightly",
    "ort-nightly-directml",
    "ort-nightly-gpu",
)
# Each fills the one folder `tensorflow`.
TENSORFLOW_WHEELS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-cpu-aws",
    "tensorflow-rocm",
    "intel-tensorflow",
    "tf-nightly",
    "tf-nightly-cpu",
)
# Each fills the one folder `nvidia/cudnn`.
CUDNN_WHEELS = ("nvidia-cudnn-cu11", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
# From NVIDIA's table of minor version compatibility.
LOWEST_DRIVER = {12: 525, 13: 580}

_FIRST_ORT_WITH_CUDA_13 = (1, 27)


def cuda_of_onnxruntime(environment: Environment) -> int | None:
    """Major version of the CUDA that the installed `onnxruntime-gpu` is built with; None without one."""
    version = environment.packages.get("onnxruntime-gpu")
    if version is None:
        return None
    return 13 if version_numbers(version) >= _FIRST_ORT_WITH_CUDA_13 else 12


def cuda_of_tensorflow(environment: Environment) -> int | None:
    """12 where TensorFlow and the CUDA libraries it asks for are installed, else None."""
    return 12 if "tensorflow" in environment.packages and "nvidia-cudnn-cu12" in environment.packages else None


def driver_suits(environment: Environment, cuda: int) -> bool:
    """Whether the driver runs programs of a major version of CUDA; an unknown driver is taken to."""
    return environment.driver is None or version_numbers(environment.driver)[0] >= LOWEST_DRIVER[cuda]


def gpu_extra(environment: Environment) -> str:
    """The extra with the ONNX Runtime for CUDA that suits this environment; beside TensorFlow that for CUDA 12."""
    beside_tensorflow = bool(environment.installed(TENSORFLOW_WHEELS))
    return "onnx-gpu" if not beside_tensorflow and driver_suits(environment, 13) else "onnx-gpu-cu12"


def ort_extra(environment: Environment) -> str:
    """The extra with the ONNX Runtime that suits this machine."""
    return gpu_extra(environment) if environment.gpus else "onnx"


def tensorflow_extra(environment: Environment) -> str:
    """The extra with the TensorFlow that suits this machine."""
    return "tf-gpu" if environment.gpus or cuda_of_tensorflow(environment) else "tf"
