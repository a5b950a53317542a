"""Problems with engines, judged by what they answered when started."""

from collections.abc import Mapping

from export.doctor.environment import Environment
from export.doctor.finding import DoctorFinding
from export.doctor.probe import Answer
from export.doctor.wheels import (
    ORT_WHEELS,
    TENSORFLOW_WHEELS,
    TENSORRT_WHEELS,
    cuda_of_onnxruntime,
    driver_suits,
    gpu_extra,
)

_CPU, _CUDA, _TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


def onnxruntime_findings(environment: Environment, answer: Answer) -> list[DoctorFinding]:
    """Check that ONNX Runtime starts and uses the GPU."""
    subject, installer = "onnxruntime starts", environment.installer
    wheels = environment.installed(ORT_WHEELS)
    wheel = wheels[0] if len(wheels) == 1 else "onnxruntime"
    failure = answer.failure
    if not failure and _CPU not in answer.facts.get("started", ()):
        failure = f"cannot start a session on the CPU (available: {answer.facts.get('available')})"
    if failure:
        return [DoctorFinding("problem", subject, failure, _reinstall(environment, wheel, wheels))]
    started = answer.facts["started"]
    found = [DoctorFinding("ok", subject, "providers " + ", ".join(started))]
    available, reasons = answer.facts["available"], answer.facts.get("reasons", {})
    extra, cuda = gpu_extra(environment), cuda_of_onnxruntime(environment)
    if environment.installed(TENSORRT_WHEELS) and _TENSORRT in available and _TENSORRT not in started:
        detail = f"cannot start TensorRT: {reasons.get(_TENSORRT, 'its libraries do not load')}"
        found.append(DoctorFinding("advice", wheel, detail))
    if _CUDA in started:
        return found
    if not environment.gpus or environment.hidden:
        if _CUDA in available:
            detail = f"built with CUDA, but there is no usable GPU here: it runs on the CPU{_because(answer, _CUDA)}"
            found.append(DoctorFinding("advice", wheel, detail))
        return found
    if _CUDA not in available:
        detail = "a build without CUDA, although there is an NVIDIA GPU"
        found.append(DoctorFinding("advice", wheel, detail, installer.without(wheels, installer.extras(extra))))
    elif cuda is None or driver_suits(environment, cuda):  # otherwise the driver is the problem
        why = _because(answer, _CUDA) or ": its CUDA libraries are missing or do not load"
        detail = f"cannot compute on CUDA, although there is a GPU{why}"
        found.append(DoctorFinding("problem", wheel, detail, installer.extras(extra)))
    return found


def _because(answer: Answer, device: str) -> str:
    """Return what an engine said of a device that did not start."""
    reasons: Mapping[str, str] = answer.facts.get("reasons", {})
    return f": {reasons[device]}" if device in reasons else ""


def tensorflow_findings(environment: Environment, answer: Answer) -> list[DoctorFinding]:
    """Check that TensorFlow starts and sees the GPU."""
    subject, installer = "tensorflow starts", environment.installer
    wheels = environment.installed(TENSORFLOW_WHEELS)
    if answer.failure:
        return [DoctorFinding("problem", subject, answer.failure, _reinstall(environment, wheels[0], wheels))]
    gpus, cuda = answer.facts.get("gpus", 0), answer.facts.get("cuda", False)
    built = "built with CUDA" if cuda else "built without CUDA"
    found = [DoctorFinding("ok", subject, f"sees {gpus} GPUs, {built}")]
    if gpus or not environment.gpus or environment.hidden or not driver_suits(environment, 12):
        return found
    # ONNX Runtime for CUDA 13 cannot share an environment with TensorFlow's CUDA 12.
    extras = ["tf-gpu"] + (["onnx-gpu-cu12"] if cuda_of_onnxruntime(environment) else [])
    if not cuda:
        detail = "a build without CUDA, although there is an NVIDIA GPU"
        fix = installer.without(wheels, installer.extras(*extras))
        return [*found, DoctorFinding("advice", wheels[0], detail, fix)]
    if "nvidia-cudnn-cu12" not in environment.packages:
        detail = "sees no GPU, although there is one: the CUDA libraries of the extra tf-gpu are not installed"
        return [*found, DoctorFinding("advice", wheels[0], detail, installer.extras(*extras))]
    detail = "sees no GPU, although there is one: its CUDA libraries are installed but do not load"
    libraries = sorted(
        f"{name}=={version}"
        for name, version in environment.packages.items()
        if name.startswith("nvidia-") and name.endswith("-cu12")
    )
    return [*found, DoctorFinding("problem", wheels[0], detail, installer.again(*libraries))]


def openvino_findings(environment: Environment, answer: Answer) -> list[DoctorFinding]:
    """Check that OpenVINO starts on the processor, and on the other devices that it sees."""
    subject, package, installer = "openvino starts", "openvino", environment.installer
    started = answer.facts.get("started", ())
    failure = answer.failure or ("" if "CPU" in started else f"cannot run on the CPU{_because(answer, 'CPU')}")
    if failure:
        fix = installer.again(f"{package}=={environment.packages[package]}")
        return [DoctorFinding("problem", subject, failure, fix)]
    names = answer.facts["names"]
    found = [DoctorFinding("ok", subject, "devices " + ", ".join(f"{name} ({names[name]})" for name in started))]
    for device in sorted(set(names) - set(started)):
        detail = f"sees {device} ({names[device]}), which cannot run{_because(answer, device)}"
        found.append(DoctorFinding("advice", package, detail))
    return found


def _reinstall(environment: Environment, wheel: str, wheels: list[str]) -> str:
    """Return the command that reinstalls a wheel; if there are several or none, the one that fits."""
    installer = environment.installer
    if len(wheels) == 1 and wheel in environment.packages:
        return installer.again(f"{wheel}=={environment.packages[wheel]}")
    extra = "tf" if wheel in TENSORFLOW_WHEELS else "onnx"
    return installer.without(wheels, installer.extras(extra))
