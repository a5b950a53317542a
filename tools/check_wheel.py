"""Build the package and use it as its users do: `python -m tools.check_wheel`, or `make wheel-check`.

The wheel, and the wheel that the sdist builds, must hold the tracked files of the packages and nothing else. An index
must accept the metadata of all three, and the long description must have no relative link. The wheel is then
installed outside the checkout with `[onnx]` alone, and must detect there what the checkout detects.

Exit codes: 0 all of this holds; 1 something does not, with a line for each difference.
"""

import configparser
import json
import re
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tools.environments import ROOT, new_environment, run

_KINDS = {".py", ".typed", ".json", ".jinja", ".html", ".css", ".js", ".h5", ".onnx", ".jpg"}  # in the packages
_METADATA = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
_NOT_FOR_ONNX = {"tensorflow", "keras", "h5py", "onnx", "tf2onnx", "typer"}  # what other extras bring
_PIXELS, _SCORE = 0.01, 0.001  # largest differences between the two environments


def main() -> int:
    """Build, compare and use the wheel; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as name:
        folder = Path(name).resolve()
        run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "direct"), str(ROOT)], folder)
        run([sys.executable, "-m", "build", "--outdir", str(folder / "through-sdist"), str(ROOT)], folder)
        (wheel,), (from_sdist,) = ((folder / name).glob("*.whl") for name in ("direct", "through-sdist"))
        files = intended_files(ROOT)
        problems = wheel_problems(wheel, ROOT, files)
        problems += [f"built from the sdist: {problem}" for problem in wheel_problems(from_sdist, ROOT, files)]
        packages = [str(path) for path in folder.glob("*/maskrcnn_export-*")]
        run([sys.executable, "-m", "twine", "check", "--strict", *packages], folder)
        _say(f"{wheel.name}: {len(files)} files of the packages, {len(problems)} problems")
        problems = problems or _use(wheel, folder)
    for problem in problems:
        _say(f"error: {problem}")
    return 1 if problems else 0


def intended_files(root: Path) -> set[str]:
    """Return the tracked files of the packages; without git, the files on disk."""
    packages = _project(root)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    git = shutil.which("git")
    if git and (root / ".git").exists():
        command = [git, "-c", f"safe.directory={root}", "ls-files", "-z", "--", *packages]
        return set(filter(None, run(command, root).split("\0")))
    found = chain.from_iterable((root / package).rglob("*") for package in packages)
    return {path.relative_to(root).as_posix() for path in found if path.is_file() and path.suffix != ".pyc"}


def wheel_problems(wheel: Path, root: Path, files: set[str]) -> list[str]:
    """Return a line for each way in which a wheel is not what the checkout says.

    Args:
        wheel: The wheel file.
        root: The checkout.
        files: Paths of the files that it must hold besides its metadata, relative to the checkout.
    """
    project = _project(root)["project"]
    about = f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata = {f"{about}/{name}" for name in _METADATA}
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    problems = [f"{name} is missing from the wheel" for name in sorted((files | metadata) - set(held))]
    problems += [f"{name} is in the wheel, but is not tracked" for name in sorted(set(held) - files - metadata)]
    problems += [
        f"{name} has an unexpected suffix" for name in sorted(files) if PurePosixPath(name).suffix not in _KINDS
    ]
    problems += [
        f"{name} differs from the checkout"
        for name in sorted(files & set(held))
        if held[name] != (root / name).read_bytes()
    ]
    problems += [
        f"the long description has the relative link {target}"
        for target in re.findall(r"\]\(([^()\s]+)\)", held.get(f"{about}/METADATA", b"").decode())
        if not re.match(r"[a-z]+:", target)
    ]
    return problems + _entry_point_problems(held, f"{about}/entry_points.txt", project["scripts"])


def _entry_point_problems(held: Mapping[str, bytes], name: str, scripts: Mapping[str, str]) -> list[str]:
    parser = configparser.ConfigParser()
    parser.read_string(held.get(name, b"").decode())
    found = dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}
    problems = [] if found == scripts else [f"the entry points are {found}, expected {scripts}"]
    modules = {script: target.partition(":")[0].replace(".", "/") + ".py" for script, target in found.items()}
    return problems + [
        f"{script} starts {module}, which is missing" for script, module in modules.items() if module not in held
    ]


def _use(wheel: Path, folder: Path) -> list[str]:
    artifact = ROOT / "maskrcnn" / "demo.onnx"
    python = new_environment(folder / "environment", f"{wheel}[onnx]")
    outside = folder / "elsewhere"
    outside.mkdir()
    program = str(ROOT / "tools" / "detect_demo.py")
    found = json.loads(run([str(python), "-I", program, str(artifact)], outside))
    expected = json.loads(run([sys.executable, program, str(artifact)], ROOT, {"PYTHONPATH": str(ROOT)}))
    problems = []
    if not Path(found["folder"]).is_relative_to(folder / "environment"):
        problems.append(f"the new environment imports {found['folder']}, not the wheel")
    problems += [f"[onnx] alone installs {name}" for name in sorted(_NOT_FOR_ONNX & set(found["packages"]))]
    problems += differences(found, expected)
    names = ", ".join(found["packages"])
    _say(f"detected {len(found['classes'])} objects with {names} alone, {len(problems)} problems")
    return problems


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return a line for each way in which two answers of `detect_demo` differ."""
    if not expected["classes"]:
        return ["the checkout detects nothing in the demo image"]
    if found["classes"] != expected["classes"]:
        return [f"the wheel detects {found['classes']}, expected {expected['classes']}"]
    pixels, score = (float(np.abs(np.subtract(found[key], expected[key])).max()) for key in ("boxes", "scores"))
    problems = [f"boxes differ by {pixels} pixels, allowed are {_PIXELS}"] if pixels > _PIXELS else []
    return problems + ([f"scores differ by {score}, allowed is {_SCORE}"] if score > _SCORE else [])


def _project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
