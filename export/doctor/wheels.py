"""Wheels of the engines: which share a folder, which CUDA and driver they need, which fit a machine."""

from export.doctor.environment import Environment
from runtime.engines.versions import version_numbers

# All install into the folder `onnxruntime`; no installer warns about it.
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
# All install into the folder `tensorflow`.
TENSORFLOW_WHEELS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-cpu-aws",
    "tensorflow-rocm",
    "intel-tensorflow",
    "tf-nightly",
    "tf-nightly-cpu",
)
# All install into the folder `nvidia/cudnn`.
CUDNN_WHEELS = ("nvidia-cudnn-cu11", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
# All install into the folder `tensorrt`, or bring a package that does.
TENSORRT_WHEELS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
# From NVIDIA's minor version compatibility table.
LOWEST_DRIVER = {12: 525, 13: 580}

_FIRST_ORT_WITH_CUDA_13 = (1, 27)


def cuda_of_onnxruntime(environment: Environment) -> int | None:
    """Return the major CUDA version that `onnxruntime-gpu` is built with; None if it is not installed."""
    version = environment.packages.get("onnxruntime-gpu")
    if version is None:
        return None
    return 13 if version_numbers(version) >= _FIRST_ORT_WITH_CUDA_13 else 12


def cuda_of_tensorflow(environment: Environment) -> int | None:
    """Return 12 if TensorFlow and its CUDA libraries are installed, else None."""
    return 12 if "tensorflow" in environment.packages and "nvidia-cudnn-cu12" in environment.packages else None


def driver_suits(environment: Environment, cuda: int) -> bool:
    """Return whether the driver supports a major CUDA version; an unknown driver is assumed to."""
    return environment.driver is None or version_numbers(environment.driver)[0] >= LOWEST_DRIVER[cuda]


def gpu_extra(environment: Environment) -> str:
    """Return the extra with the ONNX Runtime for CUDA that fits this environment; CUDA 12 beside TensorFlow.

    With the exporter, which needs a newer ONNX Runtime than there is for CUDA 12, TensorFlow must do without CUDA.
    """
    suits_13 = driver_suits(environment, 13)
    if suits_13 and "tf2onnx" in environment.packages and cuda_of_tensorflow(environment) is None:
        return "export-gpu"
    beside_tensorflow = bool(environment.installed(TENSORFLOW_WHEELS))
    return "onnx-gpu" if not beside_tensorflow and suits_13 else "onnx-gpu-cu12"


def ort_extra(environment: Environment) -> str:
    """Return the extra with the ONNX Runtime that fits this machine."""
    return gpu_extra(environment) if environment.gpus else "onnx"


def tensorflow_extra(environment: Environment) -> str:
    """Return the extra with the TensorFlow that fits this machine."""
    return "tf-gpu" if environment.gpus or cuda_of_tensorflow(environment) else "tf"
