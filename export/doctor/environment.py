"""What is installed and what the machine has: the description that the rules of the doctor look at."""

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

from export.doctor.mend import Installer

# Packages whose files are looked for: those that others overwrite, or take along when they go.
_WATCHED = ("onnxruntime", "ort-nightly", "nvidia-", "tensorflow")
_LIBRARY = re.compile(r"\.(so|dll|pyd|dylib)(\.\d+)*$")
_SMI_SECONDS = 20
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class OrtFolder:
    """The folder `onnxruntime` that an import would take, as its own files describe it.

    Attributes:
        path: Where it lies.
        package: Name of the wheel whose files they are; "" where they do not say.
        version: Of these files; "" where they do not say.
        importable: Whether it has an `__init__.py`; without, what is imported is empty.
    """

    path: Path
    package: str
    version: str
    importable: bool = True


@dataclass(frozen=True)
class Environment:
    """An environment; tests make them up.

    Attributes:
        packages: Version by name, in lower case with hyphens.
        requirements: What maskrcnn-export asks for, all extras; empty where it runs without being installed.
        lost: A library or module that a package lists and that is not there, by package.
        ort: The folder `onnxruntime`; None where there is none.
        driver: Version of the NVIDIA driver; None where none is seen.
        driver_failure: What `nvidia-smi` says where it is there and fails; else "".
        gpus: Names of the NVIDIA GPUs that can be seen.
        hidden: Whether `CUDA_VISIBLE_DEVICES` hides every GPU.
        python: Major and minor version.
        installer: How commands that install are written here.
    """

    packages: Mapping[str, str]
    requirements: tuple[str, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    ort: OrtFolder | None = None
    driver: str | None = None
    driver_failure: str = ""
    gpus: tuple[str, ...] = ()
    hidden: bool = False
    python: tuple[int, int] = (3, 12)
    installer: Installer = field(default_factory=lambda: Installer("python"))

    def installed(self, names: Iterable[str]) -> list[str]:
        """Those of the packages that are installed."""
        return [name for name in names if name in self.packages]


def read_environment() -> Environment:
    """Describe this interpreter and this machine; what cannot be read is left out, never an error."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        found.setdefault(canonicalize_name(_name(distribution)), distribution)
    found.pop("", None)
    driver, gpus, failure = _nvidia()
    return Environment(
        packages={name: str(distribution.version or "0") for name, distribution in found.items()},
        requirements=_requirements(),
        lost={name: lost for name, one in found.items() if name.startswith(_WATCHED) and (lost := _first_lost(one))},
        ort=_ort_folder(sys.path),
        driver=driver,
        driver_failure=failure,
        gpus=gpus,
        hidden=os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"),
        python=sys.version_info[:2],
        installer=Installer(sys.executable, uses_uv=importlib.util.find_spec("pip") is None),
    )


def _name(distribution: Distribution) -> str:
    """As its metadata has it; "" for a folder of metadata that is damaged."""
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
    """The first library or top module on a package's list of files that is gone; images often leave out the rest."""
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
    """Any package wins over a folder without `__init__.py`, wherever they are on the path."""
    folders = [Path(entry or ".").absolute() / "onnxruntime" for entry in path]
    wheels = [folder for folder in folders if (folder / "capi").is_dir()]  # a clone of its sources has none there
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


def _nvidia() -> tuple[str | None, tuple[str, ...], str]:
    """Version of the driver, names of the GPUs, and what is wrong with `nvidia-smi`."""
    program = shutil.which("nvidia-smi")
    failure = ""
    if program:
        command = [program, "--query-gpu=driver_version,name", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            failure = f"nvidia-smi gives no answer within {_SMI_SECONDS} s"
        else:
            rows = [line.split(", ", 1) for line in done.stdout.splitlines() if re.match(r"\d+\.\d", line)]
            if done.returncode == 0 and rows:
                return rows[0][0], tuple(row[-1] for row in rows), ""
            failure = ((done.stdout + done.stderr).strip().splitlines() or ["nvidia-smi finds nothing"])[-1]
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None, (), failure
    version = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    return version and version[0], tuple(device.name for device in devices), failure
