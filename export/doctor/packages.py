"""Problems with the installed packages, judged by their names, versions and files alone."""

import shlex
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from export.doctor.environment import Environment
from export.doctor.finding import DoctorFinding, State
from export.doctor.wheels import (
    CUDNN_WHEELS,
    ORT_WHEELS,
    TENSORFLOW_WHEELS,
    TENSORRT_WHEELS,
    gpu_extra,
    ort_extra,
    tensorflow_extra,
)
from export.target import MINIMUM_ORT
from runtime.engines.versions import version_numbers

_PYTHONS = (3, 11), (3, 13)
# First ONNX Runtime that reads an operator set, from its own version table.
_FIRST_ORT_WITH_OPSET = {17: (1, 12), 18: (1, 14)}


def package_findings(environment: Environment) -> list[DoctorFinding]:
    """Return every problem with the packages, each with the command that fixes it."""
    rules = (_python, _shared_folders, _ort_folder, _lost_files, _old_onnxruntime, _requirements)
    return [finding for rule in rules for finding in rule(environment)]


def _python(environment: Environment) -> Iterator[DoctorFinding]:
    lowest, highest = _PYTHONS
    if not lowest <= environment.python <= highest:
        here, first, last = (".".join(map(str, version)) for version in (environment.python, lowest, highest))
        detail = f"not supported: TensorFlow has builds for {first} to {last} only"
        yield DoctorFinding("problem", f"python {here}", detail, f"python{last} -m venv .venv")


def _shared_folders(environment: Environment) -> Iterator[DoctorFinding]:
    """Find wheels that overwrite each other's files; no installer warns about it."""
    for folder, wheels, extra in (
        ("onnxruntime", ORT_WHEELS, ort_extra(environment)),
        ("tensorflow", TENSORFLOW_WHEELS, tensorflow_extra(environment)),
    ):
        several = environment.installed(wheels)
        if len(several) < 2:
            continue
        detail = f"share the folder {folder}: the one installed last wins, and uninstalling one breaks the other"
        if folder == "onnxruntime":
            now = environment.ort.package if environment.ort else ""
            detail += f". The files there now: {now or 'unknown'}. Keep one"
            detail += "" if environment.gpus else ", here the one for the CPU, because no GPU is visible"
        installer = environment.installer
        yield DoctorFinding(
            "problem", " and ".join(several), detail, installer.without(several, installer.extras(extra))
        )


def _ort_folder(environment: Environment) -> Iterator[DoctorFinding]:
    """Find files that another wheel left behind: under the name of an installed wheel, or of none."""
    folder, wheels = environment.ort, environment.installed(ORT_WHEELS)
    if folder is None or len(wheels) > 1:
        return
    installer = environment.installer
    if not wheels:
        state: State = "advice" if folder.importable else "problem"
        detail = f"{folder.path} belongs to no installed package: an uninstalled one left it"
        remove = shlex.join(["rm", "-r", str(folder.path)])
        yield DoctorFinding(
            state, "folder onnxruntime", detail, f"{remove} && {installer.extras(ort_extra(environment))}"
        )
        return
    (wheel,) = wheels
    version = environment.packages[wheel]
    found = " ".join(part for part in (folder.package, folder.version) if part)
    if (folder.package or wheel) != wheel or (folder.version or version) != version:
        detail = f"{version} is installed, but {folder.path} has the files of {found}"
        yield DoctorFinding("problem", wheel, detail, installer.again(f"{wheel}=={version}"))


def _lost_files(environment: Environment) -> Iterator[DoctorFinding]:
    folders = (ORT_WHEELS, TENSORFLOW_WHEELS, CUDNN_WHEELS)
    shared = {name for wheels in folders if len(environment.installed(wheels)) > 1 for name in wheels}
    for package, file in environment.lost.items():
        if package not in shared:  # the fix of the shared folder restores them
            version = environment.packages[package]
            detail = f"{version} is installed, but {file} is gone: uninstalling another package may have removed it"
            yield DoctorFinding("problem", package, detail, environment.installer.again(f"{package}=={version}"))


def _old_onnxruntime(environment: Environment) -> Iterator[DoctorFinding]:
    for wheel in environment.installed(ORT_WHEELS):
        version = environment.packages[wheel]
        if version_numbers(version) >= version_numbers(MINIMUM_ORT):
            continue
        unread = [str(opset) for opset, first in _FIRST_ORT_WITH_OPSET.items() if version_numbers(version) < first]
        why = f"cannot read opset {' and '.join(unread)}" if unread else "has no CUDA kernel for RoiAlign"
        detail = f"{version} {why}: artifacts need {MINIMUM_ORT} or later"
        extra = "onnx" if wheel == "onnxruntime" else gpu_extra(environment)
        others = [] if wheel in ("onnxruntime", "onnxruntime-gpu") else [wheel]
        installer = environment.installer
        yield DoctorFinding("problem", wheel, detail, installer.without(others, installer.extras(extra)))


def _requirements(environment: Environment) -> Iterator[DoctorFinding]:
    """Find versions that no extra allows: older ones break or have known vulnerabilities, newer ones are untested."""
    allowed: dict[str, list[SpecifierSet]] = {}
    for text in environment.requirements:
        requirement = Requirement(text)
        allowed.setdefault(requirement.name.lower(), []).append(requirement.specifier)
    for package, ranges in allowed.items():
        version = _version(environment.packages.get(package, ""))
        if package in TENSORRT_WHEELS:
            continue  # its major version is compared with what ONNX Runtime needs
        if version is None or any(each.contains(version, prereleases=True) for each in ranges):
            continue
        if package in ORT_WHEELS and version_numbers(str(version)) < version_numbers(MINIMUM_ORT):
            continue  # reported already, with more detail
        expected = " or ".join(sorted({str(each) for each in ranges}))
        old = all(_is_below(version, each) for each in ranges)
        detail = f"{version} is {'too old' if old else 'not tested'}: expected {expected}"
        installer = environment.installer
        if package == "onnxruntime-gpu":  # its extras exclude each other
            fix = installer.extras(gpu_extra(environment))
        else:
            fix = installer.install(f"{package}{SpecifierSet(','.join(map(str, ranges)))}")
        yield DoctorFinding("problem" if old else "advice", package, detail, fix)


def _is_below(version: Version, allowed: SpecifierSet) -> bool:
    return any(one.operator in (">=", "~=") and version < Version(one.version) for one in allowed)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
