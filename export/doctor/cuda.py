"""Problems with CUDA: mixed versions, clashing cuDNNs, an old driver, a GPU that is not visible."""

from collections.abc import Iterator

from export.doctor.environment import Environment
from export.doctor.finding import DoctorFinding
from export.doctor.wheels import (
    CUDNN_WHEELS,
    LOWEST_DRIVER,
    TENSORRT_WHEELS,
    cuda_of_onnxruntime,
    cuda_of_tensorflow,
    driver_suits,
    gpu_extra,
)
from runtime.engines.versions import TENSORRT_MAJOR, version_numbers

_CUDNN = 9  # major version that all supported engines are built with


def cuda_findings(environment: Environment) -> list[DoctorFinding]:
    """Return every problem with CUDA, with the command that fixes it if there is one."""
    rules = (_cudnn_clash, _mixed_cuda, _old_cudnn, _old_driver, _no_code, _other_tensorrt, _unseen_gpu)
    return [finding for rule in rules for finding in rule(environment)]


def _cudnn_clash(environment: Environment) -> Iterator[DoctorFinding]:
    clashing = environment.installed(CUDNN_WHEELS)
    if len(clashing) > 1:
        detail = (
            "share the folder nvidia/cudnn, with libraries for different CUDA versions under the same names: the one "
            "installed last wins, and uninstalling one breaks the other. Use one CUDA version for all engines"
        )
        yield DoctorFinding("problem", " and ".join(clashing), detail, _one_cuda(environment, clashing))


def _mixed_cuda(environment: Environment) -> Iterator[DoctorFinding]:
    """Find an ONNX Runtime built with another CUDA version than the installed libraries."""
    needed, cudnn = cuda_of_onnxruntime(environment), environment.installed(CUDNN_WHEELS)
    if needed is None or len(cudnn) != 1 or cudnn[0] == f"nvidia-cudnn-cu{needed}":
        return
    owner = "TensorFlow brings" if cuda_of_tensorflow(environment) else "the environment has"
    version = environment.packages["onnxruntime-gpu"]
    detail = f"{version} is built with CUDA {needed}, but {owner} the libraries of CUDA {cudnn[0][-2:]} ({cudnn[0]})"
    yield DoctorFinding("problem", "onnxruntime-gpu", detail, _one_cuda(environment, cudnn))


def _one_cuda(environment: Environment, cudnn: list[str]) -> str:
    """Return the command that leaves one cuDNN, for the CUDA version that all engines here can share."""
    installer = environment.installer
    extras = [gpu_extra(environment)] if cuda_of_onnxruntime(environment) else []
    extras += ["tf-gpu"] if cuda_of_tensorflow(environment) else []
    kept = f"nvidia-cudnn-cu{12 if 'onnx-gpu' not in extras else 13}"
    if not extras:  # no engine needs them: another package does
        kept = cudnn[-1] if driver_suits(environment, 13) else "nvidia-cudnn-cu12"
        return installer.without(cudnn, installer.install(kept))
    if cudnn == [kept]:
        return installer.extras(*extras)
    return installer.without(cudnn, installer.extras(*extras))


def _old_cudnn(environment: Environment) -> Iterator[DoctorFinding]:
    for wheel in environment.installed(CUDNN_WHEELS):
        version = environment.packages[wheel]
        if version_numbers(version)[0] < _CUDNN and wheel != "nvidia-cudnn-cu11":
            detail = f"{version} is too old: TensorFlow and ONNX Runtime need cuDNN {_CUDNN}"
            fix = environment.installer.install(f"{wheel}>={_CUDNN}.3,<{_CUDNN + 1}")
            yield DoctorFinding("problem", wheel, detail, fix)


def _old_driver(environment: Environment) -> Iterator[DoctorFinding]:
    driver = environment.driver
    cudas = {"onnxruntime-gpu": cuda_of_onnxruntime(environment), "tensorflow": cuda_of_tensorflow(environment)}
    for package, cuda in cudas.items():
        if cuda is None or driver_suits(environment, cuda):
            continue
        detail = f"{driver} is too old: {package} with CUDA {cuda} needs {LOWEST_DRIVER[cuda]} or later"
        fix = ""
        if driver_suits(environment, 12):
            detail += ", or use the ONNX Runtime for CUDA 12"
            thirteen = [name for name in ("nvidia-cudnn-cu13",) if name in environment.packages]
            installer = environment.installer
            fix = installer.without(thirteen, installer.extras("onnx-gpu-cu12"))
        else:
            detail += "; install a newer driver with your system's tools"
        yield DoctorFinding("problem", "NVIDIA driver", detail, fix)


def _no_code(environment: Environment) -> Iterator[DoctorFinding]:
    """Find a GPU that ONNX Runtime has no code for. Code runs on its own architecture and on later minor versions."""
    known = environment.architectures
    for name, capability in zip(environment.gpus, environment.capabilities, strict=False):
        major, minor = map(int, capability.split("."))
        if "onnxruntime-gpu" not in environment.packages or not known:
            continue
        if any(each // 10 == major and each % 10 <= minor for each in known):
            continue
        listed = ", ".join(f"{each // 10}.{each % 10}" for each in known)
        version = environment.packages["onnxruntime-gpu"]
        detail = f"{version} has no code for {name} (compute capability {capability}), only for {listed}"
        yield DoctorFinding("problem", "onnxruntime-gpu", f"{detail}: use device 'cpu', or another build")


def _other_tensorrt(environment: Environment) -> Iterator[DoctorFinding]:
    for package in environment.installed(TENSORRT_WHEELS):
        version = environment.packages[package]
        if version_numbers(version)[0] != TENSORRT_MAJOR and "onnxruntime-gpu" in environment.packages:
            detail = f"{version} is not used: onnxruntime-gpu needs the libraries of TensorRT {TENSORRT_MAJOR}"
            installer, installed = environment.installer, environment.installed(TENSORRT_WHEELS)
            yield DoctorFinding("problem", package, detail, installer.without(installed, installer.extras("tensorrt")))
            return


def _unseen_gpu(environment: Environment) -> Iterator[DoctorFinding]:
    subject = "NVIDIA GPU"
    if environment.driver_failure:
        fix = "sudo reboot" if "version mismatch" in environment.driver_failure else ""
        yield DoctorFinding("problem" if fix else "advice", subject, environment.driver_failure, fix)
    elif environment.hidden and environment.gpus:
        detail = "CUDA_VISIBLE_DEVICES hides every GPU from the engines"
        if environment.visible and environment.visible.strip() not in ("", "-1"):
            last = len(environment.gpus) - 1
            detail += f": it is {environment.visible}, and the GPUs are 0 to {last}"
        yield DoctorFinding("advice", subject, detail, "unset CUDA_VISIBLE_DEVICES")
    elif environment.driver and not environment.gpus:
        yield DoctorFinding("advice", subject, "there is a driver but no GPU: start a container with --gpus all")
