"""What will run where on this machine, why not, and the command that mends it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from export.doctor.artifact import artifact_finding
from export.doctor.cuda import cuda_findings
from export.doctor.engines import onnxruntime_findings, tensorflow_findings
from export.doctor.environment import Environment, read_environment
from export.doctor.finding import Finding
from export.doctor.packages import package_findings
from export.doctor.probe import ask_onnxruntime, ask_tensorflow
from export.doctor.wheels import ORT_WHEELS, TENSORFLOW_WHEELS
from runtime.artifact_files.read import read_metadata

__all__ = ["Finding", "examine"]

_LISTED = ("numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorflow", "keras", "tf2onnx", "onnx")


def examine(artifacts: Sequence[Path] = (), progress: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Look at packages, driver and engines; and at whether this environment runs some artifacts.

    Args:
        artifacts: `.onnx` files and SavedModel folders.
        progress: Told what is being done.

    Raises:
        ArtifactError: An artifact cannot be used anywhere: there is none, it is foreign, damaged or too new.
    """
    described = [(path, read_metadata(path)) for path in artifacts]
    environment = read_environment()
    found = [Finding("ok", f"python {sys.version.split()[0]}", sys.executable)]
    found += _inventory(environment) + package_findings(environment) + cuda_findings(environment)
    if environment.ort or environment.installed(ORT_WHEELS):
        progress("starting ONNX Runtime")
        found += onnxruntime_findings(environment, ask_onnxruntime())
    if environment.installed(TENSORFLOW_WHEELS):
        progress("starting TensorFlow")
        found += tensorflow_findings(environment, ask_tensorflow())
    for path, metadata in described:
        progress(f"opening {path}")
        found.append(artifact_finding(environment, path, metadata))
    return found


def _inventory(environment: Environment) -> list[Finding]:
    others = [name for name in environment.installed((*ORT_WHEELS, *TENSORFLOW_WHEELS)) if name not in _LISTED]
    found = []
    for name in (*_LISTED, *others):
        version = environment.packages.get(name)
        found.append(Finding("ok" if version else "absent", name, version or "not installed"))
    gpus = ", ".join(environment.gpus) or "no GPU"
    driver = f"driver {environment.driver}" if environment.driver else "no driver"
    seen = environment.gpus or environment.driver
    return [*found, Finding("ok" if seen else "absent", "NVIDIA", f"{gpus}, {driver}")]
