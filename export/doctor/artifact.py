"""Whether this environment can run an artifact, and on which device."""

from collections.abc import Mapping
from pathlib import Path

from export.doctor.environment import Environment
from export.doctor.finding import Finding
from export.doctor.probe import ask_predictor
from export.doctor.wheels import ORT_WHEELS, TENSORFLOW_WHEELS, ort_extra, tensorflow_extra
from runtime.artifact import Metadata
from runtime.engines.versions import version_numbers


def artifact_finding(environment: Environment, path: Path, metadata: Metadata) -> Finding:
    """What an artifact needs and whether it is here; where it is, the artifact is opened."""
    is_onnx = metadata.format == "onnx"
    wheels, extra = (
        (ORT_WHEELS, ort_extra(environment)) if is_onnx else (TENSORFLOW_WHEELS, tensorflow_extra(environment))
    )
    installed = environment.installed(wheels)
    needs = ", ".join(f"{engine} {version}" for engine, version in metadata.engine_minimum.items()) or wheels[0]
    opset = f" (opset {metadata.opset})" if metadata.opset else ""
    subject, installer = str(path), environment.installer
    if not installed:
        return Finding("problem", subject, f"needs {needs} or later{opset}, not installed", installer.extras(extra))
    answer = ask_predictor(str(path))
    if answer.failure:
        have = ", ".join(f"{name} {environment.packages[name]}" for name in installed)
        detail = f"needs {needs} or later{opset}, here is {have}: {answer.failure}"
        return Finding("problem", subject, detail, _mend(environment, installed[0], metadata.engine_minimum, extra))
    return Finding("ok", subject, f"needs {needs} or later{opset}; runs on {answer.facts.get('device')}")


def _mend(environment: Environment, wheel: str, minimum: Mapping[str, str], extra: str) -> str:
    """A newer engine where it is too old; else what the extra brings."""
    needed = version_numbers(next(iter(minimum.values()), "0"))
    if version_numbers(environment.packages[wheel]) < needed:
        return environment.installer.install(f"{wheel}>={'.'.join(map(str, needed))}")
    return environment.installer.extras(extra)
