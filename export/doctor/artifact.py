"""Whether this environment can run an artifact, and on which device."""

from collections.abc import Mapping
from pathlib import Path

from export.doctor.environment import Environment
from export.doctor.finding import DoctorFinding
from export.doctor.probe import ask_predictor
from export.doctor.wheels import ORT_WHEELS, TENSORFLOW_WHEELS, ort_extra, tensorflow_extra
from runtime.artifact import Metadata
from runtime.artifact_files.read import graph_digest
from runtime.engines.versions import version_numbers


def artifact_finding(environment: Environment, path: Path, metadata: Metadata) -> DoctorFinding:
    """Compare what an artifact needs with what is installed; if its engine is, open the artifact."""
    is_onnx = metadata.format == "onnx"
    wheels, extra = (
        (ORT_WHEELS, ort_extra(environment)) if is_onnx else (TENSORFLOW_WHEELS, tensorflow_extra(environment))
    )
    installed, device = environment.installed(wheels), "auto"
    if is_onnx and not installed and "openvino" in environment.packages:
        installed, device = ["openvino"], "openvino"
    engine = ", ".join(f"{name} {version}" for name, version in metadata.engine_minimum.items()) or wheels[0]
    needs = f"needs {engine} or later" + (f" (opset {metadata.opset})" if metadata.opset else "")
    subject = str(path)
    if not installed:
        return DoctorFinding("problem", subject, f"{needs}, not installed", environment.installer.extras(extra))
    answer = ask_predictor(subject, device)
    if answer.failure:
        have = ", ".join(f"{name} {environment.packages[name]}" for name in installed)
        fix = _fix(environment, installed[0], metadata.engine_minimum, extra)
        return DoctorFinding("problem", subject, f"{needs}, found {have}: {answer.failure}", fix)
    runs = f"{needs}; runs on {answer.facts.get('device')}"
    flaw = metadata.verdict_flaw(graph_digest(path))
    if flaw:
        return DoctorFinding("problem", subject, f"{runs}, but is not proven to equal its model: {flaw}")
    return DoctorFinding("ok", subject, runs)


def _fix(environment: Environment, wheel: str, minimum: Mapping[str, str], extra: str) -> str:
    """Return the command for a newer engine if it is too old, else for what the extra brings."""
    needed = version_numbers(next(iter(minimum.values()), "0"))
    if version_numbers(environment.packages[wheel]) < needed:
        return environment.installer.install(f"{wheel}>={'.'.join(map(str, needed))}")
    return environment.installer.extras(extra)
