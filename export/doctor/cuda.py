"""What is wrong with CUDA: mixed versions, clashing cuDNN, a driver that is too old, a GPU that is not seen."""

from collections.abc import Iterator

from export.doctor.environment import Environment
from export.doctor.finding import Finding
from export.doctor.wheels import (
    CUDNN_WHEELS,
    LOWEST_DRIVER,
    cuda_of_onnxruntime,
    cuda_of_tensorflow,
    driver_suits,
    gpu_extra,
)
from runtime.engines.versions import version_numbers

_CUDNN = 9  # major version that every supported engine is built with


def cuda_findings(environment: Environment) -> list[Finding]:
    """Every problem of CUDA, each with the command that mends it where one does."""
    rules = (_cudnn_clash, _mixed_cuda, _old_cudnn, _old_driver, _unseen_gpu)
    return [finding for rule in rules for finding in rule(environment)]


def _cudnn_clash(environment: Environment) -> Iterator[Finding]:
    clashing = environment.installed(CUDNN_WHEELS)
    if len(clashing) > 1:
        detail = (
            "fill one folder, nvidia/cudnn, with the same names for different versions of CUDA: the last installed "
            "wins, and uninstalling one breaks the other. Keep TensorFlow and ONNX Runtime on one version of CUDA"
        )
        yield Finding("problem", " and ".join(clashing), detail, _one_cuda(environment, clashing))


def _mixed_cuda(environment: Environment) -> Iterator[Finding]:
    """An ONNX Runtime whose CUDA is not that of the libraries beside it."""
    needed, cudnn = cuda_of_onnxruntime(environment), environment.installed(CUDNN_WHEELS)
    if needed is None or len(cudnn) != 1 or cudnn[0] == f"nvidia-cudnn-cu{needed}":
        return
    whose = "TensorFlow brings" if cuda_of_tensorflow(environment) else "the environment has"
    version = environment.packages["onnxruntime-gpu"]
    detail = f"{version} is built with CUDA {needed}, but {whose} the libraries of CUDA {cudnn[0][-2:]} ({cudnn[0]})"
    yield Finding("problem", "onnxruntime-gpu", detail, _one_cuda(environment, cudnn))


def _one_cuda(environment: Environment, cudnn: list[str]) -> str:
    """The command after which one cuDNN is left, the one of the CUDA that all engines here can share."""
    installer = environment.installer
    extras = [gpu_extra(environment)] if cuda_of_onnxruntime(environment) else []
    extras += ["tf-gpu"] if cuda_of_tensorflow(environment) else []
    kept = f"nvidia-cudnn-cu{12 if 'onnx-gpu' not in extras else 13}"
    if not extras:  # of neither engine: another package asks for them
        kept = cudnn[-1] if driver_suits(environment, 13) else "nvidia-cudnn-cu12"
        return installer.without(cudnn, installer.install(kept))
    if cudnn == [kept]:
        return installer.extras(*extras)
    return installer.without(cudnn, installer.extras(*extras))


def _old_cudnn(environment: Environment) -> Iterator[Finding]:
    for wheel in environment.installed(CUDNN_WHEELS):
        version = environment.packages[wheel]
        if version_numbers(version)[0] < _CUDNN and wheel != "nvidia-cudnn-cu11":
            detail = f"{version} is too old: TensorFlow and ONNX Runtime are built with cuDNN {_CUDNN}"
            mend = environment.installer.install(f"{wheel}>={_CUDNN}.3,<{_CUDNN + 1}")
            yield Finding("problem", wheel, detail, mend)


def _old_driver(environment: Environment) -> Iterator[Finding]:
    driver = environment.driver
    cudas = {"onnxruntime-gpu": cuda_of_onnxruntime(environment), "tensorflow": cuda_of_tensorflow(environment)}
    for package, cuda in cudas.items():
        if cuda is None or driver_suits(environment, cuda):
            continue
        detail = f"{driver} is too old for {package}, which is built with CUDA {cuda}: needed is {LOWEST_DRIVER[cuda]}"
        mend = ""
        if driver_suits(environment, 12):
            detail += ", or an ONNX Runtime for CUDA 12"
            thirteen = [name for name in ("nvidia-cudnn-cu13",) if name in environment.packages]
            installer = environment.installer
            mend = installer.without(thirteen, installer.extras("onnx-gpu-cu12"))
        else:
            detail += " or later; install a newer one as your system does it"
        yield Finding("problem", "NVIDIA driver", detail, mend)


def _unseen_gpu(environment: Environment) -> Iterator[Finding]:
    subject = "NVIDIA GPU"
    if environment.driver_failure:
        mend = "sudo reboot" if "version mismatch" in environment.driver_failure else ""
        yield Finding("problem" if mend else "advice", subject, environment.driver_failure, mend)
    elif environment.hidden and environment.gpus:
        detail = "CUDA_VISIBLE_DEVICES hides every GPU from the engines"
        yield Finding("advice", subject, detail, "unset CUDA_VISIBLE_DEVICES")
    elif environment.driver and not environment.gpus:
        yield Finding("advice", subject, "a driver, but no GPU: a container sees them when started with --gpus all")
