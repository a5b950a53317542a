"""What is installed and what the machine has: the description that the doctor's rules examine."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distributions, requires
from pathlib import Path

from packaging.utils import canonicalize_name

from export.doctor.cuda_code import CUDA_LIBRARY, architectures
from export.doctor.installer import Installer

# Packages whose files are checked: other packages overwrite them, or take them along when uninstalled.
_WATCHED = ("onnxruntime", "ort-nightly", "nvidia-", "tensorflow")
_LIBRARY = re.compile(r"\.(so|dll|pyd|dylib)(\.\d+)*$")
_SMI_SECONDS = 20
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class OrtFolder:
    """The folder `onnxruntime` that would be imported, as its own files describe it.

    Attributes:
        path: Path of the folder.
        package: Wheel that the files come from; "" if they do not say.
        version: Version of the files; "" if they do not say.
        importable: Whether it has an `__init__.py`; without one an empty package is imported.
    """

    path: Path
    package: str
    version: str
    importable: bool = True


@dataclass(frozen=True)
class Environment:
    """An environment and its machine.

    Attributes:
        packages: Version by normalized name: lower case, with hyphens.
        requirements: Requirements of maskrcnn-export with all extras; empty if it is not installed.
        lost: A file that a package lists but that is gone, by package.
        ort: The folder `onnxruntime`, if any.
        driver: Version of the NVIDIA driver; None if there is none.
        driver_failure: What `nvidia-smi` says if it fails, else "".
        gpus: Names of the NVIDIA GPUs.
        capabilities: Compute capability of each of them, such as "9.0".
        visible: The value of `CUDA_VISIBLE_DEVICES`; None if it is not set.
        architectures: Of the GPUs that the installed ONNX Runtime has code for, such as 90; empty if unknown.
        python: Major and minor version.
        installer: Writes install commands for this environment.
    """

    packages: Mapping[str, str]
    requirements: tuple[str, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    ort: OrtFolder | None = None
    driver: str | None = None
    driver_failure: str = ""
    gpus: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    visible: str | None = None
    architectures: tuple[int, ...] = ()
    python: tuple[int, int] = (3, 12)
    installer: Installer = field(default_factory=lambda: Installer("python"))

    @property
    def hidden(self) -> bool:
        """Whether `CUDA_VISIBLE_DEVICES` hides every GPU: it is empty, or begins with an index that no GPU has."""
        if self.visible is None:
            return False
        first = self.visible.split(",")[0].strip()
        beyond = bool(self.gpus) and first.isdigit() and int(first) >= len(self.gpus)
        return first in ("", "-1") or beyond

    def installed(self, names: Iterable[str]) -> list[str]:
        """Return the names that are installed."""
        return [name for name in names if name in self.packages]


def read_environment() -> Environment:
    """Describe this interpreter and this machine. What cannot be read is left out; nothing is raised."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        found.setdefault(canonicalize_name(_name(distribution)), distribution)
    found.pop("", None)
    driver, gpus, capabilities, failure = _nvidia()
    ort = _ort_folder(sys.path)
    return Environment(
        packages={name: str(distribution.version or "0") for name, distribution in found.items()},
        requirements=_requirements(),
        lost={name: lost for name, one in found.items() if name.startswith(_WATCHED) and (lost := _first_lost(one))},
        ort=ort,
        driver=driver,
        driver_failure=failure,
        gpus=gpus,
        capabilities=capabilities,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        architectures=architectures(ort.path / "capi" / CUDA_LIBRARY) if ort is not None and capabilities else (),
        python=sys.version_info[:2],
        installer=Installer(sys.executable, uses_uv=importlib.util.find_spec("pip") is None),
    )


def _name(distribution: Distribution) -> str:
    """Return the name in the metadata; "" if the metadata is damaged."""
    try:
        return str(distribution.metadata["Name"] or "")
    except (OSError, KeyError, TypeError, ValueError):
        return ""


def _requirements() -> tuple[str, ...]:
    try:
        return tuple(requires("maskrcnn-export") or ())
    except PackageNotFoundError:
        return ()


def _first_lost(distribution: Distribution) -> str:
    """Return the first listed library or top module that is gone. Container images often drop other files."""
    try:
        files = distribution.files or []
    except (OSError, ValueError):
        return ""
    for file in files:
        top_module = file.name == "__init__.py" and len(file.parts) == 2
        if (top_module or _LIBRARY.search(file.name)) and not Path(str(file.locate())).exists():
            return str(file)
    return ""


def _ort_folder(path: Iterable[str]) -> OrtFolder | None:
    """Find the folder on the import path. A folder without `__init__.py` loses to any package, as in an import."""
    folders = [Path(entry or ".").absolute() / "onnxruntime" for entry in path]
    wheels = [folder for folder in folders if (folder / "capi").is_dir()]  # a clone of the sources has no such folder
    if not wheels:
        return None
    folder = next((one for one in wheels if (one / "__init__.py").is_file()), wheels[0])
    try:
        text = (folder / "capi" / "build_and_package_info.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    says = dict(re.findall(r"^(package_name|__version__) = '([^']*)'", text, re.MULTILINE))
    package = canonicalize_name(says.get("package_name", ""))
    return OrtFolder(folder, package, says.get("__version__", ""), (folder / "__init__.py").is_file())


def _nvidia() -> tuple[str | None, tuple[str, ...], tuple[str, ...], str]:
    """Return the driver's version, names and compute capabilities of the GPUs, and what is wrong with `nvidia-smi`."""
    program = shutil.which("nvidia-smi")
    failure = ""
    if program:
        command = [program, "--query-gpu=driver_version,name,compute_cap", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            failure = f"nvidia-smi does not answer within {_SMI_SECONDS} s"
        else:
            rows = [re.fullmatch(r"(\d+\.\d\S*), (.+), (\d+\.\d)", line.strip()) for line in done.stdout.splitlines()]
            found = [row for row in rows if row]
            if done.returncode == 0 and found:
                return found[0][1], tuple(row[2] for row in found), tuple(row[3] for row in found), ""
            failure = ((done.stdout + done.stderr).strip().splitlines() or ["nvidia-smi finds nothing"])[-1]
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None, (), (), failure
    version = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    return version and version[0], tuple(device.name for device in devices), (), failure
