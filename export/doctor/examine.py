"""What runs where on this machine, what does not, and the command that fixes it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export.doctor.artifact import artifact_finding
from export.doctor.cuda import cuda_findings
from export.doctor.engines import onnxruntime_findings, openvino_findings, tensorflow_findings
from export.doctor.environment import Environment, read_environment
from export.doctor.finding import DoctorFinding
from export.doctor.packages import package_findings
from export.doctor.probe import ask_onnxruntime, ask_openvino, ask_tensorflow
from export.doctor.wheels import ORT_WHEELS, TENSORFLOW_WHEELS
from runtime.artifact_files.read import read_metadata

if TYPE_CHECKING:
    from maskrcnn.callbacks import Say

_LISTED = (
    *("numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "tensorrt", "openvino"),
    *("tensorflow", "keras", "tf2onnx", "onnx"),
)


def examine(artifacts: Sequence[Path], progress: "Say") -> list[DoctorFinding]:
    """Examine packages, driver and engines, and whether artifacts run in this environment.

    Raises:
        ArtifactError: An artifact cannot be used anywhere: it is missing, foreign, damaged or too new.
    """
    described = [(path, read_metadata(path)) for path in artifacts]
    environment = read_environment()
    found = [DoctorFinding("ok", f"python {sys.version.split()[0]}", sys.executable)]
    found += _inventory(environment) + package_findings(environment) + cuda_findings(environment)
    if environment.ort or environment.installed(ORT_WHEELS):
        progress("starting ONNX Runtime")
        found += onnxruntime_findings(environment, ask_onnxruntime())
    if "openvino" in environment.packages:
        progress("starting OpenVINO")
        found += openvino_findings(environment, ask_openvino())
    if environment.installed(TENSORFLOW_WHEELS):
        progress("starting TensorFlow")
        found += tensorflow_findings(environment, ask_tensorflow())
    for path, metadata in described:
        progress(f"opening {path}")
        found.append(artifact_finding(environment, path, metadata))
    return found


def _inventory(environment: Environment) -> list[DoctorFinding]:
    others = [name for name in environment.installed((*ORT_WHEELS, *TENSORFLOW_WHEELS)) if name not in _LISTED]
    found = []
    for name in (*_LISTED, *others):
        version = environment.packages.get(name)
        found.append(DoctorFinding("ok" if version else "absent", name, version or "not installed"))
    gpus = ", ".join(environment.gpus) or "no GPU"
    driver = f"driver {environment.driver}" if environment.driver else "no driver"
    seen = environment.gpus or environment.driver
    return [*found, DoctorFinding("ok" if seen else "absent", "NVIDIA", f"{gpus}, {driver}")]
